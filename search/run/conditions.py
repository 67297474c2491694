"""The conditions under which two searches have comparable scores."""

from collections.abc import Mapping
from typing import Any

from genre_core.corpus.tracks import Corpus
from search.config.schema import SearchConfig


def conditions(config: SearchConfig, tracks: Corpus) -> dict[str, Any]:
    """Everything that all scores of a search depend on; scores of two searches are comparable if it is equal."""
    return {
        "corpus": tracks.fingerprint,
        "genres": {track.content: track.genre for track in tracks.usable},
        "split": {track.content: track.split for track in tracks.usable},
        "front_end": config.front_end,
        "level": config.level,
    }


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The names of the conditions that differ, without genres and split if the corpus itself differs."""
    differ = [name for name in one if one[name] != other[name]]
    return [name for name in differ if "corpus" not in differ or name not in ("genres", "split")]
