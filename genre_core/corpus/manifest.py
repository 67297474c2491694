"""A manifest -> rows of text: CSV, TSV, Parquet or JSON lines, as spreadsheets, pandas and Windows write them."""

import codecs
import csv
import difflib
import io
import json
import math
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from genre_core.errors import InputError

MANIFEST_SUFFIXES = (".csv", ".tsv", ".parquet")
MANIFEST_COLUMNS = ("path", "genre", "group", "split")  # the first two are needed, others than these not read
MANIFESTS = tuple(f"manifest{suffix}" for suffix in MANIFEST_SUFFIXES)

HUGGING_FACE = {"file_name": "path", "label": "genre"}
"""What Hugging Face's audio folders call columns, in a metadata.csv, .jsonl or .parquet."""

NEAR_NAMES = {
    "path": ("file", "filename", "file_name", "filepath", "file_path", "audio", "audio_path", "track", "uri"),
    "genre": ("label", "labels", "class", "class_name", "category", "style", "tag", "target", "genre_top"),
    "group": ("artist", "artist_id", "artist_name", "album", "performer", "band", "recording", "speaker"),
    "split": ("fold", "set", "subset", "part", "partition"),
}
"""Columns that often hold what one of MANIFEST_COLUMNS is for; they are suggested, never taken for it."""
MISSING = ("nan", "na", "n/a", "#n/a", "<na>", "nat", "none", "null")
"""What spreadsheets and pandas write for a missing value, in lower case."""

_DELIMITERS = ",;\t|"
_SHOWN = 8  # columns that a message names
_INDEX = re.compile(
    r"(unnamed: \d+|__index_level_\d+__|index|)\Z"
)  # a table's row numbers, with or without a name
_DRIVE = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_BYTE_ORDER_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

Cells = Sequence[Any]


@dataclass(frozen=True)
class Manifest:
    """What a table lists."""

    rows: tuple[dict[str, str], ...]  # by name in MANIFEST_COLUMNS; "" for a missing value
    notes: tuple[str, ...]  # what the user should know of how it was read, a sentence each


@dataclass(frozen=True)
class _Table:
    names: Sequence[str]  # as the file has them
    rows: Sequence[Cells]


def read_manifest(path: Path, aliases: Mapping[str, str] | None = None) -> Manifest:
    """The rows of a manifest; row 1 is the first below the header.

    Columns match whatever their case and the spaces around them. `aliases` are other names for columns, such as
    `file_name` for `path`, where the column itself is absent. Raises InputError.
    """
    table = _read(path)
    columns = _columns(table.names, aliases or {})
    if missing := [name for name in MANIFEST_COLUMNS[:2] if name not in columns]:
        raise InputError(_lacking(path, table.names, missing))
    if twice := [name for name in MANIFEST_COLUMNS if columns.count(name) > 1]:
        raise InputError(f"{path} has the column {twice[0]} more than once: keep the one that is meant")
    if not table.rows:
        raise InputError(f"{path} has no rows: list a track in each, or take it away")
    places = {name: columns.index(name) for name in MANIFEST_COLUMNS if name in columns}
    rows = [{name: _text(row[place]) for name, place in places.items()} for row in table.rows]
    notes = [*_notes_on_columns(path, table.names, columns), *_notes_on_missing(path, rows)]
    return Manifest(tuple(dict.fromkeys(MANIFEST_COLUMNS, "") | _present(row) for row in rows), tuple(notes))


def column_names(path: Path) -> list[str]:
    """The names of a table's columns, in lower case and without spaces around them. Raises InputError."""
    return _columns(_read(path).names, {})


def _columns(names: Sequence[str], aliases: Mapping[str, str]) -> list[str]:
    columns = [name.strip().lower() for name in names]
    return [aliases[name] if name in aliases and aliases[name] not in columns else name for name in columns]


def _text(cell: object) -> str:
    """A cell as text; a missing value, which Parquet and pandas have as null or not-a-number, is none."""
    missing = cell is None or (isinstance(cell, float) and math.isnan(cell))
    return "" if missing else str(cell)


def _present(row: Mapping[str, str]) -> dict[str, str]:
    """A row without group and split where these say in words that they are missing."""
    return {
        name: "" if name in ("group", "split") and cell.strip().lower() in MISSING else cell
        for name, cell in row.items()
    }


def _lacking(path: Path, names: Sequence[str], missing: Sequence[str]) -> str:
    renames = [f"rename {near[0]!r} to {name}" for name in missing if (near := _near(name, names))]
    return (
        f"{path} needs the columns path and genre, and lacks {' and '.join(missing)}: "
        f"it has {_listed(names) or 'none'}{'; ' if renames else ''}{', '.join(renames)}"
    )


def _near(column: str, names: Sequence[str]) -> list[str]:
    """Those of a table's names that may well be meant for one of MANIFEST_COLUMNS, the likeliest first."""
    plain = {re.sub(r"[\s-]+", "_", name.strip().lower()): name for name in names}
    known = [near for near in NEAR_NAMES[column] if near in plain]
    return [plain[near] for near in known or difflib.get_close_matches(column, plain, cutoff=0.8)]


def _listed(names: Sequence[str]) -> str:
    """So many of the names that a line holds them."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more


def _notes_on_columns(path: Path, names: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Which columns are not read, and which of these may be meant for one that is absent."""
    unread = [
        name
        for name, column in zip(names, columns, strict=True)
        if column not in MANIFEST_COLUMNS and not _INDEX.match(column)
    ]
    notes = [f"{path.name}: columns not read: {_listed(unread)}"] if unread else []
    return notes + [
        f"{path.name}: no column {column}; if {near[0]!r} holds it, rename it to {column}"
        for column in MANIFEST_COLUMNS
        if column not in columns and (near := _near(column, unread))
    ]


def _notes_on_missing(path: Path, rows: Sequence[Mapping[str, str]]) -> list[str]:
    """How many groups and splits say in words that they are missing, and how many groups are so among others."""
    notes = []
    for name in ("group", "split"):
        words = [row[name].strip() for row in rows if row.get(name, "").strip().lower() in MISSING]
        if words:
            notes.append(f"{path.name}: {name} {words[0]!r} is read as missing, in {len(words)} rows")
    bare = sum(not _present(row).get("group", "").strip() for row in rows)
    if "group" in rows[0] and 0 < bare < len(rows):
        notes.append(
            f"{path.name}: {bare} of {len(rows)} tracks have no group; each of them is its own group"
        )
    return notes


def _read(path: Path) -> _Table:
    if not path.is_file():  # opening a pipe would wait for ever
        raise InputError(f"{path} is no file: write a manifest there, or take it away")
    readers: dict[str, Callable[[Path], _Table]] = {".parquet": _read_parquet, ".jsonl": _read_json_lines}
    try:
        return readers.get(path.suffix.lower(), _read_csv)(path)
    except (OSError, ValueError, LookupError, OverflowError, RecursionError, pa.ArrowException) as error:
        raise InputError(
            f"{path} cannot be read ({' '.join(str(error).split())}): write it anew, as UTF-8"
        ) from error


def _read_parquet(path: Path) -> _Table:
    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        wanted = (*MANIFEST_COLUMNS, *HUGGING_FACE)
        read = [name for name in names if name.strip().lower() in wanted]
        cells = (
            {} if len(set(read)) < len(read) else file.read(read).to_pydict()
        )  # a name twice is refused later
        empty = [None] * file.metadata.num_rows
        rows = list(zip(*(cells.get(name, empty) for name in names), strict=True))
    return _Table(names, rows)


def _read_json_lines(path: Path) -> _Table:
    records = [json.loads(line) for line in _decoded(path).splitlines() if line.strip()]
    if not all(isinstance(record, dict) for record in records):
        raise ValueError("a line is no JSON object")
    names = list(dict.fromkeys(name for record in records for name in record))
    return _Table(names, [[record.get(name) for name in names] for record in records])


def _read_csv(path: Path) -> _Table:
    """A table of cells with whatever delimiter makes most of its header known."""
    text = _decoded(path)
    if told := re.match(r"sep=(.)\r?\n", text):  # Excel's
        text = text[told.end() :]
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=told[1] if told else _delimiter(text), strict=True
    )
    rows: list[list[str]] = []
    try:
        for cells in reader:
            if cells:
                rows.append(_of_length(path, len(rows), cells, rows[0] if rows else cells))
    except csv.Error as error:
        place = f"at row {len(rows)}" if rows else "in its header"
        raise InputError(
            f"{path} cannot be read {place} ({error}): quote a cell that holds a quote, and double the "
            'quote in it, as in "12"" mix.wav"'
        ) from error
    return _Table(rows[0] if rows else [], rows[1:])


def _of_length(path: Path, number: int, cells: list[str], header: list[str]) -> list[str]:
    """A row's cells, as many as the header's; those beyond are none where they are empty."""
    if any(cells[len(header) :]):
        raise InputError(
            f"{path}, row {number}: more cells than the header has; quote a cell that holds a comma"
        )
    return cells[: len(header)] + [""] * (len(header) - len(cells))


def _decoded(path: Path) -> str:
    content = path.read_bytes()
    return content.decode("utf-16" if content.startswith(_BYTE_ORDER_MARKS) else "utf-8-sig")


def _delimiter(text: str) -> str:
    def known(delimiter: str) -> int:
        try:
            header = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
        except csv.Error:  # told of where the rows are read
            return 0
        return sum(column in MANIFEST_COLUMNS or column in HUGGING_FACE for column in _columns(header, {}))

    return max(_DELIMITERS, key=known)


class Files:
    """The files that a manifest's paths mean, whatever Unicode form or separators they are written in."""

    def __init__(self, folder: Path) -> None:
        """`folder` is the manifest's."""
        self._folder = folder
        self._listed: dict[Path, dict[str, list[str]]] = {}  # folder -> name in NFC -> names on disk

    def meant(self, written: str, where: str) -> Path:
        """The path of a file; where none is found under any reading, the path as it is written.

        Raises:
            InputError: the path is one of Windows, with a drive or a server; `where` says in which row.
        """
        # normpath, so that one file under two spellings is seen as listed twice
        exact = Path(os.path.normpath(self._folder / written))
        of_windows = _DRIVE.match(written)
        plain = written.isascii() and written == written.strip() and "\\" not in written
        if (plain and not of_windows) or os.path.lexists(exact):
            return exact
        if of_windows:
            raise InputError(
                f"{where}: Windows paths lead nowhere on this system, but got {written!r}; write paths relative to "
                f"{self._folder}"
            )
        slashed = written.replace("\\", "/")
        readings = [written, written.strip(), slashed, slashed.strip()]
        found = (self._found(os.path.normpath(self._folder / reading)) for reading in dict.fromkeys(readings))
        return next((path for path in found if path), Path(os.path.normpath(self._folder / slashed)))

    def _found(self, path: str) -> Path | None:
        """The file of this name, every part of it in a form that is on disk."""
        forms = [Path(os.sep)]
        for part in Path(path).parts[1:]:
            forms = [here / name for here in forms for name in self._forms(here, part)]
        return forms[0] if forms else None

    def _forms(self, folder: Path, name: str) -> list[str]:
        """The names in a folder that are this one in any Unicode form, the form itself first."""
        if os.path.lexists(folder / name) and name.isascii():
            return [name]
        if folder not in self._listed:
            self._listed[folder] = _by_nfc(folder)
        forms = self._listed[folder].get(unicodedata.normalize("NFC", name), [])
        return sorted(forms, key=lambda form: (form != name, form))


def _by_nfc(folder: Path) -> dict[str, list[str]]:
    """The names in a folder by their form NFC; none where it cannot be listed, for the audit names the file."""
    names: defaultdict[str, list[str]] = defaultdict(list)
    try:
        for path in folder.iterdir():
            names[unicodedata.normalize("NFC", path.name)].append(path.name)
    except OSError:
        return {}
    return names
