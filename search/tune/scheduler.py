"""Ray Tune's scheduler: tells the coordinator what workers report and how they end."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import cloudpickle
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from search.engine.coordinator import Coordinator
from search.engine.messages import Decision, Lost
from search.engine.ports import RemoteError
from search.run.checkpoints import RunFolderFull
from search.tune.wire import notices_of, report_of

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController


class CoordinatorScheduler(FIFOScheduler):
    """Passes each result and each error on, and does what the coordinator decides.

    The scheduler does this and not the searcher, since Ray does not show the searcher the result that stops a trial.
    """

    def __init__(self, coordinator: Coordinator) -> None:
        """Args: who decides."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._coordinator = coordinator

    def on_trial_result(self, tune_controller: "TuneController", trial: Trial, result: dict[str, Any]) -> str:
        """Continue or stop the trial."""
        for notice in notices_of(result):
            self._coordinator.notice(notice)
        decision = self._coordinator.hear(trial.trial_id, report_of(result))
        return TrialScheduler.CONTINUE if decision is Decision.CONTINUE else TrialScheduler.STOP

    def on_trial_error(self, tune_controller: "TuneController", trial: Trial) -> None:
        """The worker died, or its code raised.

        Raises:
            RunFolderFull: nothing can be stored any more, and the search ends.
        """
        self._coordinator.lost(trial.trial_id, loss_of(trial))


def loss_of(trial: Trial) -> Lost:
    """Why a trial of Ray's ended with an error.

    Raises:
        RunFolderFull: nothing can be stored any more.
    """
    error = trial_error(trial)
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, RemoteError):
        (cause,) = cause.args
    if isinstance(cause, RunFolderFull):
        raise cause
    died = (
        isinstance(error.cause, RayError) if isinstance(error, RayTaskError) else isinstance(error, RayError)
    )
    return Lost(
        reason=_last_line(trial),
        retryable=died
        or isinstance(cause, RayError | OSError),  # OSError: a file that cannot be read or written
        preempted=isinstance(error, RayActorError) and error.preempted,
        died=died,
    )


def trial_error(trial: Trial) -> Exception:
    """What was raised in a trial of Ray's, from the file that Ray pickles it to."""
    error: Exception = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
    return error


def _last_line(trial: Trial) -> str:
    """The last line of the error's traceback, with its type and message."""
    file = trial.error_file  # on this machine: Ray's get_error reads the copy in storage, which comes later
    lines = Path(file).read_text(encoding="utf-8").strip().splitlines() if file else []
    last = lines[-1].strip() if lines else "the worker ended without an error message"
    return re.sub(r"^(?:\w+\.)+(\w+: )", r"\1", last)  # without the module of the error's type
