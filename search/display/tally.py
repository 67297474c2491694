"""The state of a running search: its trials by state, the best ones, and the time spent and left."""

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from search.display.plan_output import between, money, worker_time
from search.report.formatting import STATE_WORD, counted, duration, rate, roughly, score
from search.run.schemas import PAUSED, RUNNING, EpochRow, TrialRow

if TYPE_CHECKING:
    from search.engine.forecast import Forecast, Plan

TOP = 3
"""Number of best trials that are kept for the live screen."""


class Tally:
    """Counts the trials of a search from their rows. Other threads may read while one thread counts."""

    def __init__(
        self,
        *,
        trials: int = 0,
        time_budget: float | None = None,
        price: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start with no trials.

        Args:
            trials: number of trials planned.
            time_budget: seconds that the search may take; None for no limit.
            price: of an hour of a worker; None for no price.
            clock: returns seconds.
        """
        self.trials = trials
        self.price = price
        self.forecast: Forecast | None = None
        self.top: tuple[TrialRow, ...] = ()
        """The best trials so far, the best first."""
        self.ended: Counter[str] = Counter()
        """State -> number of trials that ended in it."""
        self.metered: Callable[[], float] | None = None
        """The worker time in seconds, which budgets count; None before it is metered."""
        self._time_budget = time_budget
        self._worker_budget: float | None = None
        self._earlier_seconds = 0.0
        """Worker time before the search was resumed."""
        self._seconds: dict[int, float] = {}
        """Trial -> its working time so far."""
        self._running: dict[int, TrialRow] = {}
        self._most_running = 0
        """The largest number of trials that ran at a time."""
        self._paused: set[int] = set()
        self._ended_seconds = 0.0
        self._curves: defaultdict[int, dict[int, float]] = defaultdict(dict)
        """Trial -> epoch -> F1, of trials that have not ended."""
        self._clock = clock
        self._started = clock()

    def start(self) -> None:
        """Begin to measure the elapsed time."""
        self._started = self._clock()

    def expect(self, plan: "Plan") -> None:
        """Keep the forecast of a plan."""
        self.forecast, self._worker_budget = plan.forecast, plan.budget

    def take_up(
        self, rows: Sequence[TrialRow], curves: Mapping[int, Mapping[int, float]] = MappingProxyType({})
    ) -> None:
        """Count the trials of a search that is resumed.

        Args:
            rows: of the trials.
            curves: trial -> epoch -> F1.
        """
        for row in rows:
            self._curves[row.trial] |= curves.get(row.trial, {})
            self.count(row)
        self._earlier_seconds = sum(self._seconds.values())
        self._most_running = 0  # of this machine

    def count(self, row: TrialRow) -> None:
        """Count a trial whose row is new or has changed."""
        self._seconds[row.trial] = row.seconds or 0.0
        if row.val_f1 is not None:
            others = [own for own in self.top if own.trial != row.trial]
            self.top = tuple(sorted([*others, replace(row)], key=_rank)[:TOP])
        self._paused.discard(row.trial)
        if row.state == RUNNING:
            self._running[row.trial] = row
            self._most_running = max(self._most_running, len(self._running))
            return
        self._running.pop(row.trial, None)
        if row.state == PAUSED:
            self._paused.add(row.trial)
            return
        self._curves.pop(row.trial, None)
        self.ended[row.state] += 1
        self._ended_seconds += row.seconds or 0.0

    def epoch(self, row: EpochRow) -> None:
        """Add an epoch to the curve of its trial."""
        self._curves[row.trial][row.epoch] = row.val_f1

    @property
    def running(self) -> list[TrialRow]:
        """The running trials."""
        return list(self._running.values())

    @property
    def paused(self) -> int:
        """Number of paused trials."""
        return len(self._paused)

    @property
    def best(self) -> TrialRow | None:
        """The best trial so far; None if none has a score."""
        return self.top[0] if self.top else None

    @property
    def done(self) -> int:
        """Number of trials that have ended."""
        return sum(self.ended.values())

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._started

    @property
    def begun(self) -> bool:
        """Whether a trial has reached the end of an epoch, or of itself."""
        return bool(self.done or self._paused or any(row.epochs for row in self.running))

    def curve(self, trial: int) -> list[float]:
        """F1 by epoch of a trial that has not ended."""
        return [f1 for _, f1 in sorted(self._curves.get(trial, {}).items())]

    def max_epochs(self, trial: int) -> int:
        """Epochs of a running trial if it is not stopped; 0 if it does not run."""
        row = self._running.get(trial)
        return row.max_epochs if row else 0

    def counter(self) -> str:
        """The number of ended trials and of all, aligned."""
        width = len(str(self.trials))
        return f"{self.done:>{width}}/{self.trials}"

    def progress(self) -> str:
        """The best trial so far, and the time left, in fields as wide on every line."""
        best = "" if self.best is None else f"best {score(self.best.val_f1)} (trial {self.best.trial})"
        left = self.seconds_left()
        parts = [f"{best:<{len('best 0.000 (trial )') + len(str(self.trials))}}"]
        parts += [] if left is None else [f"about {roughly(left)} left"]
        return "  ".join(parts).rstrip()

    def headline(self) -> str:
        """The progress of the search in one line."""
        parts = [f"{self.done}/{counted(self.trials, 'trial')}", f"{len(self._running)} running"]
        parts += [f"{self.paused} paused"] if self.paused else []
        parts += self.endings()
        if self.best:
            parts.append(f"best F1 {score(self.best.val_f1)} (trial {self.best.trial}, {self.best.backbone})")
        parts.append(f"{duration(self.elapsed)} elapsed")
        if (left := self.seconds_left()) is not None:
            parts.append(f"about {roughly(left)} left")
        return " · ".join(parts)

    def endings(self) -> list[str]:
        """The numbers of pruned and failed trials, if there are any."""
        return [
            f"{self.ended[state]} {STATE_WORD[state]}" for state in ("PRUNED", "FAIL") if self.ended[state]
        ]

    def winner(self) -> str | None:
        """The best trial and its settings in one line; None if no trial has a score."""
        if (row := self.best) is None:
            return None
        return (
            f"best F1 {score(row.val_f1)} · trial {row.trial} · {row.backbone} · frozen "
            f"{row.frozen_blocks}/{row.n_blocks} · lr {rate(row.learning_rate)} · momentum {rate(row.momentum)}"
        )

    def spending(self) -> str:
        """The worker time so far, and the forecast of all of it, in one line."""
        spent = self._spent()
        line = f"spent {worker_time(spent, spent, self.price)}"
        if self.forecast is None or not self.forecast.trials:
            return line
        low, high = self._left(self.forecast)
        price = "" if self.price is None else f", {money(spent + low, spent + high, self.price)}"
        return f"{line}; forecast {between(spent + low, spent + high)}{price}"

    def spent(self) -> str | None:
        """The worker time of the search and its forecast, in one line; None if there was nothing left to do."""
        if self.forecast is None or not self.forecast.trials:
            return None
        low, high = (self._earlier_seconds + end for end in (self.forecast.low, self.forecast.high))
        seconds = self._spent()
        return f"spent {worker_time(seconds, seconds, self.price)}; the forecast was {between(low, high)}"

    def _spent(self) -> float:
        """Worker time so far in seconds; before it is metered, the working time of the trials."""
        return self.metered() if self.metered else sum(list(self._seconds.values()))

    def _left(self, forecast: "Forecast") -> tuple[float, float]:
        """The range of the worker time left: a trial that has begun may be pruned at any moment."""
        low, high = forecast.per_trial
        begun = len(self._seconds) - self.done
        new = max(0, self.trials - len(self._seconds))
        running = [1 - row.epochs / row.max_epochs for row in self.running]
        unfinished = sum(running) + begun - len(running)
        budget = math.inf if self._worker_budget is None else self._worker_budget - self._spent()
        return min(new * low, max(budget, 0.0)), min((new + unfinished) * high, max(budget, 0.0))

    def seconds_left(self) -> float | None:
        """Estimated seconds left from the costs so far, at most the rest of the time budget; None if unknown."""
        if self.done >= self.trials:
            return None
        by_budget = None if self._time_budget is None else max(0.0, self._time_budget - self.elapsed)
        by_cost = self._seconds_left_by_cost()
        return min((left for left in (by_budget, by_cost) if left is not None), default=None)

    def _seconds_left_by_cost(self) -> float | None:
        """Estimated seconds left if as many trials run at a time as at most so far; None if unknown."""
        rows, rest = self.running, self.trials - self.done - self.paused
        costs = [row.epoch_seconds_expected for row in rows if row.epoch_seconds_expected is not None]
        if len(costs) < len(rows) or not (rows or self.done) or rest <= 0:
            return None
        left = [cost * (row.max_epochs - row.epochs) for cost, row in zip(costs, rows, strict=True)]
        whole = [cost * row.max_epochs for cost, row in zip(costs, rows, strict=True)]
        typical = self._ended_seconds / self.done if self.done else sum(whole) / len(rows)
        return (sum(left) + typical * (rest - len(rows))) / max(1, self._most_running)


def _rank(row: TrialRow) -> tuple[float, int]:
    return -(row.val_f1 or 0.0), row.trial
