"""The conditions under which two searches have comparable scores."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from genre_core.corpus.tracks import Corpus
from search.config.schema import SearchConfig


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Everything that all scores of a search depend on; scores of two searches are comparable if it is equal."""

    corpus: str
    """Fingerprint of the corpus."""
    genres: Mapping[str | None, str]
    """Content hash of a track -> genre."""
    split: Mapping[str | None, str | None]
    """Content hash of a track -> part of the split."""
    front_end: str
    level: str


def conditions(config: SearchConfig, tracks: Corpus) -> Conditions:
    """Read the conditions from the configuration and the corpus of a search."""
    return Conditions(
        corpus=tracks.fingerprint,
        genres={track.content: track.genre for track in tracks.usable},
        split={track.content: track.split for track in tracks.usable},
        front_end=config.front_end,
        level=config.level,
    )


def differences(one: Conditions, other: Conditions) -> list[str]:
    """List the names of the conditions that differ, without genres and split if the corpus itself differs."""
    names = [field.name for field in fields(Conditions)]
    differ = [name for name in names if getattr(one, name) != getattr(other, name)]
    return [name for name in differ if "corpus" not in differ or name not in ("genres", "split")]
