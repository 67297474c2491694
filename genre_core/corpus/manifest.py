"""Manifest, the rows of a table that lists tracks with their genre, group and split."""

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from genre_core.corpus.manifest_tables import MANIFEST_COLUMNS as MANIFEST_COLUMNS
from genre_core.corpus.manifest_tables import normalized_columns, read_table
from genre_core.errors import ErrorCode, InputError

MANIFEST_SUFFIXES = (".csv", ".tsv", ".parquet")
MANIFEST_NAMES = tuple(f"manifest{suffix}" for suffix in MANIFEST_SUFFIXES)
"""Names of the manifest in a folder."""

SIMILAR_COLUMNS = {
    "path": ("file", "filename", "file_name", "filepath", "file_path", "audio", "audio_path", "track", "uri"),
    "genre": ("label", "labels", "class", "class_name", "category", "style", "tag", "target", "genre_top"),
    "group": ("artist", "artist_id", "artist_name", "album", "performer", "band", "recording", "speaker"),
    "split": ("fold", "set", "subset", "part", "partition"),
}
"""Common names of columns with the content of one of MANIFEST_COLUMNS: they are suggested, never used."""
MISSING_VALUES = ("nan", "na", "n/a", "#n/a", "<na>", "nat", "none", "null")
"""What spreadsheets and pandas write for a missing value, in lower case."""

_COLUMNS_SHOWN = 8
"""Number of columns listed in a message."""
_INDEX = re.compile(r"(unnamed: \d+|__index_level_\d+__|index|)\Z")
"""Names of a column of row numbers."""


@dataclass(frozen=True)
class Manifest:
    """The content of a manifest."""

    rows: tuple[dict[str, str], ...]
    """Cells by name in MANIFEST_COLUMNS, "" for a missing value."""
    notes: tuple[str, ...]
    """Remarks to the user on how the table was read, one sentence each."""


def read_manifest(path: Path, aliases: Mapping[str, str] | None = None) -> Manifest:
    """Read a manifest; in messages, row 1 is the first one below the header.

    Args:
        path: a CSV, TSV, Parquet or JSON lines file. Column names match in any case and with spaces around them.
        aliases: other names of columns, such as `file_name` for `path`, used if the column itself is absent.

    Raises:
        InputError: the table cannot be read, or lacks a required column or rows.
    """
    table = read_table(path)
    columns = normalized_columns(table.names, aliases or {})
    if missing := [name for name in MANIFEST_COLUMNS[:2] if name not in columns]:
        raise InputError(_missing_columns(path, table.names, missing), code=ErrorCode.MANIFEST_MISSING_COLUMN)
    if repeated := [name for name in MANIFEST_COLUMNS if columns.count(name) > 1]:
        raise InputError(
            f"{path} has the column {repeated[0]} more than once: keep one of them",
            code=ErrorCode.MANIFEST_REPEATED_COLUMN,
        )
    if not table.rows:
        raise InputError(
            f"{path} has no rows: add a row for each track, or remove the file",
            code=ErrorCode.MANIFEST_WITHOUT_ROWS,
        )
    places = {name: columns.index(name) for name in MANIFEST_COLUMNS if name in columns}
    rows = [{name: _text(row[place]) for name, place in places.items()} for row in table.rows]
    notes = [*_notes_on_columns(path, table.names, columns), *_notes_on_missing(path, rows)]
    return Manifest(
        tuple(dict.fromkeys(MANIFEST_COLUMNS, "") | _without_missing(row) for row in rows), tuple(notes)
    )


def column_names(path: Path) -> list[str]:
    """Read the names of a table's columns, in lower case and without surrounding spaces.

    Raises:
        InputError: the table cannot be read.
    """
    return normalized_columns(read_table(path).names, {})


def _text(cell: object) -> str:
    """Convert a cell to text: "" for null and not-a-number, which mean a missing value in Parquet and pandas."""
    missing = cell is None or (isinstance(cell, float) and math.isnan(cell))
    return "" if missing else str(cell)


def _without_missing(row: Mapping[str, str]) -> dict[str, str]:
    """Empty the group and the split of a row where they hold one of MISSING_VALUES."""
    return {
        name: "" if name in ("group", "split") and cell.strip().lower() in MISSING_VALUES else cell
        for name, cell in row.items()
    }


def _missing_columns(path: Path, names: Sequence[str], missing: Sequence[str]) -> str:
    renames = [f"rename {similar[0]!r} to {name}" for name in missing if (similar := _similar(name, names))]
    way_out = ", ".join(renames) or f"add a header and a column for {' and '.join(missing)}"
    return (
        f"a manifest needs the columns path and genre, but {path} lacks {' and '.join(missing)}: "
        f"it has {_quoted(names) or 'no columns'}; {way_out}"
    )


def _similar(column: str, names: Sequence[str]) -> list[str]:
    """Names in a table that may mean one of MANIFEST_COLUMNS, the most likely first."""
    plain = {re.sub(r"[\s-]+", "_", name.strip().lower()): name for name in names}
    known = [name for name in SIMILAR_COLUMNS[column] if name in plain]
    return [plain[name] for name in known or difflib.get_close_matches(column, plain, cutoff=0.8)]


def _quoted(names: Sequence[str]) -> str:
    """List the first few names, and count the rest."""
    more = f" and {len(names) - _COLUMNS_SHOWN} more" if len(names) > _COLUMNS_SHOWN else ""
    return ", ".join(map(repr, names[:_COLUMNS_SHOWN])) + more


def _notes_on_columns(path: Path, names: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Name the columns that are not read, and suggest those that may mean an absent one."""
    unread = [
        name
        for name, column in zip(names, columns, strict=True)
        if column not in MANIFEST_COLUMNS and not _INDEX.match(column)
    ]
    notes = [f"{path.name}: unused columns: {_quoted(unread)}"] if unread else []
    return notes + [
        f"{path.name}: no column {column}; if {similar[0]!r} contains it, rename it to {column}"
        for column in MANIFEST_COLUMNS
        if column not in columns and (similar := _similar(column, unread))
    ]


def _notes_on_missing(path: Path, rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Count the groups and splits that were read as missing, and the tracks without a group if others have one."""
    notes = []
    for name in ("group", "split"):
        words = [row[name].strip() for row in rows if row.get(name, "").strip().lower() in MISSING_VALUES]
        if words:
            notes.append(f"{path.name}: {name} {words[0]!r} is read as missing in {len(words)} rows")
    bare = sum(not _without_missing(row).get("group", "").strip() for row in rows)
    if "group" in rows[0] and 0 < bare < len(rows):
        notes.append(f"{path.name}: {bare} of {len(rows)} tracks have no group; each is its own group")
    return notes
