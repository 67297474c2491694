"""What a model says of files, for people and for programs: which files are meant, and each one's prediction as text."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from genre_core.corpus import AUDIO_NAME
from genre_core.errors import InputError
from genre_core.predict import Prediction

SHOWN = 3
"""Genres of a file that are shown to people."""


def listed(files: Sequence[str], standard_input: Iterable[str]) -> Iterator[str]:
    """The files meant: `-` is a list on standard input, a folder all audio below it.

    Raises:
        InputError: a folder has no audio below it.
    """
    for name in files:
        if name == "-":
            yield from (line.rstrip("\n") for line in standard_input if line.strip())
        elif Path(name).is_dir():
            found = sorted(path for path in Path(name).rglob("*") if AUDIO_NAME.search(path.name))
            if not found:
                raise InputError(f"a folder must have audio below it, but {name} has none; give another")
            yield from map(str, found)
        else:
            yield name


def as_record(path: str, found: Prediction) -> dict[str, Any]:
    """Everything, for a JSON line."""
    record: dict[str, Any] = {
        "path": path,
        "genre": found.genre,
        "probabilities": found.probabilities,
        "seconds": found.seconds,
        "padded": found.padded,
    }
    if found.over_time:
        record["over_time"] = [vars(stretch) for stretch in found.over_time]
    return record


def as_line(path: str, found: Prediction) -> str:
    """The likeliest genres in a line, and one for each stretch of time."""
    padded = "  (shorter than a segment)" if found.padded else ""
    lines = [f"{path}: {_likeliest(found.probabilities)}{padded}"]
    lines += [f"  {stretch.start:7.1f} s  {_likeliest(stretch.probabilities)}" for stretch in found.over_time]
    return "\n".join(lines)


def _likeliest(probabilities: dict[str, float]) -> str:
    best = sorted(probabilities, key=probabilities.__getitem__, reverse=True)[:SHOWN]
    return "  ".join(f"{genre} {probabilities[genre]:.3f}" for genre in best)
