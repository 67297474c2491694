"""What to stop: Ray's scheduler over the Optuna study. Every epoch's F1 is reported, the last one's too."""

import re
import textwrap
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import cloudpickle
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from search.engine.messages import FAILED, FINISHED, NODE_FAILED, NOTE, NUMBER, RESTING, UNSAVED
from search.engine.node_failures import NodeFailures, Verdict
from search.engine.recorder import Recorder
from search.run.checkpoints import RunFolderFull, Unsaved
from search.study.study import Study

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController

REASON_CHARACTERS = 240
"""Of a dead worker Ray tells a long story whose beginning is the reason."""


class StudyScheduler(FIFOScheduler):
    """Puts each epoch on record, and keeps or ends a trial as the study, the fine-tune or an error says.

    An epoch is in its Parquet file before the study hears of it, so that what the study knows is never lost.
    """

    def __init__(
        self,
        study: Study,
        recorder: Recorder,
        *,
        retries: int,
        epoch_limit: float,
        workers: int,
        go_on: Callable[[int], None],
        forget: Callable[[int], None],
        say: Callable[[str], None],
    ) -> None:
        """Set up.

        Args:
            study: what is told of epochs and ends.
            recorder: what puts them into tables.
            retries: how often a trial may lose its worker, or fail because of its node where none is left to try.
            epoch_limit: seconds after which a worker ends itself, for its epoch hangs.
            workers: trials at a time.
            go_on: told of a trial that has lost its worker and should have another.
            forget: told of a trial that has ended.
            say: told, once for each cause, of checkpoints that are not kept and of nodes that fail.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self._study = study
        self._recorder = recorder
        self._retries = retries
        self._epoch_limit = epoch_limit
        self._go_on = go_on
        self._forget = forget
        self._say = say
        self._said: set[str] = set()
        self._nodes = NodeFailures(workers=workers, retries=retries, clock=time.monotonic)
        self._lost: Counter[int] = Counter()
        self._heard: dict[int, float] = {}

    def on_trial_add(self, tune_controller: "TuneController", trial: Trial) -> None:
        """The trial is about to be given to a worker."""
        self._heard[trial.config[NUMBER]] = time.monotonic()
        self._nodes.began(trial.trial_id)

    def on_trial_result(self, tune_controller: "TuneController", trial: Trial, result: dict[str, Any]) -> str:
        """Keep the trial or stop it."""
        node = str(result.get("hostname", "this node"))
        if note := result.get(NOTE):
            self._say_once(f"{node}: {note}")
        if UNSAVED in result:
            self._warn(result[UNSAVED])
        if result.get(RESTING):
            return TrialScheduler.STOP if self._nodes.rested(trial.trial_id) else TrialScheduler.CONTINUE
        if reason := result.get(NODE_FAILED):
            return self._node_failed(trial, node, reason)
        number = trial.config[NUMBER]
        self._heard[number] = time.monotonic()
        if reason := result.get(FAILED):
            self._study.fail(number, reason)
            return self._ended(trial)
        self._nodes.works(trial.trial_id, node)
        self._recorder.epoch(number, result)
        pruned = self._study.report(number, epoch=result["epoch"], f1=result["val_f1"])
        if result[FINISHED]:
            self._study.complete(number)
            return self._ended(trial)
        if pruned:
            self._study.prune(number)
            return self._ended(trial)
        self._recorder.changed(number)
        return TrialScheduler.CONTINUE

    def on_trial_error(self, tune_controller: "TuneController", trial: Trial) -> None:
        """The worker died, and the trial goes on elsewhere; or it raised, or died too often: the trial fails.

        Raises:
            RunFolderFull: nothing can be stored any more, and the search ends.
        """
        if self._nodes.rests(trial.trial_id):  # its trial is somebody else's
            self._nodes.gone(trial.trial_id)
            return
        number, error = trial.config[NUMBER], _error(trial)
        cause = getattr(error, "cause", None) or error
        if isinstance(cause, RunFolderFull):
            raise cause
        lost = _worker_died(error) or isinstance(
            cause, OSError
        )  # such as a file that it could not read or write
        if not _preempted(error):
            self._lost[number] += 1
        if lost and self._lost[number] <= self._retries:
            self._nodes.ended(trial.trial_id)
            self._go_on(number)
            return
        hung = _worker_died(error) and time.monotonic() - self._heard[number] > self._epoch_limit
        too_long = f"an epoch took longer than epoch_limit, {self._epoch_limit:g} s"
        self._study.fail(number, too_long if hung else failure_reason(trial))
        self._ended(trial)

    def _warn(self, unsaved: Unsaved) -> None:
        self._say_once(f"{unsaved} (reported once)", unsaved.cause)

    def _node_failed(self, trial: Trial, node: str, reason: str) -> str:
        """Give the trial to another worker, and have this one rest; a trial that fails everywhere fails."""
        number = trial.config[NUMBER]
        verdict = self._nodes.failed(trial.trial_id, node, number)
        if verdict is Verdict.FAIL:
            self._study.fail(number, _shortened(reason))
            return self._ended(trial)
        self._say_once(
            f"{node}: trial {number} is given out again, because this node failed: {reason}", reason
        )
        self._go_on(number)
        return TrialScheduler.STOP if verdict is Verdict.AGAIN else TrialScheduler.CONTINUE

    def _say_once(self, text: str, about: str | None = None) -> None:
        """Say something, unless it was said already, or something else about the same."""
        if (about or text) not in self._said:
            self._said.add(about or text)
            self._say(text)

    def _ended(self, trial: Trial) -> str:
        number = trial.config[NUMBER]
        self._nodes.ended(trial.trial_id)
        del self._heard[number]
        self._recorder.changed(number)
        self._forget(number)
        return TrialScheduler.STOP


def _error(trial: Trial) -> Exception:
    """What Ray raised for a trial."""
    error: Exception = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
    return error


def _worker_died(error: Exception) -> bool:
    """Whether what failed was the process or its node, and not the code in it."""
    if isinstance(error, RayTaskError):
        return isinstance(error.cause, RayError)
    return isinstance(error, RayError)


def _preempted(error: Exception) -> bool:
    """Whether the node was taken away on purpose, for which the trial cannot be blamed."""
    return isinstance(error, RayActorError) and error.preempted


def failure_reason(trial: Trial) -> str:
    """The last line of a failed trial's error, which names its kind and its message."""
    file = trial.error_file  # on this machine: Ray's get_error reads the copy in storage, which comes later
    lines = Path(file).read_text(encoding="utf-8").strip().splitlines() if file else []
    last = lines[-1].strip() if lines else "the worker ended without a word"
    named = re.sub(r"^(?:\w+\.)+(\w+: )", r"\1", last)  # an exception's module says little
    return _shortened(named)


def _shortened(reason: str) -> str:
    return textwrap.shorten(reason, REASON_CHARACTERS, placeholder=" …")
