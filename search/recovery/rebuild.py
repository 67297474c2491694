"""Rebuilds the journal of a run from its results tables, if the study is lost."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import pyarrow as pa
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from genre_core.errors import InputError
from genre_core.system.atomic import atomic_file
from search.config.enqueued import is_like
from search.config.schema import SearchConfig
from search.config.space import Space
from search.errors import SearchErrorCode
from search.run.folder import JOURNAL, RunFolder
from search.run.schemas import TrialRow
from search.run.tables import read_epochs_file
from search.study.journal import recorded_trials
from search.study.study import BEST_EPOCH, ENQUEUED, ERROR, REPEAT, STOPPED, WARM_START, best_epoch
from search.study.suggest import fixed_trial, sample


def rebuild(run: Path, config: SearchConfig, *, name: str) -> int:
    """Rebuild a lost journal from the results tables; the file appears complete or not at all.

    Every trial keeps its number, settings, state and epochs. Numbers that are not in the tables, such as those of
    trials of earlier searches, become failed trials that are not counted.

    Args:
        run: the folder of the run.
        config: the configuration of the search.
        name: the name of the study.

    Returns:
        The number of rebuilt trials; if it is 0, no journal is written.

    Raises:
        InputError: the tables have trials that this configuration cannot have sampled.
    """
    if not (rows := recorded_trials(run)):
        return 0
    enqueued = _enqueued(config, rows)
    with atomic_file(RunFolder(run).journal) as partial:
        study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(partial))), study_name=name, direction="maximize"
        )
        for number in range(max(rows) + 1):
            if number in rows:
                _add(study, run, config, rows[number], attributes=enqueued.get(number, {}))
            else:
                study.add_trial(_placeholder(number))
    return len(rows)


def _enqueued(config: SearchConfig, rows: Mapping[int, TrialRow]) -> dict[int, dict[str, Any]]:
    """Number of a trial -> the user attribute that it is the one of an enqueued configuration.

    The tables do not say so: it is the first trial with the settings of the configuration, since enqueued trials come
    before others. Configurations that name more settings choose first: their trials may also fit one that names fewer.
    """
    found: dict[int, dict[str, Any]] = {}
    for entry in sorted(config.enqueue, key=lambda entry: -len(entry.given)):
        fitting = (
            number
            for number in sorted(rows.keys() - found.keys())
            if is_like(entry, vars(rows[number]), n_blocks=rows[number].n_blocks)
        )
        if (number := next(fitting, None)) is not None:
            found[number] = {ENQUEUED: entry.given}
    return found


def _add(
    study: optuna.Study, run: Path, config: SearchConfig, row: TrialRow, *, attributes: Mapping[str, Any]
) -> None:
    """Add the trial of a row; Optuna checks its values against their distributions."""
    try:
        trial = _trial(run, config, row)
        trial.user_attrs.update(attributes)
        study.add_trial(trial)
    except ValueError as error:
        raise InputError(
            f"the study of {run} is lost and cannot be rebuilt: trial {row.trial} in its tables does not fit its "
            f"config.yaml ({error}); restore {JOURNAL} or config.yaml from a copy",
            code=SearchErrorCode.STUDY_NOT_REBUILDABLE,
        ) from error


def _trial(run: Path, config: SearchConfig, row: TrialRow) -> FrozenTrial:
    number, state = int(row.trial), TrialState[row.state]
    replayed = fixed_trial({name: getattr(row, name) for name in Space.model_fields})
    sample(replayed, config)
    scores = _scores(run, number)
    return FrozenTrial(
        number=number,
        trial_id=number,
        state=state,
        value=_value(state, scores),
        datetime_start=_local(row.started),
        datetime_complete=_local(row.finished or row.started) if state.is_finished() else None,
        params=replayed.params,
        distributions=replayed.distributions,
        user_attrs=_end_attributes(state, scores, row) | _repeat_attribute(config, row),
        system_attrs={},
        intermediate_values=scores,
    )


def _placeholder(number: int) -> FrozenTrial:
    """A trial for a number that is not in the tables."""
    return optuna.trial.create_trial(state=TrialState.FAIL, user_attrs={WARM_START: ("unknown", number)})


def _scores(run: Path, number: int) -> dict[int, float]:
    """Epoch -> validation F1."""
    try:
        table = read_epochs_file(RunFolder(run).epochs_of(number))[0]
    except (OSError, pa.ArrowException):
        return {}
    return dict(zip(table["epoch"].to_pylist(), table["val_f1"].to_pylist(), strict=True))


def _value(state: TrialState, scores: Mapping[int, float]) -> float | None:
    """The value that `Study` gives a trial: F1 of the best epoch if COMPLETE, of the last one if PRUNED."""
    if not scores or state not in (TrialState.COMPLETE, TrialState.PRUNED):
        return None
    return scores[best_epoch(scores) if state == TrialState.COMPLETE else max(scores)]


def _end_attributes(state: TrialState, scores: Mapping[int, float], row: TrialRow) -> dict[str, Any]:
    """The user attributes that `Study` sets when a trial ends."""
    if state == TrialState.FAIL:
        return {ERROR: row.error or "unknown"}
    if state == TrialState.PRUNED and row.stopped:
        return {STOPPED: row.stopped}
    return {BEST_EPOCH: best_epoch(scores)} if state == TrialState.COMPLETE and scores else {}


def _repeat_attribute(config: SearchConfig, row: TrialRow) -> dict[str, int]:
    """The user attribute of a trial that repeats a configuration with another seed."""
    repeat = int(row.seed or config.seed) - config.seed
    return {REPEAT: repeat} if repeat > 0 else {}


def _local(moment: datetime) -> datetime:
    """Optuna expects local times without a time zone."""
    return moment.astimezone().replace(tzinfo=None)
