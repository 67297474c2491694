"""The conditions under which two searches have comparable scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TypeVar

from genre_core.corpus.corpus_table import read_columns
from genre_core.corpus.tracks import Corpus, fingerprint_of
from search.config.schema import SearchConfig

Fact = TypeVar("Fact")


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Everything that the scores of a search depend on; two searches are comparable if their conditions are equal."""

    corpus: str
    """Fingerprint of the corpus."""
    genres: Mapping[str | None, str]
    """Content hash of a track -> genre."""
    split: Mapping[str | None, str | None]
    """Content hash of a track -> part of the split."""
    front_end: str
    level: str
    contents: Mapping[str, str]
    """Hash of a file -> content hash, as it was decoded on the machine of this search."""


def conditions(config: SearchConfig, tracks: Corpus) -> Conditions:
    """The conditions of a search with this configuration and corpus."""
    usable = tracks.usable
    return _conditions(
        config,
        content=[track.content for track in usable],
        genre=[track.genre for track in usable],
        split=[track.split for track in usable],
        file_hash=[track.file_hash for track in usable],
    )


def read_conditions(config: SearchConfig, corpus: Path) -> Conditions:
    """The conditions of a search with this configuration and corpus.parquet; for the error, see `load_corpus`."""
    return _conditions(config, **read_columns(corpus, "content", "genre", "split", "file_hash"))


def _conditions(
    config: SearchConfig,
    *,
    content: Sequence[str | None],
    genre: Sequence[str],
    split: Sequence[str | None],
    file_hash: Sequence[str | None],
) -> Conditions:
    """The conditions, given the columns of the usable tracks."""
    return Conditions(
        corpus=fingerprint_of(content),
        genres=dict(zip(content, genre, strict=True)),
        split=dict(zip(content, split, strict=True)),
        front_end=config.front_end,
        level=config.level,
        contents={file: own for file, own in zip(file_hash, content, strict=True) if file and own},
    )


def differences(one: Conditions, other: Conditions) -> list[str]:
    """List the names of the conditions that differ, without genres and split if the corpus itself differs."""
    other = _as_decoded_for(one, other)
    names = [field.name for field in fields(Conditions) if field.name != "contents"]
    differ = [name for name in names if getattr(one, name) != getattr(other, name)]
    return [name for name in differ if "corpus" not in differ or name not in ("genres", "split")]


def _as_decoded_for(one: Conditions, other: Conditions) -> Conditions:
    """The other search's conditions with the contents that the same files had for the first one."""
    names = {content: one.contents.get(file, content) for file, content in other.contents.items()}

    def renamed(facts: Mapping[str | None, Fact]) -> dict[str | None, Fact]:
        return {names.get(content or "", content): fact for content, fact in facts.items()}

    same_files = renamed(other.genres).keys() == one.genres.keys()
    return replace(
        other,
        corpus=one.corpus if same_files else other.corpus,
        genres=renamed(other.genres),
        split=renamed(other.split),
    )
