"""Adapter between Ray Tune and the engine: searcher, scheduler and stopper that call the coordinator."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune import Stopper
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from search.engine.coordinator import Coordinator
from search.engine.messages import Assignment, Decision, Finished, Lost
from search.engine.ports import RemoteError
from search.run.checkpoints import RunFolderFull
from search.tune import ray_internals
from search.tune.wire_format import config_of, notices_of, report_of

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController


class CoordinatorSearcher(Searcher):
    """Passes assignments to Tune trials. A Tune trial is one turn of a worker, not a trial of the study."""

    def __init__(self, coordinator: Coordinator) -> None:
        """Args: the coordinator to ask."""
        super().__init__()
        self._coordinator = coordinator

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # or FINISHED
        """The config of the next Tune trial; None to ask again later; FINISHED when the search is over."""
        answer = self._coordinator.next_for(trial_id)
        if isinstance(answer, Assignment):
            return config_of(answer)
        return ray_internals.finished() if isinstance(answer, Finished) else None

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Do nothing: the scheduler has reported it to the coordinator."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the study holds the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: the study holds the state."""


class CoordinatorScheduler(FIFOScheduler):
    """Passes every result and error to the coordinator and carries out its decision.

    The searcher cannot do this, because Tune does not pass it the result that stops a trial.
    """

    def __init__(self, coordinator: Coordinator) -> None:
        """Args: the coordinator to report to."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._coordinator = coordinator

    def on_trial_result(self, tune_controller: "TuneController", trial: Trial, result: dict[str, Any]) -> str:
        """Report a result; CONTINUE or STOP."""
        for notice in notices_of(result):
            self._coordinator.notice(notice)
        decision = self._coordinator.hear(trial.trial_id, report_of(result))
        return TrialScheduler.CONTINUE if decision is Decision.CONTINUE else TrialScheduler.STOP

    def on_trial_error(self, tune_controller: "TuneController", trial: Trial) -> None:
        """Report that the worker died or its code raised.

        Raises:
            RunFolderFull: the run folder cannot be written any more, so the search ends.
        """
        self._coordinator.lost(trial.trial_id, loss_of(trial))


class BudgetStopper(Stopper):
    """Stops all trials when the time budget is spent, and records it: Tune does not say why a run ended."""

    def __init__(self, coordinator: Coordinator, *, spent: Callable[[], object]) -> None:
        """Args: the coordinator to ask, and a function to call once when the budget is spent."""
        self._coordinator = coordinator
        self._spent = spent
        self.stopped = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Return False: the budget applies to the whole search, not to a single trial."""
        return False

    def stop_all(self) -> bool:
        """Whether the time budget is spent."""
        if not self.stopped and self._coordinator.budget_spent():
            self.stopped = True
            self._spent()
        return self.stopped

    def __getstate__(self) -> dict[str, bool]:
        """The state in Tune's snapshots, which are never restored: the coordinator holds an open study."""
        return {"stopped": self.stopped}


def loss_of(trial: Trial) -> Lost:
    """Why a Tune trial ended with an error.

    Raises:
        RunFolderFull: the run folder cannot be written any more.
    """
    error = ray_internals.trial_error(trial)
    cause = getattr(error, "cause", None) or error
    remote = isinstance(cause, RemoteError)
    if remote:
        (cause,) = cause.args
    if isinstance(cause, RunFolderFull):
        raise cause
    died = (
        isinstance(error.cause, RayError) if isinstance(error, RayTaskError) else isinstance(error, RayError)
    )
    return Lost(
        reason=f"{type(cause).__name__}: {cause}" if remote else _last_line(trial),
        retryable=died or isinstance(cause, RayError | OSError),  # OSError: an error of a file
        preempted=isinstance(error, RayActorError) and error.preempted,
        died=died,
    )


def _last_line(trial: Trial) -> str:
    """The last line of the traceback: the type and message of the error."""
    lines = ray_internals.trial_traceback(trial).strip().splitlines()
    last = lines[-1].strip() if lines else "the worker ended without an error message"
    return re.sub(r"^(?:\w+\.)+(\w+: )", r"\1", last)  # without the module of the error's type
