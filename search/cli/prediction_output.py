"""Predictions for files, folders and listed paths, formatted as table rows or JSON lines."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from genre_core.audio.decode import BadAudio, Reason
from genre_core.corpus.tracks import audio_below
from genre_core.predict import Model, Prediction

_STANDARD_INPUT = "-"
_PROBABILITY_DIGITS = 3
"""Decimal places of a probability in the table."""

Outcome = Prediction | BadAudio
"""Prediction for a file, or the reason why there is none."""


def predictions(
    model: Model, files: Sequence[str], *, standard_input: Iterable[bytes], over_time: bool
) -> Iterator[tuple[str, Outcome]]:
    """Predict each file as it is reached.

    Args:
        model: the model.
        files: paths; a folder stands for all audio files in it, and `-` for the paths on standard input.
        standard_input: one path per line.
        over_time: whether to predict each segment too.

    Yields:
        Path and outcome of each file.
    """
    for name in _paths(files, standard_input):
        try:
            for path in _expand(name):
                yield path, _predict(model, path, over_time)
        except OSError as error:
            yield name, BadAudio(Reason.UNREADABLE, error.strerror or str(error))
        except BadAudio as bad:
            yield name, bad


def header(genres: Sequence[str]) -> str:
    """The header row of the table."""
    return _row(genres, "genre", genres, "seconds", "file")


def table_rows(genres: Sequence[str], path: str, outcome: Outcome, segment_seconds: float) -> str:
    """The table row of a file, and one row per segment if there are any; a bad file has the reason instead."""
    if isinstance(outcome, BadAudio):
        return _row(genres, "-", ["-"] * len(genres), "-", f"{path!r}: {outcome}")
    short = (
        f" is shorter than a segment, {segment_seconds:.2f} s: padded with silence" if outcome.padded else ""
    )
    rows = [_prediction_row(outcome.probabilities, 0.0, outcome.seconds, f"{path!r}{short}")]
    rows += [
        _prediction_row(segment.probabilities, segment.start, segment.start + segment_seconds, repr(path))
        for segment in outcome.over_time
    ]
    return "\n".join(rows)


def json_line(path: str, outcome: Outcome) -> str:
    """The JSON object of a file, on one line."""
    if isinstance(outcome, BadAudio):
        return json.dumps({"path": path, "error": str(outcome)})
    record: dict[str, Any] = {"path": path} | vars(outcome)
    record["over_time"] = [vars(segment) for segment in outcome.over_time]
    return json.dumps(record)


def _paths(files: Sequence[str], standard_input: Iterable[bytes]) -> Iterator[str]:
    """Paths as given, with `-` replaced by the lines of standard input."""
    for name in files:
        if name == _STANDARD_INPUT:
            lines = (line.rstrip(b"\r\n") for line in standard_input)
            yield from (os.fsdecode(line) for line in lines if line)
        else:
            yield name


def _expand(name: str) -> Iterable[str]:
    """The file itself, or all audio files below a folder except hidden ones.

    Raises:
        BadAudio: the folder contains no audio.
        OSError: a folder below it cannot be listed.
    """
    if not os.path.isdir(name):  # noqa: PTH112 - pathlib raises for names that are too long
        return [name]
    files = [str(path) for path in audio_below(Path(name)) if not path.name.startswith(".")]
    if not files:
        raise BadAudio(Reason.EMPTY, "a folder without audio")
    return files


def _predict(model: Model, path: str, over_time: bool) -> Outcome:
    try:
        return model.predict(path, over_time=over_time)
    except BadAudio as bad:
        return bad


def _prediction_row(probabilities: dict[str, float], start: float, end: float, file: str) -> str:
    likeliest = max(probabilities, key=probabilities.__getitem__)
    cells = [f"{probability:.{_PROBABILITY_DIGITS}f}" for probability in probabilities.values()]
    return _row([*probabilities], likeliest, cells, f"{start:.1f}-{end:.1f}", file)


def _row(genres: Sequence[str], genre: str, cells: Sequence[str], seconds: str, file: str) -> str:
    """One table row; the file comes last because its length is unknown."""
    widths = [max(len(name), _PROBABILITY_DIGITS + 2) for name in genres]
    numbers = "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
    return f"{genre:<{max(widths)}}  {numbers}  {seconds:>13}  {file}"
