"""What a model says of files: which files are meant, and each one's prediction as rows of a table or as a JSON line."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from genre_core.audio.decode import BadAudio, Reason
from genre_core.corpus.tracks import audio_below
from genre_core.predict import Model, Prediction

_STANDARD_INPUT = "-"
_PLACES = 3
"""Digits of a probability that are shown."""

Heard = Prediction | BadAudio
"""What came of a file."""


def heard(
    model: Model, files: Sequence[str], *, standard_input: Iterable[bytes], over_time: bool
) -> Iterator[tuple[str, Heard]]:
    """Each file that is meant with what the model says of it, or what is against it, as they come.

    Args:
        model: what listens.
        files: their paths; a folder means all audio below it, and `-` the paths on standard input.
        standard_input: paths, one a line.
        over_time: whether also stretch by stretch.
    """
    for name in _named(files, standard_input):
        try:
            for path in _meant(name):
                yield path, _heard(model, path, over_time)
        except OSError as error:
            yield name, BadAudio(Reason.UNREADABLE, error.strerror or str(error))
        except BadAudio as bad:
            yield name, bad


def titles(genres: Sequence[str]) -> str:
    """The table's first row."""
    return _row(genres, "genre", genres, "seconds", "file")


def as_rows(genres: Sequence[str], path: str, found: Heard, segment_seconds: float) -> str:
    """A file's row in the table, and one for each stretch of its time; a bad file's has its reason."""
    if isinstance(found, BadAudio):
        return _row(genres, "-", ["-"] * len(genres), "-", f"{path!r}: {found}")
    short = (
        f" is shorter than a segment, {segment_seconds:.2f} s: padded with silence" if found.padded else ""
    )
    rows = [_said(found.probabilities, 0.0, found.seconds, f"{path!r}{short}")]
    rows += [
        _said(stretch.probabilities, stretch.start, stretch.start + segment_seconds, repr(path))
        for stretch in found.over_time
    ]
    return "\n".join(rows)


def as_json(path: str, found: Heard) -> str:
    """A file's JSON object, in a line."""
    if isinstance(found, BadAudio):
        return json.dumps({"path": path, "error": str(found)})
    record: dict[str, Any] = {"path": path} | vars(found)
    record["over_time"] = [vars(stretch) for stretch in found.over_time]
    return json.dumps(record)


def _named(files: Sequence[str], standard_input: Iterable[bytes]) -> Iterator[str]:
    for name in files:
        if name == _STANDARD_INPUT:
            lines = (line.rstrip(b"\r\n") for line in standard_input)
            yield from (os.fsdecode(line) for line in lines if line)
        else:
            yield name


def _meant(name: str) -> Iterable[str]:
    """The file of this name, or all audio below the folder of this name, without hidden files and system folders.

    Raises:
        BadAudio: there is no audio below it.
        OSError: a folder below it cannot be listed.
    """
    if not os.path.isdir(name):  # noqa: PTH112 - pathlib raises for names that are too long
        return [name]
    found = [str(path) for path in audio_below(Path(name)) if not path.name.startswith(".")]
    if not found:
        raise BadAudio(Reason.EMPTY, "a folder without audio")
    return found


def _heard(model: Model, path: str, over_time: bool) -> Heard:
    try:
        return model.predict(path, over_time=over_time)
    except BadAudio as bad:
        return bad


def _said(probabilities: dict[str, float], start: float, end: float, file: str) -> str:
    likeliest = max(probabilities, key=probabilities.__getitem__)
    cells = [f"{probability:.{_PLACES}f}" for probability in probabilities.values()]
    return _row([*probabilities], likeliest, cells, f"{start:.1f}-{end:.1f}", file)


def _row(genres: Sequence[str], genre: str, cells: Sequence[str], seconds: str, file: str) -> str:
    """One row; the file comes last, for nobody knows how long its name will be."""
    widths = [max(len(name), _PLACES + 2) for name in genres]
    numbers = "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
    return f"{genre:<{max(widths)}}  {numbers}  {seconds:>13}  {file}"
