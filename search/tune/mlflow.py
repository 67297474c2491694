"""Optional logging of trials to MLflow."""

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from genre_core.errors import InputError
from search.engine.messages import Assignment, EpochReport
from search.errors import SearchErrorCode
from search.tune.wire_format import assignment_of, report_of

_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
"""An environment variable of MLflow. By default, it retries for minutes: useful during a search, but not before."""
_SEARCH, _TRIAL = "genre_search.run_id", "genre_search.trial"
"""Tags by which a resumed search finds the MLflow run of a trial."""


class MlflowLogger(tune.Callback):
    """Logs each trial as one MLflow run: its recipe as parameters, the numbers of each epoch as metrics.

    A trial that is resumed, on any worker or after a restart of the driver, continues its run. The confusion matrix and
    F1 by genre are not logged. A run is FINISHED while no worker has its trial, however the trial ended; its state is
    in the tables and the study.
    """

    def __init__(self, client: Any, *, experiment_id: str, experiment: str, search_id: str) -> None:
        """Set up.

        Args:
            client: an `MlflowClient`.
            experiment_id: of the experiment to log to.
            experiment: its name, from which the names of runs are made.
            search_id: identity of the search.
        """
        self._client = client
        self._experiment_id, self._experiment = experiment_id, experiment
        self._search_id = search_id
        self._runs: dict[int, str] = {}
        """Trial -> id of its MLflow run."""
        self._logged: dict[int, int] = {}
        """Trial -> its last epoch that was logged."""

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Continue the trial's run, or create it."""
        assignment = assignment_of(trial.config)
        number = assignment.trial
        if number in self._runs or (assignment.attempt > 1 and self._find(number)):
            self._client.update_run(self._runs[number], status="RUNNING")
        else:
            self._create(assignment)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        """Log an epoch, unless it was logged before: a resumed trial may report its last one again."""
        report = report_of(result)
        if not isinstance(report, EpochReport) or report.row.epoch <= self._logged[report.row.trial]:
            return
        from mlflow.entities import Metric

        now = round(1000 * time.time())
        metrics = [Metric(name, value, now, report.row.epoch) for name, value in _numbers(report)]
        self._client.log_batch(self._runs[report.row.trial], metrics=metrics)
        self._logged[report.row.trial] = report.row.epoch

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """End the run of a trial that has ended or is paused."""
        self._end(trial, "FINISHED")

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """End the run of a trial whose worker was lost, perhaps before it began; another worker may continue it."""
        self._end(trial, "FAILED")

    def _end(self, trial: Trial, status: str) -> None:
        if run := self._runs.get(assignment_of(trial.config).trial):
            self._client.set_terminated(run, status=status)

    def _find(self, number: int) -> bool:
        """Find the run of a trial that an earlier driver has created; returns whether there is one."""
        tags = f"tags.`{_SEARCH}` = '{self._search_id}' and tags.`{_TRIAL}` = '{number}'"
        for run in self._client.search_runs([self._experiment_id], filter_string=tags, max_results=1):
            self._runs[number] = run.info.run_id
            self._logged[number] = int(run.data.metrics.get("epoch", 0))
        return number in self._runs

    def _create(self, assignment: Assignment) -> None:
        from mlflow.entities import Param

        number = assignment.trial
        tags = {_SEARCH: self._search_id, _TRIAL: str(number)}
        name = f"{self._experiment}-{number}"
        created = self._client.create_run(self._experiment_id, tags=tags, run_name=name)
        self._runs[number], self._logged[number] = created.info.run_id, 0
        recipe = {f"recipe/{key}": value for key, value in asdict(assignment.recipe).items()}
        parameters = [Param(key, str(value)) for key, value in {"number": number, **recipe}.items()]
        self._client.log_batch(created.info.run_id, params=parameters)


def require_usable(uri: str | None, experiment: str) -> None:
    """Raise InputError if trials should be logged, but MLflow is not installed, or cannot be reached at `uri`."""
    if uri is not None:
        _connect(uri, experiment)


def callbacks(uri: str | None, experiment: str, *, search_id: str) -> list[tune.Callback]:
    """Callbacks that log the trials to an MLflow experiment; none if `uri` is None.

    Args:
        uri: of the MLflow server or store.
        experiment: its name; it is created if it does not exist.
        search_id: identity of the search; trials of the same search continue their runs.

    Raises:
        InputError: see `require_usable`.
    """
    if uri is None:
        return []
    client, experiment_id = _connect(uri, experiment)
    return [MlflowLogger(client, experiment_id=experiment_id, experiment=experiment, search_id=search_id)]


def as_input_error(error: BaseException | None) -> InputError | None:
    """The InputError for an error that MLflow raised during a search; None for other errors."""
    if not type(error).__module__.startswith("mlflow."):
        return None
    return InputError(
        f"MLflow must be available during the search, but it failed: {_first_sentence(error)}; "
        "fix this, then continue with `genre-search resume RUN`",
        code=SearchErrorCode.MLFLOW_FAILED,
    )


def _connect(uri: str, experiment: str) -> tuple[Any, str]:
    """A client, and the id of the experiment."""
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise InputError(
            f"mlflow must be unset unless MLflow is installed, but got mlflow={uri}; pip install genre-search[mlflow]",
            code=SearchErrorCode.MLFLOW_NOT_INSTALLED,
        ) from error
    try:
        with _few_retries():
            client = MlflowClient(uri)
            found = client.get_experiment_by_name(experiment)
            return client, found.experiment_id if found else client.create_experiment(experiment)
    except (MlflowException, ImportError, OSError, ValueError) as error:
        raise InputError(
            f"mlflow must be the address of an MLflow server or store, but got mlflow={uri}: {_first_sentence(error)}",
            code=SearchErrorCode.MLFLOW_UNREACHABLE,
        ) from error


@contextmanager
def _few_retries() -> Iterator[None]:
    """Limit MLflow to one retry inside the context, unless the user has set a number."""
    given = os.environ.get(_RETRIES)
    os.environ[_RETRIES] = given or "1"
    try:
        yield
    finally:
        if given is None:
            del os.environ[_RETRIES]


def _numbers(report: EpochReport) -> Iterator[tuple[str, float]]:
    """The finite numbers of a report by name."""
    for name, value in report.flat().items():
        if isinstance(value, int | float) and math.isfinite(value):
            yield name, float(value)


def _first_sentence(error: object) -> str:
    return " ".join(str(error).split()).partition(". ")[0]
