"""Reading of a manifest's cells from CSV, TSV, Parquet or JSON lines in the dialects of common programs."""

import codecs
import csv
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from genre_core.errors import ErrorCode, InputError

MANIFEST_COLUMNS = ("path", "genre", "group", "split")
"""Columns that are read; path and genre are required."""
HUGGING_FACE_COLUMNS = {"file_name": "path", "label": "genre"}
"""Column names in a metadata.csv, .jsonl or .parquet of Hugging Face's audio folders -> column here."""

_DELIMITERS = ",;\t|"
_BYTE_ORDER_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

Cells = Sequence[object]


@dataclass(frozen=True)
class Table:
    """The cells of a table."""

    names: Sequence[str]
    """Column names as in the file."""
    rows: Sequence[Cells]


def read_table(path: Path) -> Table:
    """Read a table.

    Raises:
        InputError: the file cannot be read as the kind of table that its suffix says.
    """
    if not path.is_file():  # opening a pipe would block
        raise InputError(
            f"a manifest must be a file, but {path} is not one: replace or remove it",
            code=ErrorCode.MANIFEST_NOT_A_FILE,
        )
    readers: dict[str, Callable[[Path], Table]] = {".parquet": _read_parquet, ".jsonl": _read_json_lines}
    try:
        return readers.get(path.suffix.lower(), _read_csv)(path)
    except (OSError, ValueError, LookupError, OverflowError, RecursionError, pa.ArrowException) as error:
        raise InputError(
            f"{path} cannot be read ({' '.join(str(error).split())}): save it again"
            f"{'' if path.suffix.lower() == '.parquet' else ', as UTF-8'}",
            code=ErrorCode.MANIFEST_UNREADABLE,
        ) from error


def normalized_columns(names: Sequence[str], aliases: Mapping[str, str]) -> list[str]:
    """Return column names in lower case and without surrounding spaces.

    `aliases` are replaced by the columns they stand for where the table lacks those.
    """
    columns = [name.strip().lower() for name in names]
    return [aliases[name] if name in aliases and aliases[name] not in columns else name for name in columns]


def _read_parquet(path: Path) -> Table:
    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        wanted = (*MANIFEST_COLUMNS, *HUGGING_FACE_COLUMNS)
        read = [name for name in names if name.strip().lower() in wanted]
        # a repeated name is refused later
        cells = {} if len(set(read)) < len(read) else file.read(read).to_pydict()
        empty = [None] * file.metadata.num_rows
        rows = list(zip(*(cells.get(name, empty) for name in names), strict=True))
    return Table(names, rows)


def _read_json_lines(path: Path) -> Table:
    records = [json.loads(line) for line in _decode(path).splitlines() if line.strip()]
    if not all(isinstance(record, dict) for record in records):
        raise ValueError("a line is not a JSON object")
    names = list(dict.fromkeys(name for record in records for name in record))
    return Table(names, [[record.get(name) for name in names] for record in records])


def _read_csv(path: Path) -> Table:
    """Read CSV with the delimiter for which most column names are known."""
    text = _decode(path)
    if stated := re.match(r"sep=(.)\r?\n", text):  # written by Excel
        text = text[stated.end() :]
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=stated[1] if stated else _delimiter(text), strict=True
    )
    rows: list[list[str]] = []
    try:
        for cells in reader:
            if cells:
                rows.append(_fit_to_header(path, len(rows), cells, rows[0] if rows else cells))
    except csv.Error as error:
        place = f"at row {len(rows)}" if rows else "in its header"
        raise InputError(
            f"{path} cannot be read {place} ({error}): put a cell that contains a quote in quotes, and double the "
            'quote in it, as in "12"" mix.wav"',
            code=ErrorCode.MANIFEST_QUOTING,
        ) from error
    return Table(rows[0] if rows else [], rows[1:])


def _fit_to_header(path: Path, number: int, cells: list[str], header: list[str]) -> list[str]:
    """Return a row with as many cells as the header; excess cells must be empty."""
    if any(cells[len(header) :]):
        raise InputError(
            f"{path}, row {number}: more cells than the header has; quote a cell that contains a comma",
            code=ErrorCode.MANIFEST_EXTRA_CELLS,
        )
    return cells[: len(header)] + [""] * (len(header) - len(cells))


def _decode(path: Path) -> str:
    content = path.read_bytes()
    return content.decode("utf-16" if content.startswith(_BYTE_ORDER_MARKS) else "utf-8-sig")


def _delimiter(text: str) -> str:
    # csv.Sniffer gives up on tables whose cells contain other delimiters
    known_columns = {*MANIFEST_COLUMNS, *HUGGING_FACE_COLUMNS}

    def known(delimiter: str) -> int:
        try:
            header = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
        except csv.Error:  # reported when the rows are read
            return 0
        return sum(column in known_columns for column in normalized_columns(header, {}))

    return max(_DELIMITERS, key=known)
