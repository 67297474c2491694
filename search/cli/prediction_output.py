"""Predictions for files, folders and listed paths, formatted as text, CSV or JSON lines."""

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from genre_core.audio.decode import BadAudio, Reason
from genre_core.corpus.tracks import AUDIO_NAME, audio_below
from genre_core.predict import Model, Prediction
from genre_core.system.addresses import child, is_address, normalized, readable
from genre_core.system.remote_files import list_files
from genre_core.system.storage import STORAGE_ERRORS, reason
from search.report.formatting import bar

_STANDARD_INPUT = "-"
_BAR = 20
"""Characters of the bar of a probability of 1."""
_GENRE_SEPARATOR = "  "
_CSV_COLUMNS = ("path", "start", "end", "genre", "padded", "error")
"""Columns in front of the genres' probabilities; `start` and `end` are in seconds."""
_CSV_DIGITS = 6
"""Decimal places of a probability in CSV."""

Outcome = Prediction | BadAudio
"""Prediction for a file, or the reason why there is none."""


def predictions(
    model: Model, files: Sequence[str], *, standard_input: Iterable[bytes], over_time: bool
) -> Iterator[tuple[str, Outcome]]:
    """Predict the files one by one.

    Args:
        model: the model.
        files: paths or addresses; a folder stands for all audio files in it, and `-` for the paths on standard input.
        standard_input: one path per line.
        over_time: whether to predict each segment, too.

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


def text_lines(path: str, outcome: Outcome, *, top: int, segment_seconds: float) -> str:
    """The path with the duration, then the most probable genres with bars, then the segments if there are any.

    A bad file has the reason after its path.

    Args:
        path: of the file.
        outcome: of the file.
        top: number of genres.
        segment_seconds: duration of a segment.
    """
    name = printable(path)
    if isinstance(outcome, BadAudio):
        return f"{name}: {outcome}"
    short = f", shorter than a segment of {segment_seconds:.2f} s: padded with silence"
    likeliest = _likeliest(outcome.probabilities, top)
    width = max(len(genre) for genre, _ in likeliest)
    lines = [f"{name}  ({outcome.seconds:.1f} s{short if outcome.padded else ''})"]
    lines += [
        f"  {genre:<{width}}  {probability:.3f}  {bar(probability, _BAR)}".rstrip()
        for genre, probability in likeliest
    ]
    for segment in outcome.over_time:
        times = f"{segment.start:.1f}-{segment.start + segment_seconds:.1f} s"
        genres = _GENRE_SEPARATOR.join(
            f"{genre} {probability:.3f}" for genre, probability in _likeliest(segment.probabilities, top)
        )
        lines.append(f"  {times:>15}  {genres}")
    return "\n".join(lines)


def csv_header(genres: Sequence[str]) -> str:
    """The header of the CSV: a row per file or segment, with the probability of each genre."""
    return _csv_row([*_CSV_COLUMNS, *genres])


def csv_rows(genres: Sequence[str], path: str, outcome: Outcome, segment_seconds: float) -> str:
    """The CSV row of a file, and one row per segment if there are any."""
    if isinstance(outcome, BadAudio):
        return _csv_row([path, "", "", "", "", str(outcome), *[""] * len(genres)])
    parts = [(0.0, outcome.seconds, outcome.probabilities)]
    parts += [
        (segment.start, segment.start + segment_seconds, segment.probabilities)
        for segment in outcome.over_time
    ]
    return "\n".join(
        _csv_row(
            [
                *(path, f"{start:.3f}", f"{end:.3f}", _likeliest(probabilities, 1)[0][0]),
                *(str(outcome.padded).lower(), ""),
                *(f"{probabilities[genre]:.{_CSV_DIGITS}f}" for genre in genres),
            ]
        )
        for start, end, probabilities in parts
    )


def json_line(path: str, outcome: Outcome) -> str:
    """The JSON object of a file, on one line."""
    if isinstance(outcome, BadAudio):
        return json.dumps({"path": path, "error": str(outcome)})
    record: dict[str, Any] = {"path": path} | vars(outcome)
    record["over_time"] = [vars(segment) for segment in outcome.over_time]
    return json.dumps(record)


def printable(path: str) -> str:
    """A path for a terminal: control characters are escaped, undecodable bytes are kept."""
    return "".join(
        character
        if character.isprintable() or "\ud800" <= character <= "\udfff"
        else character.encode("unicode_escape").decode()
        for character in path
    )


def _likeliest(probabilities: Mapping[str, float], top: int) -> list[tuple[str, float]]:
    """The most probable genres, highest probability first; ties in the order of the model."""
    return sorted(probabilities.items(), key=lambda pair: -pair[1])[:top]


def _csv_row(cells: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()


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
    if is_address(name):
        return _expand_address(normalized(name))
    if not os.path.isdir(name):  # noqa: PTH112 - pathlib raises for names that are too long
        return [name]
    files = [str(path) for path in audio_below(Path(name)) if not path.name.startswith(".")]
    if not files:
        raise BadAudio(Reason.EMPTY, "a folder without audio")
    return files


def _expand_address(address: str) -> Sequence[str]:
    """The file at an address, if its name is that of an audio file, or all audio files in the folder there."""
    if AUDIO_NAME.search(readable(address)):
        return [address]
    try:
        names = list_files(address)
    except FileNotFoundError as error:
        raise BadAudio(Reason.UNREADABLE, "no such folder in the storage") from error
    except STORAGE_ERRORS as error:
        raise BadAudio(Reason.UNREADABLE, reason(error)) from error
    files = [child(address, name) for name in names if AUDIO_NAME.search(name) and "/." not in f"/{name}"]
    if not files:
        raise BadAudio(Reason.EMPTY, "a folder without audio")
    return files


def _predict(model: Model, path: str, over_time: bool) -> Outcome:
    try:
        return model.predict(path, over_time=over_time)
    except BadAudio as bad:
        return bad
