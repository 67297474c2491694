"""The decisions of a search: what runs next, what stops, and what happens if a worker or its node fails."""

import textwrap
import time
from collections import Counter, deque
from collections.abc import Callable, Collection
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
    New,
    NodeFailure,
    Nothing,
    Notice,
    Report,
    Resting,
    Resume,
    Wait,
    Waiting,
)
from search.engine.node_failures import NodeFailures, Verdict
from search.engine.ports import Strategy
from search.engine.recorder import Recorder
from search.engine.strategy import OptunaStrategy
from search.study.study import CHECKPOINT_BUDGET, TIME_BUDGET, WORKER_BUDGET, Study

REASON_CHARACTERS = 240
"""Maximum length of a recorded error. Ray's errors about dead workers are long and begin with the reason."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of a search."""

    workers: int
    """Number of trials that run at the same time."""
    retries: int
    """Number of times that a trial is requeued after it lost its worker, or its node failed and no other is left."""
    epoch_limit: float
    """Seconds after which a worker terminates itself because its epoch hangs."""
    time_budget: float | None = None
    """Seconds for the whole search; None for no limit."""
    worker_budget: float | None = None
    """Seconds that all workers together may hold trials; None for no limit."""
    checkpoint_bytes: int | None = None
    """Bytes for the checkpoints of paused and running trials; None for no limit, 0 for no checkpoints."""


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
        strategy: Strategy | None = None,
        unsettled: Collection[int] = (),
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Set up.

        Args:
            study: the trials so far. Running ones are assigned first, or are paused if the strategy pauses trials
                and they have finished an epoch.
            recorder: keeps the tables up to date.
            limits: workers, retries and times.
            goal: returns the number of trials that the search should have.
            draw: samples the recipe of a trial.
            forget: called with the number of each trial that has ended.
            say: prints a line for the user.
            clock: returns seconds, monotonic.
            strategy: chooses what an idle worker trains; by default new trials only.
            unsettled: running trials that are assigned first even if the strategy pauses trials; see `unsettled` in
                `search.recovery.reconcile`.
            timer: returns seconds, to measure how long decisions take.
        """
        self._study = study
        self._recorder = recorder
        self._limits = limits
        self._goal = goal
        self._draw = draw
        self._forget = forget
        self._say = say
        self._clock = clock
        self._strategy = strategy or OptunaStrategy()
        self._timer = timer
        self._pauses = self._strategy.pauses and limits.checkpoint_bytes != 0
        self._take_up(unsettled)
        self._running: dict[str, int] = {}
        """Worker -> number of its trial."""
        self._held_since: dict[str, float] = {}
        """Worker -> time at which it was assigned its trial."""
        self._released_seconds = recorder.earlier_seconds
        self._nothing = False
        """Whether the strategy has found nothing worth its cost since the last report."""
        self._finished = False
        self._spent_budget: str | None = None
        self._nodes = NodeFailures(workers=limits.workers, retries=limits.retries, clock=clock)
        self._lost: Counter[int] = Counter()
        self._last_report: dict[str, float] = {}
        self._unreported: set[str] = set()
        """Workers that have not reported an epoch of their trial yet."""
        self._shown: set[str] = set()
        self._started: float | None = None

    def _take_up(self, unsettled: Collection[int]) -> None:
        """Pause or requeue the running trials of an interrupted search."""
        running = self._study.running
        waiting = [number for number in running if self._study.epochs(number) and number not in unsettled]
        self._paused = dict.fromkeys(waiting if self._pauses else ())
        self._requeued = deque(number for number in running if number not in self._paused)

    @property
    def resting(self) -> frozenset[str]:
        """Workers that keep their slot without a trial after a failure of their node."""
        return self._nodes.resting

    @property
    def paused(self) -> frozenset[int]:
        """Numbers of the paused trials."""
        return frozenset(self._paused)

    @property
    def finished(self) -> bool:
        """Whether a worker received the answer that the search is finished."""
        return self._finished

    @property
    def spent(self) -> float:
        """Seconds that all workers together have held trials; of a resumed search, including its earlier trials."""
        now = self._clock()
        return self._released_seconds + sum(now - since for since in self._held_since.values())

    @property
    def progress(self) -> float:
        """Fraction of the time or worker budget used, whichever is greater, from 0 to 1; 0 if neither is set."""
        budget, workers = self._limits.time_budget, self._limits.worker_budget
        elapsed = 0.0 if self._started is None else self._clock() - self._started
        return min(1.0, max(elapsed / budget if budget else 0.0, self.spent / workers if workers else 0.0))

    def next_for(self, worker: str) -> Assignment | Wait | Finished:
        """Assign the next trial to an idle worker.

        A search is finished once its last trial has ended, not once it is assigned, because it may lose its worker.
        """
        if len(self._running) + len(self.resting) >= self._limits.workers:
            return Wait()
        began = self._timer()
        trial = self._next_trial()
        if trial is None:
            self._finished = not (self._running or self.resting)
            return Finished() if self._finished else Wait()
        recipe = self._draw(trial)
        decided = self._timer()
        attempt = self._recorder.begin(trial.number, recipe)
        self._recorder.decided(trial.number, decided - began)
        self._running[worker] = trial.number
        self._unreported.add(worker)
        self._held_since[worker] = self._last_report[worker] = self._clock()
        self._nodes.trial_started(worker)
        self._make_room()
        return Assignment(
            trial=trial.number,
            recipe=recipe,
            attempt=attempt,
            epochs=self._study.epochs(trial.number),
            paused=tuple(self._paused),
        )

    def hear(self, worker: str, report: Report) -> Decision:
        """Record a worker's report and decide what the worker does next."""
        before, self._last_report[worker] = self._last_report[worker], self._clock()
        self._nothing = self._nothing and isinstance(report, Waiting | Resting)
        match report:
            case EpochReport():
                return self._epoch(worker, report, took=self._last_report[worker] - before)
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
        self._nothing = False
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
        """Print a notice, once per key."""
        key = notice.key or notice.text
        if key not in self._shown:
            self._shown.add(key)
            self._say(notice.text)

    def budget_spent(self) -> bool:
        """Whether a budget is used up; the time budget starts with the first call."""
        return self.spent_budget() is not None

    def spent_budget(self) -> str | None:
        """The budget that is used up, `time budget` or `worker budget`; None if none is."""
        now = self._clock()
        self._started = now if self._started is None else self._started
        if self._spent_budget is None:
            budgets = (
                (TIME_BUDGET, self._limits.time_budget, now - self._started),
                (WORKER_BUDGET, self._limits.worker_budget, self.spent),
            )
            self._spent_budget = next(
                (name for name, budget, spent in budgets if budget is not None and spent >= budget), None
            )
        return self._spent_budget

    def end(self, *, interrupted: bool) -> int:
        """End the search; returns how many trials a budget stopped. After an interrupt, they can be resumed.

        Paused trials are pruned, unless the search was interrupted.
        """
        if interrupted:
            self._recorder.end(None)
            return 0
        reason = self.spent_budget() or TIME_BUDGET
        for number in list(self._paused):
            self._end_paused(number, self._study.prune)
        still_running = len(self._study.running)
        self._recorder.end(reason)
        return still_running

    def _next_trial(self) -> Trial | None:
        """The trial that an idle worker trains next; None if there is none now."""
        if self._requeued:
            return self._study.trial(self._requeued.popleft())
        may_ask = self._study.asked < self._goal()
        if self._nothing or not (self._paused or may_ask):
            return None
        match self._strategy.choose(
            paused=tuple(self._paused), busy=tuple(self._running.values()), may_ask=may_ask
        ):
            case Resume(number):
                del self._paused[number]
                return self._study.trial(number)
            case New():
                assert may_ask, "there are enough trials"
                return self._study.ask()
            case Nothing():
                self._nothing = True
                return None

    def _epoch(self, worker: str, report: EpochReport, *, took: float) -> Decision:
        number = report.row.trial
        self._nodes.epoch_done(worker, report.usage.node)
        known = self._study.knows(number, report.row.epoch)
        self._recorder.epoch(report, took=took, first=worker in self._unreported)
        self._unreported.discard(worker)
        self._study.report(number, epoch=report.row.epoch, f1=report.row.val_f1)
        if report.finished:
            self._study.complete(number)
            return self._ended(worker, number)
        # the strategy chose to continue this trial when it resumed it
        decided = known and self._strategy.pauses
        if decided or not self._should_prune(number):
            self._recorder.changed(number)
            return Decision.CONTINUE
        if self._pauses:
            return self._pause(worker, number)
        self._study.prune(number)
        return self._ended(worker, number)

    def _should_prune(self, number: int) -> bool:
        began = self._timer()
        pruned = self._study.should_prune(number)
        self._recorder.decided(number, self._timer() - began)
        return pruned

    def _pause(self, worker: str, number: int) -> Decision:
        """Release the worker of a trial that may be resumed."""
        self._release(worker)
        self._paused[number] = None
        self._recorder.pause(number)
        self._make_room()
        return Decision.PAUSE

    def _make_room(self) -> None:
        """Prune paused trials until the checkpoints of all others fit into their budget."""
        budget = self._limits.checkpoint_bytes
        if budget is None or not self._paused:
            return
        sizes = {number: self._recorder.checkpoint_bytes(number) for number in self._study.running}
        while self._paused and sum(sizes.values()) > budget:
            number = self._strategy.least_promising(tuple(self._paused))
            self._end_paused(number, lambda number: self._study.stop(number, CHECKPOINT_BUDGET))
            del sizes[number]

    def _end_paused(self, number: int, end: Callable[[int], None]) -> None:
        """End a paused trial in the study and the table."""
        end(number)
        del self._paused[number]
        self._recorder.changed(number)
        self._forget(number)

    def _node_failure(self, worker: str, failure: NodeFailure) -> Decision:
        """Requeue the trial and let the worker rest; a trial that every node fails is recorded as failed."""
        number = self._running[worker]
        verdict = self._nodes.failed(worker, failure.node, number)
        if verdict is Verdict.FAIL:
            return self._fail(worker, number, failure.reason)
        text = f"{failure.node}: trial {number} is requeued because this node failed: {failure.reason}"
        self.notice(Notice(text=text, key=failure.reason))
        self._free(worker)
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
        self._free(worker)

    def _free(self, worker: str) -> None:
        """Count the time that the worker has held its trial."""
        del self._running[worker]
        self._unreported.discard(worker)
        self._released_seconds += self._clock() - self._held_since.pop(worker)
