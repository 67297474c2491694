"""Reconciles a run's tables with its study after its driver died; the study is the source of truth."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
from optuna.trial import FrozenTrial, TrialState

from genre_core.models.artifact import SHARED, is_complete
from genre_core.recipe import Recipe
from genre_core.system.atomic import PARTIAL
from search.config.schema import SearchConfig
from search.recovery.unclaimed import Unclaimed
from search.run import shared_blocks
from search.run.folder import CHECKPOINT_SUFFIX, RunFolder, checkpoint_name, epoch_number, trial_number
from search.run.schemas import EPOCHS, RUNNING, TrialRow, new_trial
from search.run.tables import ResultsWriter, read_epochs_file
from search.study.journal import has_settings, read_trial_rows
from search.study.study import Study, best_epoch, error_of, stopped_by
from search.study.suggest import sample


def reconcile(
    run: Path, config: SearchConfig, study: Study, writer: ResultsWriter, unclaimed: Unclaimed
) -> list[TrialRow]:
    """Make the tables agree with the study, and report the epochs that only the tables have to the study.

    An epoch is written to its table before it is reported to the study. So if the driver died in between, only the
    table has the epoch. If only the study has it, the table was damaged, and the F1 is all that is left of the epoch.
    Files that are damaged or belong to no trial of the study are moved aside.

    Args:
        run: the folder of the run.
        config: the configuration of the search.
        study: the study of the search.
        writer: the writer of the run's tables.
        unclaimed: moves files aside.

    Returns:
        The current row of every trial, with the present name of the run.
    """
    for partial in RunFolder(run).results.rglob(f".*{PARTIAL}"):
        partial.unlink()
    own = {trial.number for trial in study.trials}
    for path in list(_foreign(run, own)):
        for block in shared_blocks.blocks_of(path):
            unclaimed.keep_copy(block)
        unclaimed.take(path)
    table = _table_rows(run, own, unclaimed)
    started = [trial for trial in study.trials if trial.state != TrialState.WAITING]
    rows = [_reconcile_trial(run, config, study, writer, trial, unclaimed) for trial in started]
    for place, trial in enumerate(started):
        last, row = table.get(trial.number), rows[place]
        if last is None or not has_settings(last, trial):
            continue
        if RUNNING not in (row.state, last.state):
            rows[place] = last
        else:  # a trial's epochs were written before the decisions after them
            row.pauses = max(row.pauses or 0, last.pauses or 0)
            row.decision_seconds = last.decision_seconds or row.decision_seconds
    return [replace(row, study=RunFolder(run).name) for row in rows]


def unsettled(run: Path, study: Study) -> list[int]:
    """Running trials that cannot continue right after the last epoch that the study knows.

    Their last epoch was not reported, or not checkpointed, because the driver died first; or it was the last of all.
    They are trained at once, so that the tables have every epoch of which a model is kept.
    """
    folder = RunFolder(run)

    def last(paths: Iterable[Path]) -> int:
        return max((epoch_number(path.name) for path in paths), default=0)

    return [
        number
        for number in study.running
        if last(folder.checkpoints.glob(checkpoint_name(number, None))) != study.epochs(number)
        or last(folder.kept_models(number)) > study.epochs(number)
    ]


def _foreign(run: Path, own: set[int]) -> Iterator[Path]:
    """Paths in the trials' folders that belong to none of the search's own trials, and incomplete models."""
    folder = RunFolder(run)
    for of_trials, suffix in (
        (folder.epochs, ".parquet"),
        (folder.checkpoints, CHECKPOINT_SUFFIX),
        (folder.models, ""),
    ):
        for path in sorted(of_trials.glob("[!.]*")):
            if path == folder.models / SHARED:
                continue
            number = trial_number(path.name, suffix)
            if number not in own or (of_trials == folder.models and not is_complete(path)):
                yield path
    yield from (
        path for path in sorted((folder.models / SHARED).glob("[!.]*")) if not shared_blocks.is_block(path)
    )


def _table_rows(run: Path, own: set[int], unclaimed: Unclaimed) -> dict[int, TrialRow]:
    """Rows in trials.parquet by number.

    The table is moved aside if it is damaged or has rows of other trials.
    """
    try:
        table = read_trial_rows(run)
    except FileNotFoundError:
        return {}
    except (OSError, pa.ArrowException):
        unclaimed.take(RunFolder(run).trials)
        return {}
    if any(row.trial not in own for row in table):
        unclaimed.take(RunFolder(run).trials)
    return {row.trial: row for row in table}


def _reconcile_trial(
    run: Path,
    config: SearchConfig,
    study: Study,
    writer: ResultsWriter,
    trial: FrozenTrial,
    unclaimed: Unclaimed,
) -> TrialRow:
    """The row of a trial, from its epochs and the study; its epochs are on disk when this returns."""
    running = trial.number in study.running
    # if the driver died while it sampled the trial, sampling again adds the missing parameters
    recipe = sample(study.trial(trial.number) if running else trial, config)
    epochs, row = _epochs_and_row(run, trial, recipe, unclaimed)
    if running:
        for epoch in epochs.to_pylist():
            study.report(trial.number, epoch=epoch["epoch"], f1=epoch["val_f1"])
    if len(epochs) and (running or not RunFolder(run).epochs_of(trial.number).exists()):
        writer.take_up(epochs, row)
    row.state = RUNNING if running else trial.state.name
    row.error, row.stopped = error_of(trial), stopped_by(trial)
    row.finished = _utc(trial.datetime_complete)
    return row


def _epochs_and_row(
    run: Path, trial: FrozenTrial, recipe: Recipe, unclaimed: Unclaimed
) -> tuple[pa.Table, TrialRow]:
    """The epochs of a trial and its row, from its file; from the study if the file is missing or damaged."""
    path = RunFolder(run).epochs_of(trial.number)
    try:
        epochs, row = read_epochs_file(path)
        if has_settings(row, trial):
            return epochs, row
        unclaimed.take(path)
    except FileNotFoundError:
        pass  # no epoch was finished, or only the study has them
    except (OSError, pa.ArrowException):
        unclaimed.take(path)
    return _from_study(run, trial, recipe)


def _from_study(run: Path, trial: FrozenTrial, recipe: Recipe) -> tuple[pa.Table, TrialRow]:
    """The epochs of a trial and its row, as far as the study has them."""
    scores = dict(sorted(trial.intermediate_values.items()))
    rows = [
        dict.fromkeys(EPOCHS.names) | {"trial": trial.number, "attempt": 1, "epoch": epoch, "val_f1": f1}
        for epoch, f1 in scores.items()
    ]
    started = _utc(trial.datetime_start)
    assert started, "the study sets the start time of every trial"
    row = new_trial(RunFolder(run).name, trial.number, recipe, started=started)
    row.epochs = len(scores)
    if scores:
        row.best_epoch, row.val_f1 = best_epoch(scores), max(scores.values())
    return pa.Table.from_pylist(rows, schema=EPOCHS), row


def _utc(moment: datetime | None) -> datetime | None:
    """Optuna returns local times without a time zone."""
    return moment.astimezone(UTC) if moment else None
