"""corpus.parquet, the table of a run's tracks."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from genre_core.corpus.tracks import Corpus, Track
from genre_core.errors import ErrorCode, InputError
from genre_core.system.atomic import atomic_file

SCHEMA_VERSION, EARLIER_VERSION = b"2", b"1"
"""The earlier one lacks the column file_hash."""
SCHEMA = pa.schema(
    [
        pa.field("track_id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("genre", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("split", pa.string()),
        pa.field("seconds", pa.float64(), metadata={"unit": "s"}),
        pa.field("content", pa.string()),
        pa.field("excluded_reason", pa.string()),
        pa.field("file_hash", pa.string()),
    ],
    metadata={"schema_version": SCHEMA_VERSION},
)

_ATTRIBUTES = {name: "location" if name == "path" else name for name in SCHEMA.names}
"""Column -> attribute of a track."""

ROWS = 10_000
"""Tracks that are converted at a time: as columns of Python objects and of Arrow they take additional memory."""


def write_corpus(corpus: Corpus, path: Path) -> None:
    """Write corpus.parquet atomically, with one row per track including the excluded ones."""
    with atomic_file(path) as partial, pq.ParquetWriter(partial, SCHEMA) as file:
        for first in range(0, len(corpus.tracks), ROWS):
            tracks = corpus.tracks[first : first + ROWS]
            columns = {
                name: [getattr(t, attribute) for t in tracks] for name, attribute in _ATTRIBUTES.items()
            }
            file.write_table(pa.table(columns, schema=SCHEMA))


def load_corpus(path: Path, *, part: str | None = None) -> Corpus:
    """Read the file that `write_corpus` wrote.

    Args:
        path: of the file.
        part: one of SPLITS, to read only its usable tracks; None for all tracks.

    Raises:
        InputError: the file cannot be read, or is another kind of table.
    """
    return _corpus(_batches(path, SCHEMA.names, part=part, usable=None if part is None else True))


def load_excluded(path: Path) -> Corpus:
    """Read the excluded tracks alone; for the error, see `load_corpus`."""
    return _corpus(_batches(path, SCHEMA.names, usable=False))


def read_columns(path: Path, *names: str, part: str | None = None) -> dict[str, list[Any]]:
    """Read some columns of the usable tracks; their other columns are not read.

    Args:
        path: of a file that `write_corpus` wrote.
        names: of the columns.
        part: one of SPLITS, to read only its tracks.

    Raises:
        InputError: see `load_corpus`.
    """
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for batch in _batches(path, names, part=part, usable=True):
        for name in names:
            columns[name] += batch[name]
    return columns


def read_genres(path: Path) -> tuple[str, ...]:
    """Read `Corpus.genres`; for the error, see `load_corpus`."""
    return tuple(sorted(set(read_columns(path, "genre")["genre"])))


def require_corpus(path: Path) -> None:
    """Raise the error of `load_corpus` if the file is not a corpus; only its schema is read."""
    list(_batches(path, []))


def _corpus(batches: Iterable[Mapping[str, Sequence[Any]]]) -> Corpus:
    tracks: list[Track] = []
    for columns in batches:
        attributes = [_ATTRIBUTES[name] for name in columns]
        rows = (dict(zip(attributes, row, strict=True)) for row in zip(*columns.values(), strict=True))
        tracks += (Track(**row) for row in rows)
    return Corpus(tuple(tracks))


def _batches(
    path: Path, names: Sequence[str], *, part: str | None = None, usable: bool | None = None
) -> Iterator[dict[str, list[Any]]]:
    """Columns of all, of the usable or of the excluded tracks, batch by batch."""
    shared: dict[str, dict[Any, Any]] = {name: {} for name in ("genre", "group", "split")}
    try:
        with pq.ParquetFile(path) as file:
            _require_version(path, file.schema_arrow)
            needed = {
                *names,
                *(["split"] if part else []),
                *(["excluded_reason"] if usable is not None else []),
            }
            present = [name for name in file.schema_arrow.names if name in needed]
            for batch in file.iter_batches(ROWS, columns=present) if present else ():
                yield _lists(_filtered(batch, part=part, usable=usable), names, shared)
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"{path} cannot be read as a corpus ({error}): restore it from a backup",
            code=ErrorCode.CORPUS_TABLE_UNREADABLE,
        ) from error


def _require_version(path: Path, schema: pa.Schema) -> None:
    version = (schema.metadata or {}).get(b"schema_version")
    earlier = SCHEMA.remove(SCHEMA.get_field_index("file_hash"))
    if (version, schema) not in ((SCHEMA_VERSION, SCHEMA), (EARLIER_VERSION, earlier)):
        raise InputError(
            f"a corpus table must have version {EARLIER_VERSION.decode()} or {SCHEMA_VERSION.decode()}, with its "
            f"columns, but {path} has version {(version or b'unknown').decode(errors='replace')} or other "
            "columns: use the genre-search that wrote it",
            code=ErrorCode.CORPUS_TABLE_VERSION,
        )


def _filtered(batch: pa.RecordBatch, *, part: str | None, usable: bool | None) -> pa.RecordBatch:
    if usable is not None:
        batch = batch.filter(pc.equal(batch["excluded_reason"].is_null(), usable))
    return batch if part is None else batch.filter(pc.equal(batch["split"], part))


def _lists(
    batch: pa.RecordBatch, names: Sequence[str], shared: Mapping[str, dict[Any, Any]]
) -> dict[str, list[Any]]:
    """The columns as lists, None where an earlier version had no such column; one object for equal shared names."""
    found = set(batch.schema.names)
    columns = {name: batch[name].to_pylist() if name in found else [None] * len(batch) for name in names}
    ids = columns.get("track_id", [None] * len(batch))  # the id of a track without others is its group, too
    for name in shared.keys() & columns.keys():
        columns[name] = [
            own if own == value else shared[name].setdefault(value, value)
            for own, value in zip(ids, columns[name], strict=True)
        ]
    return columns
