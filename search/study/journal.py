"""A run's journal: which of its studies is the run's own, and what the results tables know of its trials."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import LOCK_FILE_SUFFIX
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial

from genre_core.errors import InputError
from genre_core.system.atomic import atomic_file
from search.run.identity import RUN_ID, read_provenance
from search.run.tables import RUNNING, TRIALS, read_epochs_file
from search.study.study import WARM_START

JOURNAL = "study.journal"
Row = Mapping[str, Any]


def own_trials(run: Path) -> list[FrozenTrial]:
    """A search's own trials; its journal is only read and may be growing. None where there is no journal.

    Raises:
        InputError: the journal is damaged.
    """
    if not (run / JOURNAL).exists():  # opening it would make one
        return []
    storage = _opened(run / JOURNAL)
    if (study := _own(run, storage)) is None:
        return []
    trials = storage.get_all_trials(study._study_id, deepcopy=False)
    return [trial for trial in trials if WARM_START not in trial.user_attrs]


def own_study(run: Path) -> tuple[str | None, list[str]]:
    """The name of the run's own study and those of others in its journal, of which the run takes no notice.

    An earlier version opened a second study in the journal of a run whose folder had been renamed. The own one is that
    which says so, else that which the results tables are of, else that with the most trials.

    Raises:
        InputError: the journal is damaged.
    """
    storage = _opened(run / JOURNAL)
    own = _own(run, storage)
    names = [study.study_name for study in storage.get_all_studies()]
    return (None, []) if own is None else (own.study_name, [name for name in names if name != own.study_name])


def repair_journal(journal: Path) -> None:
    """Make a journal whole whose writer died: its last line, where it is cut, and a lock that nobody holds, go.

    Only for who drives the run: nobody else may be writing to it.
    """
    for lock in journal.parent.glob(f"{journal.name}{LOCK_FILE_SUFFIX}*"):
        lock.unlink()
    if not journal.exists():
        return
    with journal.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


def make_own(journal: Path) -> None:
    """Give the run a journal of its own where it shares one with a copy, as links of either kind do."""
    if journal.is_symlink() or (journal.exists() and journal.stat().st_nlink > 1):
        with atomic_file(journal) as partial:
            shutil.copyfile(journal, partial)


def recorded(run: Path) -> dict[int, Row]:
    """The trials of the results tables by number: how each ended, or how far it had come."""
    rows: dict[int, Row] = {}
    for file in sorted((run / "results" / "epochs").glob("trial-*.parquet")):
        try:
            row = read_epochs_file(file)[1]
        except (OSError, pa.ArrowException):
            continue
        rows[row["trial"]] = dict.fromkeys(TRIALS.names) | row | {"state": RUNNING}
    try:
        table = pq.read_table(run / "results" / "trials.parquet").to_pylist()
    except (OSError, pa.ArrowException):
        return rows
    complete = (dict.fromkeys(TRIALS.names) | row for row in table)
    return rows | {
        row["trial"]: row for row in complete if row["state"] != RUNNING or row["trial"] not in rows
    }


def is_of(trial: FrozenTrial, row: Row | None) -> bool:
    """Whether a row of the tables is this trial's: it has the same settings."""
    return row is not None and all(row[name] == value for name, value in _columns(trial.params))


def _opened(journal: Path) -> JournalStorage:
    try:
        return JournalStorage(JournalFileBackend(str(journal)))
    except ValueError as error:
        raise InputError(
            f"the study must be whole, but {journal} is damaged: {error}; put a copy of it back, or move it away: "
            "genre-search resume then rebuilds it from the results tables"
        ) from error


def _own(run: Path, storage: JournalStorage) -> FrozenStudy | None:
    studies = storage.get_all_studies()
    if len(studies) < 2:
        return studies[0] if studies else None
    run_id, rows = read_provenance(run).get(RUN_ID), recorded(run)

    def claim(study: FrozenStudy) -> tuple[bool, int, int]:
        trials = storage.get_all_trials(study._study_id, deepcopy=False)
        return (
            run_id is not None and study.user_attrs.get(RUN_ID) == run_id,
            sum(bool(trial.params) and is_of(trial, rows.get(trial.number)) for trial in trials),
            len(trials),
        )

    return max(studies, key=claim)  # of equal ones the first


def _columns(params: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Optuna's parameters by the names that the tables have for them."""
    for name, value in params.items():
        yield "frozen_blocks" if name.startswith("frozen_blocks") else name, value
