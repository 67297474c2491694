"""Brings a run's tables in line with its study after its driver died: the study is the truth of what was tried."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from optuna.trial import FrozenTrial, TrialState

from genre_core.models.artifact import is_complete
from genre_core.recipe import Recipe
from genre_core.system.atomic import PARTIAL
from search.config.schema import SearchConfig
from search.recovery.unclaimed import Unclaimed
from search.run.tables import (
    EPOCHS,
    RUNNING,
    TRIALS,
    ResultsWriter,
    Row,
    epochs_file,
    new_row,
    read_epochs_file,
)
from search.study.journal import is_of
from search.study.study import ERROR, STOPPED, Study, best_epoch
from search.study.suggest import sample

_TRIALS_OWN = {"results/epochs": ".parquet", "checkpoints": ".safetensors", "models": ""}
"""Folders that hold one file, or one folder, for each of some trials -> how their names end."""


def reconcile(
    run: Path, config: SearchConfig, study: Study, writer: ResultsWriter, unclaimed: Unclaimed
) -> list[Row]:
    """Make the tables say what the study says, and the study know every epoch that is in the tables.

    An epoch is written to its table first and reported then, so a driver that died in between leaves one that
    the study does not know. Where the study knows one that no table has, a file was damaged: what is left of the
    epoch is its F1. What belongs to no trial of the study, or is damaged, is moved to `unclaimed`.

    Returns:
        Every trial's row, as it stands, under the run's present name.
    """
    for partial in (run / "results").rglob(f".*{PARTIAL}"):
        partial.unlink()
    own = {trial.number for trial in study.trials}
    for path in list(_strangers(run, own)):
        unclaimed.take(path)
    table = _table(run, unclaimed)
    if any(row["trial"] not in own for row in table):
        unclaimed.take(run / "results" / "trials.parquet")
    ended = {row["trial"]: row for row in table if row["state"] != RUNNING}
    begun = [trial for trial in study.trials if trial.state != TrialState.WAITING]
    rows = [_reconcile_trial(run, config, study, writer, trial, unclaimed) for trial in begun]
    for trial, row in zip(begun, rows, strict=True):
        if row["state"] != RUNNING and is_of(trial, last := ended.get(trial.number)):
            row.update(last or {})
    return [row | {"study": run.resolve().name} for row in rows]


def _strangers(run: Path, own: set[int]) -> Iterator[Path]:
    """Files in the trials' folders that belong to none of these trials, and models that are incomplete."""
    for folder, suffix in _TRIALS_OWN.items():
        for path in sorted((run / folder).glob("[!.]*")):
            number = re.fullmatch(rf"trial-(\d+)(-epoch-\d+)?{re.escape(suffix)}", path.name)
            if not number or int(number[1]) not in own or (folder == "models" and not is_complete(path)):
                yield path


def _reconcile_trial(
    run: Path,
    config: SearchConfig,
    study: Study,
    writer: ResultsWriter,
    trial: FrozenTrial,
    unclaimed: Unclaimed,
) -> Row:
    """The trial's row, as its epochs and the study have it; its epochs are on disk when this returns."""
    running = trial.number in study.running
    # a driver may have died while it was sampling: asked again, the trial gives what is missing
    recipe = sample(study.trial(trial.number) if running else trial, config)
    epochs, row = _read(run, trial, recipe, unclaimed)
    if running:
        for epoch in epochs.to_pylist():
            study.report(trial.number, epoch=epoch["epoch"], f1=epoch["val_f1"])
    if len(epochs) and (running or not epochs_file(run, trial.number).exists()):
        writer.take_up(trial.number, epochs, row)
    return row | {
        "state": RUNNING if running else trial.state.name,
        "error": trial.user_attrs.get(ERROR),
        "stopped": trial.user_attrs.get(STOPPED),
        "finished": _utc(trial.datetime_complete),
    }


def _table(run: Path, unclaimed: Unclaimed) -> list[Row]:
    """The rows that the driver left: of a trial that has ended, the last word, where they exist."""
    file = run / "results" / "trials.parquet"
    try:
        rows: list[Row] = pq.read_table(file, schema=TRIALS).to_pylist()
    except FileNotFoundError:
        return []
    except (OSError, pa.ArrowException):
        unclaimed.take(file)
        return []
    return rows


def _read(run: Path, trial: FrozenTrial, recipe: Recipe, unclaimed: Unclaimed) -> tuple[pa.Table, Row]:
    """The trial's epochs and its row; where there is no file, or a damaged one, what the study knows."""
    path = epochs_file(run, trial.number)
    try:
        epochs, row = read_epochs_file(path)
        if is_of(trial, row):
            return epochs, row
        unclaimed.take(path)
    except FileNotFoundError:
        pass  # no epoch of it was done, or only the study knows
    except (OSError, pa.ArrowException):
        unclaimed.take(path)
    scores = dict(sorted(trial.intermediate_values.items()))
    rows = [
        dict.fromkeys(EPOCHS.names) | {"trial": trial.number, "attempt": 1, "epoch": epoch, "val_f1": f1}
        for epoch, f1 in scores.items()
    ]
    row = new_row(run.resolve().name, trial.number, recipe) | {
        "epochs": len(scores),
        "started": _utc(trial.datetime_start),
    }
    if scores:
        row |= {"best_epoch": best_epoch(scores), "val_f1": max(scores.values())}
    return pa.Table.from_pylist(rows, schema=EPOCHS), row


def _utc(moment: datetime | None) -> datetime | None:
    """Optuna keeps local times without their zone."""
    return moment.astimezone(UTC) if moment else None
