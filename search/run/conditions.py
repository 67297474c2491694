"""What the scores of a search depend on: two searches are comparable where these are equal."""

from collections.abc import Mapping
from typing import Any

from genre_core.corpus.tracks import Corpus
from search.config.schema import SearchConfig


def conditions(config: SearchConfig, tracks: Corpus) -> dict[str, Any]:
    """What every score of a search depends on, by name: searches that differ in any are not comparable."""
    return {
        "corpus": tracks.fingerprint,
        "genres": {track.content: track.genre for track in tracks.usable},
        "split": {track.content: track.split for track in tracks.usable},
        "front_end": config.front_end,
        "level": config.level,
    }


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names of the conditions that differ; of another corpus the genres and the split are others anyway."""
    differ = [name for name in one if one[name] != other[name]]
    return [name for name in differ if "corpus" not in differ or name not in ("genres", "split")]
