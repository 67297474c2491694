"""Decides what runs next, what stops, and what happens when a worker or its node fails."""

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
"""The most of an error's text that is kept: Ray explains a dead worker at length, the reason first."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a search may use."""

    workers: int
    """Trials at a time."""
    retries: int
    """How often a trial may lose its worker, or fail because of its node when no other node is left."""
    epoch_limit: float
    """Seconds after which a worker ends itself because its epoch hangs."""
    time_budget: float | None = None
    """Seconds for the whole search."""


class Coordinator:
    """One search, from its first trial to its last. It has no clock, no screen and no file of its own.

    An epoch is written to its table before the study knows it, so that nothing the study knows is ever lost; a
    resumed search reports to the study what only the table has.
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
            study: what was tried; trials that it holds as running are assigned first.
            recorder: keeps the tables.
            limits: what the search may use.
            goal: how many trials the search is to have.
            draw: the recipe of one of the study's trials.
            forget: called with the number of each trial that has ended.
            say: shows a line to the user.
            clock: seconds, never set back.
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
        """Worker -> its trial."""
        self._resting: set[str] = set()
        self._nodes = NodeFailures(workers=limits.workers, retries=limits.retries, clock=clock)
        self._lost: Counter[int] = Counter()
        self._heard: dict[str, float] = {}
        self._said: set[str] = set()
        self._began: float | None = None

    @property
    def resting(self) -> frozenset[str]:
        """Workers that keep their place without a trial, since their node failed one."""
        return frozenset(self._resting)

    def next_for(self, worker: str) -> Assignment | Wait | Finished:
        """The next trial for a worker that has none.

        A search is finished when its last trial has ended, not when it was assigned: a trial may lose its worker.
        """
        if len(self._running) + len(self._resting) >= self._limits.workers:
            return Wait()
        if self._requeued:
            trial = self._study.trial(self._requeued.popleft())
        elif self._study.asked < self._goal():
            trial = self._study.ask()
        else:
            return Wait() if self._running or self._resting else Finished()
        recipe = self._draw(trial)
        attempt = self._recorder.begin(trial.number, recipe)
        self._running[worker] = trial.number
        self._heard[worker] = self._clock()
        self._nodes.began(worker)
        return Assignment(trial=trial.number, recipe=recipe, attempt=attempt)

    def hear(self, worker: str, report: Report) -> Decision:
        """Record what a worker reports, and decide what it does next."""
        self._heard[worker] = self._clock()
        match report:
            case EpochReport():
                return self._epoch(worker, report)
            case Failure():
                return self._fail(worker, self._running[worker], report.reason)
            case NodeFailure():
                return self._node_failure(worker, report)
            case Resting():
                if not self._nodes.rested(worker):
                    return Decision.CONTINUE
                self._resting.discard(worker)
                return Decision.STOP
            case Waiting():
                return Decision.CONTINUE

    def lost(self, worker: str, loss: Lost) -> None:
        """A worker is gone: its trial is requeued, or it fails where that has happened too often."""
        if worker in self._resting:  # its trial is another worker's by now
            self._resting.discard(worker)
            self._nodes.gone(worker)
            return
        number = self._running[worker]
        if not loss.preempted:
            self._lost[number] += 1
        if loss.retryable and self._lost[number] <= self._limits.retries:
            self._release(worker)
            self._requeued.append(number)
            return
        hung = loss.died and self._clock() - self._heard[worker] > self._limits.epoch_limit
        too_long = f"an epoch took longer than epoch_limit, {self._limits.epoch_limit:g} s"
        self._fail(worker, number, too_long if hung else loss.reason)

    def notice(self, notice: Notice) -> None:
        """Show a line to the user, once for each key."""
        key = notice.key or notice.text
        if key not in self._said:
            self._said.add(key)
            self._say(notice.text)

    def budget_spent(self) -> bool:
        """Whether the time is over; it runs from the first call."""
        now = self._clock()
        self._began = now if self._began is None else self._began
        budget = self._limits.time_budget
        return budget is not None and now - self._began >= budget

    def end(self, *, interrupted: bool) -> int:
        """The search is over; how many running trials the time budget ended. An interrupt leaves them to a resume."""
        still_running = 0 if interrupted else len(self._study.running)
        self._recorder.end(None if interrupted else TIME_BUDGET)
        return still_running

    def _epoch(self, worker: str, report: EpochReport) -> Decision:
        number = report.row.trial
        self._nodes.works(worker, report.usage.node)
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
        """Requeue the trial and let the worker rest; a trial that fails on every node fails."""
        number = self._running[worker]
        verdict = self._nodes.failed(worker, failure.node, number)
        if verdict is Verdict.FAIL:
            return self._fail(worker, number, failure.reason)
        text = f"{failure.node}: trial {number} is requeued because this node failed: {failure.reason}"
        self.notice(Notice(text=text, key=failure.reason))
        del self._running[worker]
        self._requeued.append(number)
        if verdict is Verdict.AGAIN:
            return Decision.STOP
        self._resting.add(worker)
        return Decision.CONTINUE

    def _fail(self, worker: str, number: int, reason: str) -> Decision:
        self._study.fail(number, textwrap.shorten(reason, REASON_CHARACTERS, placeholder=" …"))
        return self._ended(worker, number)

    def _ended(self, worker: str, number: int) -> Decision:
        self._release(worker)
        self._recorder.changed(number)
        self._forget(number)
        return Decision.STOP

    def _release(self, worker: str) -> None:
        """The worker has no trial any more."""
        self._nodes.ended(worker)
        del self._running[worker]
