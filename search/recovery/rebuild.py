"""Rebuilds the journal of a run whose study is lost, from its results tables."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import pyarrow as pa
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from genre_core.errors import InputError
from genre_core.system.atomic import atomic_file
from search.config.schema import SearchConfig
from search.config.space import Space
from search.run.tables import epochs_file, read_epochs_file
from search.study.journal import JOURNAL, Row, recorded
from search.study.study import BEST_EPOCH, ERROR, REPEAT, STOPPED, WARM_START, best_epoch
from search.study.suggest import sample


def rebuild(run: Path, config: SearchConfig, *, name: str) -> int:
    """Write the journal of a run whose study is lost from its results tables; it appears whole or not at all.

    Every trial gets its number, settings, state and epochs back. Numbers without a record, such as those of trials of
    earlier searches, are taken by failed trials that count nowhere.

    Returns:
        How many trials it has now; without any nothing is written.

    Raises:
        InputError: the tables hold trials that this configuration cannot have drawn.
    """
    if not (rows := recorded(run)):
        return 0
    with atomic_file(run / JOURNAL) as partial:
        study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(partial))), study_name=name, direction="maximize"
        )
        for number in range(max(rows) + 1):
            study.add_trial(_trial(run, config, rows[number]) if number in rows else _gap(number))
    return len(rows)


def _trial(run: Path, config: SearchConfig, row: Row) -> FrozenTrial:
    """The trial of a row."""
    number, state = int(row["trial"]), TrialState[row["state"]]
    drawn = FixedTrial(
        {name: row[name] for name in Space.model_fields}
        | {f"frozen_blocks_{row['backbone']}": row["frozen_blocks"]}
    )
    try:
        sample(drawn, config)
        scores = _scores(run, number)
        trial = FrozenTrial(
            number=number,
            trial_id=number,
            state=state,
            value=_value(state, scores),
            datetime_start=_local(row["started"]),
            datetime_complete=_local(row["finished"] or row["started"]) if state.is_finished() else None,
            params=drawn.params,
            distributions=drawn.distributions,
            user_attrs=_attributes(state, scores, row) | _repeat(config, row),
            system_attrs={},
            intermediate_values=scores,
        )
        trial._validate()
    except ValueError as error:
        raise InputError(
            f"the study of {run} is lost and cannot be rebuilt: trial {number} of its tables does not fit its "
            f"config.yaml ({error}); put a copy of {JOURNAL} or of config.yaml back"
        ) from error
    return trial


def _gap(number: int) -> FrozenTrial:
    """A trial that holds the place of one that is not on record."""
    return optuna.trial.create_trial(state=TrialState.FAIL, user_attrs={WARM_START: ("unknown", number)})


def _scores(run: Path, number: int) -> dict[int, float]:
    """Epoch -> validation F1."""
    try:
        table = read_epochs_file(epochs_file(run, number))[0]
    except (OSError, pa.ArrowException):
        return {}
    return dict(zip(table["epoch"].to_pylist(), table["val_f1"].to_pylist(), strict=True))


def _value(state: TrialState, scores: Mapping[int, float]) -> float | None:
    """As `Study` tells it: the best epoch's of a complete trial, the last one's of a pruned one."""
    if not scores or state not in (TrialState.COMPLETE, TrialState.PRUNED):
        return None
    return scores[best_epoch(scores) if state == TrialState.COMPLETE else max(scores)]


def _attributes(state: TrialState, scores: Mapping[int, float], row: Row) -> dict[str, Any]:
    if state == TrialState.FAIL:
        return {ERROR: row["error"] or "unknown"}
    if state == TrialState.PRUNED and row["stopped"]:
        return {STOPPED: row["stopped"]}
    return {BEST_EPOCH: best_epoch(scores)} if state == TrialState.COMPLETE and scores else {}


def _repeat(config: SearchConfig, row: Row) -> dict[str, Any]:
    """How many seeds the trial's configuration was tried with before."""
    repeat = int(row["seed"] or config.seed) - config.seed
    return {REPEAT: repeat} if repeat > 0 else {}


def _local(moment: datetime) -> datetime:
    """Optuna keeps local times without their zone."""
    return moment.astimezone().replace(tzinfo=None)
