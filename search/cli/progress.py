"""Progress of a running search: a live table on a terminal, plain lines elsewhere."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from search.cli.plan_output import between, money, plan_lines, worker_time
from search.report.formatting import STATE_STYLE, STATE_WORD, duration, score

if TYPE_CHECKING:  # the display needs neither Ray nor torch
    from genre_core.system.progress import ProgressCallback
    from search.engine.forecast import Forecast, Plan
    from search.run.schemas import TrialRow


class Display:
    """Shows the preparation and the trials of a search on a console."""

    def __init__(
        self,
        console: Console,
        *,
        trials: int = 0,
        time_budget: float | None = None,
        price: float | None = None,
    ) -> None:
        """Create a display.

        Args:
            console: where to print.
            trials: number of trials planned.
            time_budget: seconds that the search may take; None for no limit.
            price: of an hour of a worker; None for no price.
        """
        self._console = console
        self._trials = trials
        self._time_budget = time_budget
        self._price = price
        self._forecast: Forecast | None = None
        self._worker_budget: float | None = None
        self._earlier = 0.0
        """Worker time before the search was resumed."""
        self._seconds: dict[int, float] = {}
        """Trial -> its working time so far."""
        self._metered: Callable[[], float] | None = None
        self._running: dict[int, TrialRow] = {}
        self._paused: set[int] = set()
        self._ended: Counter[str] = Counter()
        self._ended_seconds = 0.0
        self._best: TrialRow | None = None
        self._started = time.monotonic()

    def say(self, text: str) -> None:
        """Print one line."""
        self._console.print(Text(text), soft_wrap=True)  # a wrapped command could not be copied

    @contextmanager
    def progress(self, title: str) -> "Iterator[ProgressCallback]":
        """Show a progress bar on a terminal, and one line at the end if there was any work."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        started, last = time.monotonic(), 0
        with Progress(
            *columns, console=self._console, transient=True, disable=not self._console.is_terminal
        ) as bar:
            task = bar.add_task(title, total=None, visible=False)

            def report(done: int, total: int) -> None:
                nonlocal last
                last = total
                bar.update(task, completed=done, total=total, visible=True)

            yield report
        if last:
            self.say(f"{title}: {last} in {time.monotonic() - started:.1f} s")

    @contextmanager
    def searching(self) -> Iterator[None]:
        """Show the live table of running trials inside the context, on a terminal only."""
        self._started = time.monotonic()
        if not self._console.is_terminal:
            yield
            return
        with Live(get_renderable=self._table, console=self._console, refresh_per_second=4, transient=True):
            yield

    def expect(self, trials: int) -> None:
        """Lower the number of planned trials to what the search space has."""
        self.say(
            f"the search space has only {trials} distinct trials, fewer than the {self._trials} requested"
        )
        self._trials = trials

    def plan(self, plan: "Plan") -> None:
        """Print what the search is about to do, and keep its forecast."""
        self._forecast = plan.forecast
        self._worker_budget = plan.budget
        for line in plan_lines(plan, price=self._price):
            self.say(line)

    def meter(self, seconds: Callable[[], float]) -> None:
        """Show these seconds as the worker time spent so far: budgets count them, and so does who pays for workers."""
        self._metered = seconds

    def take_up(self, rows: "Sequence[TrialRow]") -> None:
        """Count the trials of a resumed search without printing a line for each."""
        running = sum(row.state == "RUNNING" for row in rows)
        for row in rows:
            self._count(row)
        self._earlier = sum(self._seconds.values())
        self.say(f"{len(rows) - running} trials have ended; {running} interrupted trials will continue")

    def trial(self, row: "TrialRow") -> None:
        """Update a trial from its row; print one line if it has ended."""
        self._count(row)
        if row.state not in ("RUNNING", "PAUSED"):
            self._console.print(trial_line(row), soft_wrap=True)

    def _count(self, row: "TrialRow") -> None:
        self._seconds[row.trial] = row.seconds or 0.0
        if self._best is None or (row.val_f1 or 0.0) > (self._best.val_f1 or 0.0):
            self._best = replace(row)
        self._paused.discard(row.trial)
        if row.state == "RUNNING":
            self._running[row.trial] = row
            return
        self._running.pop(row.trial, None)
        if row.state == "PAUSED":
            self._paused.add(row.trial)
            return
        self._ended[row.state] += 1
        self._ended_seconds += row.seconds or 0.0

    def headline(self) -> str:
        """The progress of the search in one line."""
        done = sum(self._ended.values())
        if not (done or self._running or self._paused):
            return "starting Ray"
        parts = [f"{done}/{self._trials} trials", f"{len(self._running)} running"]
        parts += [f"{len(self._paused)} paused"] if self._paused else []
        parts += [
            f"{self._ended[state]} {STATE_WORD[state]}" for state in ("PRUNED", "FAIL") if self._ended[state]
        ]
        if self._best and self._best.val_f1 is not None:
            parts.append(f"best F1 {self._best.val_f1:.3f} (trial {self._best.trial}, {self._best.backbone})")
        if (left := self._seconds_left(done)) is not None:
            parts.append(f"about {duration(left)} left")
        return " · ".join(parts)

    def spending(self) -> str:
        """The worker time so far, and the forecast of all of it, in one line."""
        spent = self._spent()
        line = f"spent {worker_time(spent, spent, self._price)}"
        if self._forecast is None or not self._forecast.trials:
            return line
        low, high = self._left(self._forecast)
        price = "" if self._price is None else f", {money(spent + low, spent + high, self._price)}"
        return f"{line}; forecast {between(spent + low, spent + high)}{price}"

    def spent(self) -> str | None:
        """What the search has spent and what had been forecast, in one line; None if it had nothing left to do."""
        if self._forecast is None or not self._forecast.trials:
            return None
        low, high = (self._earlier + end for end in (self._forecast.low, self._forecast.high))
        seconds = self._spent()
        return f"spent {worker_time(seconds, seconds, self._price)}; the forecast was {between(low, high)}"

    def _spent(self) -> float:
        """Worker time so far in seconds; before it is metered, the working time of the trials."""
        return self._metered() if self._metered else sum(self._seconds.values())

    def _left(self, forecast: "Forecast") -> tuple[float, float]:
        """The range of the worker time left: a trial that has begun may be pruned at any moment."""
        low, high = forecast.per_trial
        begun = len(self._seconds) - sum(self._ended.values())
        new = max(0, self._trials - len(self._seconds))
        running = [1 - row.epochs / row.max_epochs for row in list(self._running.values())]
        unfinished = sum(running) + begun - len(running)
        budget = math.inf if self._worker_budget is None else self._worker_budget - self._spent()
        return min(new * low, max(budget, 0.0)), min((new + unfinished) * high, max(budget, 0.0))

    def _seconds_left(self, done: int) -> float | None:
        """Estimated seconds left from the costs so far, at most the rest of the time budget; None if unknown."""
        elapsed = time.monotonic() - self._started
        by_budget = None if self._time_budget is None else max(0.0, self._time_budget - elapsed)
        rows = list(self._running.values())
        costs = [row.epoch_seconds_expected for row in rows if row.epoch_seconds_expected is not None]
        if not rows or len(costs) < len(rows):
            return by_budget
        left = [cost * (row.max_epochs - row.epochs) for cost, row in zip(costs, rows, strict=True)]
        whole = [cost * row.max_epochs for cost, row in zip(costs, rows, strict=True)]
        typical = self._ended_seconds / done if done else sum(whole) / len(rows)
        by_cost = (sum(left) + typical * (self._trials - done - len(rows) - len(self._paused))) / len(rows)
        return by_cost if by_budget is None else min(by_cost, by_budget)

    def _table(self) -> Group:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for title in (
            "trial",
            "backbone",
            "frozen",
            "learning rate",
            "momentum",
            "epoch",
            "s/epoch",
            "best F1",
        ):
            table.add_column(title, justify="left" if title == "backbone" else "right")
        for row in list(self._running.values()):  # a copy, because rich draws in a thread of its own
            table.add_row(
                str(row.trial),
                row.backbone,
                f"{row.frozen_blocks}/{row.n_blocks}",
                f"{row.learning_rate:.2g}",
                f"{row.momentum:.2f}",
                f"{row.epochs}/{row.max_epochs}",
                "-" if row.epoch_seconds_expected is None else f"{row.epoch_seconds_expected:.2g}",
                score(row.val_f1),
            )
        return Group(Text(self.headline(), style="bold"), Text(self.spending()), table)


def trial_line(row: "TrialRow") -> Text:
    """The result of an ended trial in one line."""
    line = Text(f"trial {row.trial:<4}")
    line.append(f"{row.state:<9}", style=STATE_STYLE[row.state])
    line.append(
        f"F1 {score(row.val_f1)}  {row.backbone:<12} frozen {row.frozen_blocks}/{row.n_blocks}  "
        f"lr {row.learning_rate:.2g}  momentum {row.momentum:.2f}  "
        f"{row.epochs} epochs  {row.seconds or 0:.1f} s"
    )
    if row.error:
        line.append(f"  {row.error}", style="red")
    if row.stopped:
        line.append(f"  stopped by the {row.stopped}", style=STATE_STYLE[row.state])
    return line
