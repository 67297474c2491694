"""The Optuna journal of a run: which of its studies is the run's own, and repair after a crash."""

import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import optuna
import pyarrow as pa
import pyarrow.parquet as pq
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from genre_core.errors import InputError
from genre_core.system.atomic import atomic_file
from search.config.space import FROZEN_SHARE, blocks_of
from search.errors import SearchErrorCode
from search.run.commands import command
from search.run.folder import RunFolder
from search.run.identity import RUN_ID, read_provenance
from search.run.schemas import RUNNING, TRIALS, TrialRow, trial_of
from search.run.tables import read_epochs_file
from search.study.optuna_internals import remove_stale_lock, truncate_incomplete_line
from search.study.study import WARM_START


def own_trials(run: Path) -> list[FrozenTrial]:
    """Read the search's own trials, without those of earlier searches; none if there is no journal.

    The journal is not changed, and another process may be appending to it.

    Raises:
        InputError: the journal is damaged.
    """
    if not RunFolder(run).journal.exists():  # JournalFileBackend would create it
        return []
    if (study := _own(run, _studies(run))) is None:
        return []
    return [trial for trial in study.get_trials(deepcopy=False) if WARM_START not in trial.user_attrs]


def own_study(run: Path) -> tuple[str | None, list[str]]:
    """The name of the run's own study, and the names of the other studies in its journal, which are ignored.

    An earlier version added a second study to the journal when the run's folder had been renamed. The own study is
    the one with the run's id, else the one that matches the results tables, else the one with the most trials.

    Raises:
        InputError: the journal is damaged.
    """
    studies = _studies(run)
    own = _own(run, studies)
    if own is None:
        return None, []
    return own.study_name, [study.study_name for study in studies if study is not own]


def repair_journal(journal: Path) -> None:
    """Remove what a killed process may have left: an incomplete last line and a stale lock.

    Only for the driver of the run: no other process may be writing to the journal.
    """
    remove_stale_lock(journal)
    if journal.exists():
        truncate_incomplete_line(journal)


def unshare_journal(journal: Path) -> None:
    """Replace the journal by a copy if it is a symbolic or hard link: the run may be a copy of another one."""
    if journal.is_symlink() or (journal.exists() and journal.stat().st_nlink > 1):
        with atomic_file(journal) as partial:
            shutil.copyfile(journal, partial)


def recorded_trials(run: Path) -> dict[int, TrialRow]:
    """Rows of the results tables by trial number; damaged files are ignored.

    A trial that is not in trials.parquet, or is RUNNING there, has the row that is stored with its epochs.
    """
    rows: dict[int, TrialRow] = {}
    for file in sorted(RunFolder(run).epochs.glob("trial-*.parquet")):
        with suppress(OSError, pa.ArrowException):
            row = read_epochs_file(file)[1]
            rows[row.trial] = replace(row, state=RUNNING)
    with suppress(OSError, pa.ArrowException):
        table = read_trial_rows(run)
        rows |= {row.trial: row for row in table if row.state != RUNNING or row.trial not in rows}
    return rows


def read_trial_rows(run: Path) -> list[TrialRow]:
    """Rows of trials.parquet; columns that an earlier version did not have are None.

    Raises:
        FileNotFoundError: there is no such table.
        ArrowException, OSError: the table is damaged.
    """
    return [trial_of(row) for row in pq.read_table(RunFolder(run).trials, schema=TRIALS).to_pylist()]


def has_settings(row: TrialRow | None, trial: FrozenTrial) -> bool:
    """Whether a row of the tables has the settings of this trial."""
    return row is not None and all(_has(row, name, value) for name, value in trial.params.items())


def _has(row: TrialRow, parameter: str, value: object) -> bool:
    """Whether a row has the value of a parameter of Optuna; two kinds of them mean the frozen depth."""
    if parameter == FROZEN_SHARE and isinstance(value, float):
        return row.frozen_blocks == blocks_of(value, row.n_blocks)
    column = "frozen_blocks" if parameter.startswith("frozen_blocks") else parameter
    return bool(getattr(row, column) == value)


def _studies(run: Path) -> list[optuna.Study]:
    journal = RunFolder(run).journal
    try:
        storage = JournalStorage(JournalFileBackend(str(journal)))
    except ValueError as error:
        raise InputError(
            f"study.journal must be intact, but {journal} is damaged: {error}; restore it from a copy, or move it away "
            f"and rebuild it from the results tables: {command('resume', run)}",
            code=SearchErrorCode.JOURNAL_DAMAGED,
        ) from error
    names = optuna.get_all_study_names(storage)
    return [optuna.load_study(study_name=name, storage=storage) for name in names]


def _own(run: Path, studies: list[optuna.Study]) -> optuna.Study | None:
    if len(studies) < 2:
        return studies[0] if studies else None
    run_id, rows = read_provenance(run).get(RUN_ID), recorded_trials(run)

    def evidence(study: optuna.Study) -> tuple[bool, int, int]:
        trials = study.get_trials(deepcopy=False)
        matching = sum(bool(trial.params) and has_settings(rows.get(trial.number), trial) for trial in trials)
        return run_id is not None and study.user_attrs.get(RUN_ID) == run_id, matching, len(trials)

    return max(studies, key=evidence)  # the first of equals
