"""The Parquet tables of a search: written while it runs, readable at any time by pandas."""

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
from genre_core.system.atomic import atomic_file, make_folder
from search.run.commands import command
from search.run.folder import RunFolder
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
"""Most of the wall time that rewriting the trials' table may take; its cost grows with the search."""


_READ = b"test_part_read"
"""Key of the test tracks' metadata: when the test part was read, in ISO 8601."""
_KNOWN = b"search_then"
"""Key of the test tracks' metadata: what was known of the search then, as JSON."""
_COPY = "put a copy of it back"
"""The way out where a table is damaged that nothing else could tell again."""
_TRIAL = b"trial"
"""Key of a file of epochs' metadata under which its trial's row stands, as JSON."""


@dataclass(frozen=True, kw_only=True)
class TestLook:
    """The one look at a run's test part, and what was known of the search at that moment."""

    __test__ = False  # no test of pytest's

    at: datetime
    trials: int
    """That the search had, whatever became of them."""
    scored: int
    """Those of them with a validation score: the winner was the best of so many."""
    configurations: tuple[Mapping[str, Any], ...]
    """The trials whose models read the test part, the winner first, by the columns that FINISH shares with TRIALS.

    Empty in a run that a version finished which did not keep this.
    """


class ResultsWriter:
    """Writes both tables of one run. Every file is replaced whole, so a reader never sees half of one.

    A trial's file of epochs also holds its row as it stands: from these files and the study the trials' table can
    be made again, so that it need not follow every change, and has to survive a power cut only at the search's end.
    The epochs always do, since the study's journal, which comes after them, does too.

    The epochs' table is a file a trial with a row group an epoch: a longer version begins with the bytes of
    the shorter one. So even a reader that opens a file twice, as pyarrow's datasets do, once for the footer
    and once for the rows, reads right when the file is replaced in between.
    """

    def __init__(self, run: Path) -> None:
        """Args: the run's folder."""
        self._run = RunFolder(run)
        make_folder(self._run.epochs)
        self._trials: dict[int, TrialRow] = {}
        self._epochs: dict[int, list[pa.Table]] = {}
        self._next_write = 0.0

    def put_trial(self, row: TrialRow) -> None:
        """Set a trial's row; the file follows at once, or a little later in a search of thousands."""
        self._trials[row.trial] = row
        if row.state != RUNNING:
            self._epochs.pop(row.trial, None)
        if time.monotonic() >= self._next_write:
            self._write_trials(durable=False)

    def add_epoch(self, row: EpochRow, trial: TrialRow) -> None:
        """Add an epoch's row, with its trial's as it stands; both are on disk when this returns."""
        groups = self._epochs.setdefault(row.trial, [])
        groups.append(pa.Table.from_pylist([vars(row)], schema=EPOCHS))
        _write(groups, self._run.epochs_of(row.trial), _as_metadata(trial))

    def take_up(self, epochs: pa.Table, trial: TrialRow) -> None:
        """Continue from these epochs of a running trial, a row each, in order."""
        self._epochs[trial.trial] = [epochs.slice(i, 1) for i in range(len(epochs))]
        _write(self._epochs[trial.trial], self._run.epochs_of(trial.trial), _as_metadata(trial))

    def flush(self) -> None:
        """Write the trials' table now; from then on it survives a power cut."""
        self._write_trials(durable=True)

    def _write_trials(self, *, durable: bool) -> None:
        started = time.monotonic()
        rows = [vars(self._trials[number]) for number in sorted(self._trials)]
        _write([pa.Table.from_pylist(rows, schema=TRIALS)], self._run.trials, {}, durable=durable)
        now = time.monotonic()
        self._next_write = now + (now - started) / WRITE_SHARE


def read_trials(run: Path) -> pd.DataFrame:
    """The trials of a run, a row each; empty before the first has begun.

    Raises:
        InputError: the folder holds no run.
    """
    require_run(run)
    file = RunFolder(run).trials
    if not file.exists():
        return pd.DataFrame(columns=TRIALS.names)
    # Opened once: by its path pyarrow opens a file twice, and it may be replaced in between.
    with _damage_explained(run), file.open("rb") as opened:
        trials = pd.read_parquet(opened, dtype_backend="numpy_nullable")  # whole numbers stay whole
    missing = [name for name in TRIALS.names if name not in trials.columns]  # of an earlier version
    return trials.assign(**dict.fromkeys(missing, pd.array([pd.NA] * len(trials), dtype="string")))


def read_epochs(run: Path) -> pd.DataFrame:
    """The epochs of a run in order, unique by (trial, epoch): the latest attempt's where one was repeated.

    Raises:
        InputError: the folder holds no run.
    """
    require_run(run)
    folder = RunFolder(run).epochs
    if not folder.exists():
        return pd.DataFrame(columns=EPOCHS.names)
    with _damage_explained(run):
        table = pyarrow.dataset.dataset(folder, schema=EPOCHS, format="parquet").to_table()
    rows: pd.DataFrame = table.to_pandas().sort_values(["trial", "epoch", "attempt"], kind="stable")
    return rows.drop_duplicates(["trial", "epoch"], keep="last", ignore_index=True)


def read_finish(run: Path) -> pd.DataFrame:
    """The final models of a finished run, a row each, the winner's first; empty before it is finished.

    Raises:
        InputError: the folder holds no run.
    """
    return _read_whole(run, RunFolder(run).finish, FINISH)


def read_test_tracks(run: Path) -> pd.DataFrame:
    """What each final model said of each track of the test part; empty before the run is finished.

    Raises:
        InputError: the folder holds no run.
    """
    return _read_whole(run, RunFolder(run).test_tracks, TEST_TRACKS)


def as_indices(said: pd.DataFrame, genres: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the test tracks' table as genre indices: the truth, [tracks], and what was said, [models, tracks]."""
    index = {genre: place for place, genre in enumerate(genres)}
    models = [own for _, own in said.groupby(["trial", "seed"], sort=False)]
    truth, *said_by = (
        np.array([index[genre] for genre in names], np.int64)
        for names in (models[0]["genre"], *(own["predicted"] for own in models))
    )
    return truth, np.stack(said_by)


def when_test_was_read(run: Path) -> datetime | None:
    """When the test part of a run was read; None where it was not."""
    metadata = _test_metadata(run)
    return datetime.fromisoformat(metadata[_READ].decode()) if metadata else None


def read_test_look(run: Path) -> TestLook | None:
    """The look at a run's test part; None where it was not read.

    For a run that an earlier version finished, the trials are those that had begun by then.

    Raises:
        InputError: the folder holds no run.
    """
    if not (metadata := _test_metadata(run)):
        return None
    at = datetime.fromisoformat(metadata[_READ].decode())
    if _KNOWN in metadata:
        known = json.loads(metadata[_KNOWN])
        return TestLook(at=at, **known | {"configurations": tuple(known["configurations"])})
    trials = read_trials(run)
    then = trials[trials["started"] <= at]
    return TestLook(at=at, trials=len(then), scored=int(then["val_f1"].notna().sum()), configurations=())


def write_finish(run: Path, rows: Sequence[FinalRow]) -> None:
    """Write the final models' table."""
    _write([pa.Table.from_pylist([vars(row) for row in rows], schema=FINISH)], RunFolder(run).finish, {})


def write_test_tracks(run: Path, rows: Sequence[TestTrackRow]) -> None:
    """Write what was read of the test part, and what is known of the search now: the test part has been read."""
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


def _test_metadata(run: Path) -> dict[bytes, bytes] | None:
    """Of the table that is written when the test part is read."""
    file = RunFolder(run).test_tracks
    if not file.exists():
        return None
    with _damage_explained(run, _COPY):
        return dict(pq.read_metadata(file).metadata)


def _read_whole(run: Path, file: Path, schema: pa.Schema) -> pd.DataFrame:
    """A table that is written once."""
    require_run(run)
    if not file.exists():
        return pd.DataFrame(columns=schema.names)
    with _damage_explained(run, _COPY):
        return pd.read_parquet(file)


@contextmanager
def _damage_explained(run: Path, way_out: str = "mend them with: genre-search resume RUN") -> Iterator[None]:
    try:
        yield
    except pa.ArrowInvalid as error:
        what = str(error).splitlines()[0]
        way_out = way_out.replace("genre-search resume RUN", command("resume", run))
        raise InputError(
            f"the tables of {run} must be whole, but one is damaged: {what}; {way_out}"
        ) from error


def read_epochs_file(path: Path) -> tuple[pa.Table, TrialRow]:
    """One trial's epochs, and its row as of the last of them.

    Raises:
        ArrowException, OSError: the file does not exist, or is damaged.
    """
    with path.open("rb") as opened, pq.ParquetFile(opened) as file:
        table = file.read()
        row = json.loads(file.metadata.metadata[_TRIAL])
    return table.cast(EPOCHS), trial_of(row | {"started": datetime.fromisoformat(row["started"])})


def require_new(run: Path) -> None:
    """Raise InputError where the folder holds a run already: two searches are never mixed."""
    if RunFolder(run).config.exists():
        raise InputError(
            f"--name must be a new one, but {run} holds a search already; "
            f"choose another, or go on with that one: {command('resume', run)}"
        )
    if left := [path.name for path in (RunFolder(run).journal, RunFolder(run).results) if path.exists()]:
        raise InputError(
            f"--name must be a new one, but {run} holds {' and '.join(left)} of a search whose config.yaml is lost; "
            "put it back, or choose another name"
        )


def require_run(run: Path) -> None:
    """Raise InputError where the folder holds no run."""
    if not RunFolder(run).config.exists():
        raise InputError(f"RUN must be the folder of a search, with its config.yaml, but got {run}")


def _as_metadata(trial: TrialRow) -> dict[bytes, str]:
    """A trial's row in the file of its epochs."""
    return {_TRIAL: json.dumps(vars(trial), default=datetime.isoformat)}


def _write(
    groups: Sequence[pa.Table], path: Path, metadata: Mapping[bytes, str], *, durable: bool = True
) -> None:
    """Replace a Parquet file by one with these row groups; plain, since the rows are few."""
    plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    with (
        atomic_file(path, durable=durable) as partial,
        pq.ParquetWriter(partial, groups[0].schema, **plain) as writer,
    ):
        for group in groups:
            writer.write_table(group)
        if metadata:
            writer.add_key_value_metadata(metadata)
