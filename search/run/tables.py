"""The Parquet tables of a search: written while it runs, and readable with pandas at any time."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
from numpy.typing import NDArray

from genre_core.errors import InputError
from genre_core.recipe import SGD
from genre_core.system.atomic import atomic_file, make_folder
from search.errors import SearchErrorCode
from search.run.commands import command
from search.run.folder import RunFolder, runs_in
from search.run.schemas import (
    EPOCHS,
    FINISH,
    RUNNING,
    TEST_TRACKS,
    TRIALS,
    EpochRow,
    FinalRow,
    TestTrackRow,
    TrialRow,
    trial_of,
)

WRITE_SHARE = 0.02
"""Largest share of the wall time spent on rewriting the trials' table, whose cost grows with the search."""

_READ = b"test_part_read"
"""Metadata key of the test tracks' table: when the test set was used, in ISO 8601."""
_KNOWN = b"search_then"
"""Metadata key of the test tracks' table: the state of the search at that time, as JSON."""
_RESTORE = "restore it from a copy"
"""What to do about a damaged table that cannot be rebuilt."""
_TRIAL = b"trial"
"""Metadata key of a trial's table of epochs: the row of the trial, as JSON."""


@dataclass(frozen=True, kw_only=True)
class TestUse:
    """The single use of a run's test set, and the state of the search at that time."""

    __test__ = False  # not a test class of pytest

    at: datetime
    trials: int
    """Number of trials in any state."""
    scored: int
    """Number of trials with a validation score, of which the winner was the best."""
    configurations: tuple[Mapping[str, Any], ...]
    """The trials whose models were tested, the winner first: the columns that FINISH shares with TRIALS.

    Empty for a run finished by an earlier version, which did not record them.
    """


class ResultsWriter:
    """Writes the tables of trials and epochs. Files are replaced atomically, so readers never see an incomplete one.

    A trial's file of epochs also has the current row of the trial. The trials' table can be rebuilt from these files
    and the study, so it is not rewritten at every change and is flushed to the disk only at the end of the search.
    Epochs are flushed at once, because the study's journal, which is written after them, is too.

    The epochs' table has one file per trial and one row group per epoch, so a longer version begins with the bytes of
    the shorter one. Even readers that open a file twice, for the footer and for the rows, as pyarrow's datasets do,
    read consistent data if the file is replaced in between.
    """

    def __init__(self, run: Path) -> None:
        """Args: the run's folder."""
        self._run = RunFolder(run)
        make_folder(self._run.epochs)
        self._trials: dict[int, TrialRow] = {}
        self._epochs: dict[int, list[pa.Table]] = {}
        self._next_write = 0.0

    def put_trial(self, row: TrialRow) -> None:
        """Set a trial's row; the file is rewritten at once, or a little later in a search with thousands of trials."""
        self._trials[row.trial] = row
        if row.state != RUNNING:
            self._epochs.pop(row.trial, None)
        if time.monotonic() >= self._next_write:
            self._write_trials(durable=False)

    def add_epoch(self, row: EpochRow, trial: TrialRow) -> None:
        """Add the row of an epoch and the current row of its trial; both are on disk when this returns."""
        groups = self._epochs.setdefault(row.trial, [])
        groups.append(pa.Table.from_pylist([vars(row)], schema=EPOCHS))
        _write(groups, self._run.epochs_of(row.trial), _as_metadata(trial))

    def take_up(self, epochs: pa.Table, trial: TrialRow) -> None:
        """Continue a running trial after these epochs: one row each, in order."""
        self._epochs[trial.trial] = [epochs.slice(i, 1) for i in range(len(epochs))]
        _write(self._epochs[trial.trial], self._run.epochs_of(trial.trial), _as_metadata(trial))

    def flush(self) -> None:
        """Write the trials' table now and flush it to the disk, so that it survives a power failure."""
        self._write_trials(durable=True)

    def _write_trials(self, *, durable: bool) -> None:
        started = time.monotonic()
        rows = [vars(self._trials[number]) for number in sorted(self._trials)]
        _write([pa.Table.from_pylist(rows, schema=TRIALS)], self._run.trials, {}, durable=durable)
        now = time.monotonic()
        self._next_write = now + (now - started) / WRITE_SHARE


def read_trials(run: Path) -> pd.DataFrame:
    """Read the trials of a run, one row each; empty if none has started.

    Raises:
        InputError: the folder contains no run, or the table is damaged.
    """
    require_run(run)
    return _trials(run)


def read_epochs(run: Path) -> pd.DataFrame:
    """Read the epochs of a run in order, unique by (trial, epoch); of a repeated epoch, the latest attempt's.

    Raises:
        InputError: the folder contains no run, or the table is damaged.
    """
    require_run(run)
    return _epochs(run)


def read_curves(run: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read the trials and epochs of a run, or of a folder that has the tables of a run and nothing else.

    Raises:
        InputError: the folder contains no tables, or one is damaged.
    """
    if not RunFolder(run).trials.exists():
        require_run(run)
    return _trials(run), _epochs(run)


def read_finish(run: Path) -> pd.DataFrame:
    """Read the final models of a finished run, one row each, the winner's first; empty if it is not finished.

    Raises:
        InputError: the folder contains no run, or the table is damaged.
    """
    return _read_whole(run, RunFolder(run).finish, FINISH)


def read_test_tracks(run: Path) -> pd.DataFrame:
    """Read each final model's prediction for each test track; empty if the run is not finished.

    Raises:
        InputError: the folder contains no run, or the table is damaged.
    """
    return _read_whole(run, RunFolder(run).test_tracks, TEST_TRACKS)


def as_indices(
    predictions: pd.DataFrame, genres: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Convert the test tracks' table to genre indices: true, [tracks], and predicted, [models, tracks]."""
    index = {genre: place for place, genre in enumerate(genres)}
    models = [own for _, own in predictions.groupby(["trial", "seed"], sort=False)]
    truth, *predicted = (
        np.array([index[genre] for genre in names], np.int64)
        for names in (models[0]["genre"], *(own["predicted"] for own in models))
    )
    return truth, np.stack(predicted)


def test_used_at(run: Path) -> datetime | None:
    """When the test set of a run was used; None if it was not."""
    metadata = _test_metadata(run)
    return datetime.fromisoformat(metadata[_READ].decode()) if metadata else None


def read_test_use(run: Path) -> TestUse | None:
    """Read how the test set of a run was used; None if it was not.

    For a run finished by an earlier version, the trials that had started by then are counted.

    Raises:
        InputError: the folder contains no run, or the table is damaged.
    """
    if not (metadata := _test_metadata(run)):
        return None
    at = datetime.fromisoformat(metadata[_READ].decode())
    if _KNOWN in metadata:
        known = json.loads(metadata[_KNOWN])
        return TestUse(at=at, **known | {"configurations": tuple(known["configurations"])})
    trials = read_trials(run)
    then = trials[trials["started"] <= at]
    return TestUse(at=at, trials=len(then), scored=int(then["val_f1"].notna().sum()), configurations=())


def write_finish(run: Path, rows: Sequence[FinalRow]) -> None:
    """Write the final models' table."""
    _write([pa.Table.from_pylist([vars(row) for row in rows], schema=FINISH)], RunFolder(run).finish, {})


def write_test_tracks(run: Path, rows: Sequence[TestTrackRow]) -> None:
    """Write the predictions for the test tracks and the state of the search: the test set now counts as used."""
    table = pa.Table.from_pylist([vars(row) for row in rows], schema=TEST_TRACKS)
    trials = read_trials(run)
    numbers = list(dict.fromkeys(row.trial for row in rows))
    shared = [name for name in FINISH.names if name in TRIALS.names and name not in ("seed", "seconds")]
    found = trials.set_index("trial", drop=False).loc[numbers, shared].astype(object)
    known = {
        "trials": len(trials),
        "scored": int(trials["val_f1"].notna().sum()),
        "configurations": found.to_dict("records"),
    }
    metadata = {
        _READ: datetime.now(UTC).isoformat(timespec="seconds"),
        _KNOWN: json.dumps(known, default=np.generic.item),
    }
    _write([table], RunFolder(run).test_tracks, metadata)


def _trials(run: Path) -> pd.DataFrame:
    file = RunFolder(run).trials
    if not file.exists():
        return pd.DataFrame(columns=TRIALS.names)
    # pyarrow opens a path twice, and the file may be replaced in between
    with _damage_explained(run), file.open("rb") as opened:
        trials = pd.read_parquet(
            opened, dtype_backend="numpy_nullable"
        )  # integers with missing values stay integers
    missing = [name for name in TRIALS.names if name not in trials.columns]  # of an earlier version
    trials = trials.assign(**dict.fromkeys(missing, pd.array([pd.NA] * len(trials), dtype="string")))
    return trials.assign(optimizer=trials["optimizer"].fillna(SGD))


def _epochs(run: Path) -> pd.DataFrame:
    folder = RunFolder(run).epochs
    if not folder.exists():
        return pd.DataFrame(columns=EPOCHS.names)
    with _damage_explained(run):
        table = pyarrow.dataset.dataset(folder, schema=EPOCHS, format="parquet").to_table()
    rows: pd.DataFrame = table.to_pandas().sort_values(["trial", "epoch", "attempt"], kind="stable")
    return rows.drop_duplicates(["trial", "epoch"], keep="last", ignore_index=True)


def _test_metadata(run: Path) -> dict[bytes, bytes] | None:
    """Read the metadata of the test tracks' table; None if there is no table."""
    file = RunFolder(run).test_tracks
    if not file.exists():
        return None
    with _damage_explained(run, _RESTORE):
        return dict(pq.read_metadata(file).metadata)


def _read_whole(run: Path, file: Path, schema: pa.Schema) -> pd.DataFrame:
    """Read a table that is written once."""
    require_run(run)
    if not file.exists():
        return pd.DataFrame(columns=schema.names)
    with _damage_explained(run, _RESTORE):
        return pd.read_parquet(file)


@contextmanager
def _damage_explained(run: Path, way_out: str = "") -> Iterator[None]:
    """Turn the error of a damaged table into an InputError; without a way out, `resume` rebuilds the table."""
    try:
        yield
    except pa.ArrowInvalid as error:
        cause = str(error).splitlines()[0]
        raise InputError(
            f"the tables of {run} must be intact, but one is damaged: {cause}; "
            + (way_out or f"rebuild it with: {command('resume', run)}"),
            code=SearchErrorCode.TABLE_DAMAGED,
        ) from error


def read_epochs_file(path: Path) -> tuple[pa.Table, TrialRow]:
    """Read the epochs of a trial, null where an earlier version had no such column, and its row as of the last one.

    Raises:
        ArrowException, OSError: the file does not exist, or is damaged.
    """
    with path.open("rb") as opened, pq.ParquetFile(opened) as file:
        table = file.read()
        row = json.loads(file.metadata.metadata[_TRIAL])
    for field in EPOCHS:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    epochs = table.select(EPOCHS.names).cast(EPOCHS)
    return epochs, trial_of(row | {"started": datetime.fromisoformat(row["started"])})


def require_new(run: Path) -> None:
    """Raise InputError if the folder already contains a run, because two searches are never mixed."""
    if RunFolder(run).config.exists():
        raise InputError(
            f"--name must be new, but {run} already contains a search; choose another name, or resume that search: "
            f"{command('resume', run)}",
            code=SearchErrorCode.RUN_EXISTS,
        )
    if left := [path.name for path in (RunFolder(run).journal, RunFolder(run).results) if path.exists()]:
        raise InputError(
            f"--name must be new, but {run} contains {' and '.join(left)} of a search whose config.yaml is missing; "
            "restore config.yaml from a copy, or choose another name",
            code=SearchErrorCode.RUN_WITHOUT_CONFIG,
        )


def require_run(run: Path) -> None:
    """Raise InputError if the folder contains no run."""
    if not RunFolder(run).config.exists():
        inside = sorted(path.name for path in runs_in(run))
        raise InputError(
            f"RUN must be a run folder, but {run} "
            + ("does not exist" if not run.exists() else f"has no {RunFolder(run).config.name}")
            + (f"; runs in it: {', '.join(inside)}" if inside else "; list runs with: genre-search list"),
            code=SearchErrorCode.RUN_NOT_FOUND,
        )


def _as_metadata(trial: TrialRow) -> dict[bytes, str]:
    """The metadata of a trial's table of epochs."""
    return {_TRIAL: json.dumps(vars(trial), default=datetime.isoformat)}


def _write(
    groups: Sequence[pa.Table], path: Path, metadata: Mapping[bytes, str], *, durable: bool = True
) -> None:
    """Replace a Parquet file by one with these row groups, uncompressed because the rows are few."""
    plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    with (
        atomic_file(path, durable=durable) as partial,
        pq.ParquetWriter(partial, groups[0].schema, **plain) as writer,
    ):
        for group in groups:
            writer.write_table(group)
        if metadata:
            writer.add_key_value_metadata(metadata)
