"""The decisions of a search: what runs next, what stops, and what happens if a worker or its node fails."""

import textwrap
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from optuna.trial import Trial

from genre_core.recipe import Recipe
from search.engine.messages import (
    Assignment,
    Decision,
    EpochReport,
    Failure,
    Finished,
    Lost,
    NodeFailure,
    Notice,
    Report,
    Resting,
    Wait,
    Waiting,
)
from search.engine.node_failures import NodeFailures, Verdict
from search.engine.recorder import Recorder
from search.study.study import TIME_BUDGET, Study

REASON_CHARACTERS = 240
"""Maximum length of a recorded error. Ray's errors about dead workers are long and begin with the reason."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of a search."""

    workers: int
    """Number of trials that run at the same time."""
    retries: int
    """How often a trial is requeued after losing its worker, or after a failure of its node if no other is left."""
    epoch_limit: float
    """Seconds after which a worker terminates itself because its epoch hangs."""
    time_budget: float | None = None
    """Seconds for the whole search; None for no limit."""


class Coordinator:
    """The state machine of one search. Clock, output and files are arguments.

    An epoch is written to its table before it is reported to the study, so the tables always have every epoch that
    the study has. A resumed search reports to the study the epochs that only the table has.
    """

    def __init__(
        self,
        study: Study,
        recorder: Recorder,
        *,
        limits: Limits,
        goal: Callable[[], int],
        draw: Callable[[Trial], Recipe],
        forget: Callable[[int], None],
        say: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        """Set up.

        Args:
            study: the trials so far; running ones are assigned first.
            recorder: keeps the tables up to date.
            limits: workers, retries and times.
            goal: returns the number of trials that the search should have.
            draw: samples the recipe of a trial.
            forget: called with the number of each trial that has ended.
            say: prints a line for the user.
            clock: returns seconds, monotonic.
        """
        self._study = study
        self._recorder = recorder
        self._limits = limits
        self._goal = goal
        self._draw = draw
        self._forget = forget
        self._say = say
        self._clock = clock
        self._requeued = deque(study.running)
        self._running: dict[str, int] = {}
        """Worker -> number of its trial."""
        self._nodes = NodeFailures(workers=limits.workers, retries=limits.retries, clock=clock)
        self._lost: Counter[int] = Counter()
        self._last_report: dict[str, float] = {}
        self._shown: set[str] = set()
        self._started: float | None = None

    @property
    def resting(self) -> frozenset[str]:
        """Workers that keep their slot without a trial after a failure of their node."""
        return self._nodes.resting

    def next_for(self, worker: str) -> Assignment | Wait | Finished:
        """Assign the next trial to an idle worker.

        A search is finished once its last trial has ended, not once it is assigned, because it may lose its worker.
        """
        if len(self._running) + len(self.resting) >= self._limits.workers:
            return Wait()
        if self._requeued:
            trial = self._study.trial(self._requeued.popleft())
        elif self._study.asked < self._goal():
            trial = self._study.ask()
        else:
            return Wait() if self._running or self.resting else Finished()
        recipe = self._draw(trial)
        attempt = self._recorder.begin(trial.number, recipe)
        self._running[worker] = trial.number
        self._last_report[worker] = self._clock()
        self._nodes.trial_started(worker)
        return Assignment(trial=trial.number, recipe=recipe, attempt=attempt)

    def hear(self, worker: str, report: Report) -> Decision:
        """Record a worker's report and decide what the worker does next."""
        self._last_report[worker] = self._clock()
        match report:
            case EpochReport():
                return self._epoch(worker, report)
            case Failure():
                return self._fail(worker, self._running[worker], report.reason)
            case NodeFailure():
                return self._node_failure(worker, report)
            case Resting():
                return Decision.STOP if self._nodes.end_rest(worker) else Decision.CONTINUE
            case Waiting():
                return Decision.CONTINUE

    def lost(self, worker: str, loss: Lost) -> None:
        """Requeue the trial of a worker that was lost, or fail it if that has happened too often."""
        if self._nodes.is_resting(worker):  # its trial was requeued already
            self._nodes.died(worker)
            return
        number = self._running[worker]
        if not loss.preempted:
            self._lost[number] += 1
        if loss.retryable and self._lost[number] <= self._limits.retries:
            self._release(worker)
            self._requeued.append(number)
            return
        hung = loss.died and self._clock() - self._last_report[worker] > self._limits.epoch_limit
        too_long = f"an epoch took longer than epoch_limit, {self._limits.epoch_limit:g} s"
        self._fail(worker, number, too_long if hung else loss.reason)

    def notice(self, notice: Notice) -> None:
        """Print a line for the user, once per key."""
        key = notice.key or notice.text
        if key not in self._shown:
            self._shown.add(key)
            self._say(notice.text)

    def budget_spent(self) -> bool:
        """Whether the time budget is used up, counted from the first call."""
        now = self._clock()
        self._started = now if self._started is None else self._started
        budget = self._limits.time_budget
        return budget is not None and now - self._started >= budget

    def end(self, *, interrupted: bool) -> int:
        """End the search; returns how many trials the time budget stopped. After an interrupt, they can be resumed."""
        still_running = 0 if interrupted else len(self._study.running)
        self._recorder.end(None if interrupted else TIME_BUDGET)
        return still_running

    def _epoch(self, worker: str, report: EpochReport) -> Decision:
        number = report.row.trial
        self._nodes.epoch_done(worker, report.usage.node)
        self._recorder.epoch(report)
        pruned = self._study.report(number, epoch=report.row.epoch, f1=report.row.val_f1)
        if report.finished:
            self._study.complete(number)
        elif pruned:
            self._study.prune(number)
        else:
            self._recorder.changed(number)
            return Decision.CONTINUE
        return self._ended(worker, number)

    def _node_failure(self, worker: str, failure: NodeFailure) -> Decision:
        """Requeue the trial and let the worker rest; a trial that every node fails is recorded as failed."""
        number = self._running[worker]
        verdict = self._nodes.failed(worker, failure.node, number)
        if verdict is Verdict.FAIL:
            return self._fail(worker, number, failure.reason)
        text = f"{failure.node}: trial {number} is requeued because this node failed: {failure.reason}"
        self.notice(Notice(text=text, key=failure.reason))
        del self._running[worker]
        self._requeued.append(number)
        return Decision.STOP if verdict is Verdict.RETRY else Decision.CONTINUE

    def _fail(self, worker: str, number: int, reason: str) -> Decision:
        self._study.fail(number, textwrap.shorten(reason, REASON_CHARACTERS, placeholder=" …"))
        return self._ended(worker, number)

    def _ended(self, worker: str, number: int) -> Decision:
        self._release(worker)
        self._recorder.changed(number)
        self._forget(number)
        return Decision.STOP

    def _release(self, worker: str) -> None:
        """Mark the worker as idle."""
        self._nodes.trial_ended(worker)
        del self._running[worker]
