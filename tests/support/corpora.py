"""Corpora of tracks without audio, for tests that only need names."""

from collections import defaultdict
from pathlib import Path

from genre_core.corpus.tracks import Corpus, Track


def corpus_of(*pairs: tuple[str, str]) -> Corpus:
    """A corpus of (genre, group) pairs."""
    return Corpus(
        tuple(
            Track(track_id=f"{genre}/{number:04}.wav", location=f"/{number}.wav", genre=genre, group=group)
            for number, (genre, group) in enumerate(pairs)
        )
    )


def flat(**tracks: int) -> Corpus:
    """A corpus of single-track groups: genre=number of tracks."""
    return corpus_of(*((genre, f"{genre} {i}") for genre, count in tracks.items() for i in range(count)))


def sides_of(corpus: Corpus, key: str) -> dict[str, set[str | None]]:
    sides = defaultdict(set)
    for track in corpus.usable:
        sides[getattr(track, key)].add(track.split)
    return dict(sides)


def touched(root: Path, *names: str) -> Path:
    """Create empty files below a folder and return it."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root
