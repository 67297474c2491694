"""Progress of a search: a live screen on a terminal, plain lines in a file or pipe, and perhaps a log file."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import IntEnum
from io import StringIO
from types import MappingProxyType
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from search.display.area import Area, area_of
from search.display.live_screen import LiveScreen
from search.display.log_file import LogFile
from search.display.machine_use import MachineUse
from search.display.plan_output import plan_lines
from search.display.tally import Tally
from search.display.trial_lines import Widths, epoch_line, trial_line
from search.report.fitting import fitted, wrapped
from search.report.formatting import counted
from search.run.schemas import PAUSED, RUNNING, EpochRow, TrialRow

if TYPE_CHECKING:  # the display needs neither Ray nor torch
    from genre_core.system.progress import ProgressCallback
    from search.engine.forecast import Plan

PROGRESS_SECONDS = 60.0
"""The longest time without a line about the progress in a file or pipe."""
_LOG_WIDTH = 160
"""Width of tables in a log file, in characters."""


class Detail(IntEnum):
    """How much a display shows."""

    RESULTS = 0
    """Results and errors only."""
    TRIALS = 1
    """The preparation and each ended trial, too."""
    EPOCHS = 2
    """Each epoch, too."""


class Display:
    """Shows the preparation and the trials of a search on a console."""

    def __init__(
        self,
        console: Console,
        *,
        trials: int = 0,
        time_budget: float | None = None,
        price: float | None = None,
        detail: Detail = Detail.TRIALS,
        log: LogFile | None = None,
        local: bool = True,
        area: Area | None = None,
        progress_seconds: float = PROGRESS_SECONDS,
        on_epoch: Callable[[EpochRow], object] | None = None,
        on_trial: Callable[[TrialRow], object] | None = None,
    ) -> None:
        """Create a display.

        Args:
            console: where to print.
            trials: number of trials planned.
            time_budget: seconds that the search may take; None for no limit.
            price: of an hour of a worker; None for no price.
            detail: what is shown on the console; the log file has at least `Detail.TRIALS`.
            log: file that lines are appended to; None for none.
            local: whether the trials run on this machine, whose use is then shown.
            area: shows what changes; None for the bottom of the console if that is a terminal.
            progress_seconds: the longest time without a line about the progress in a file or pipe.
            on_epoch: called with each epoch that has ended.
            on_trial: called with each trial that has ended.
        """
        self.tally = Tally(trials=trials, time_budget=time_budget, price=price)
        self._console = console
        self._detail = detail
        self._log = log
        found = area or area_of(console)
        self._area = found if detail > Detail.RESULTS else None
        self._fits = found is not None
        """Whether lines appear on a screen, so that they are made to fit."""
        self._screen = LiveScreen(self.tally, use=MachineUse() if local and self._area else None)
        self._progress_seconds = progress_seconds
        self._on_epoch = on_epoch
        self._on_trial = on_trial
        self._last_line = time.monotonic()
        self._widths = Widths(trial=len(str(max(0, trials - 1))))

    def say(self, text: str) -> None:
        """Print a line, wrapped at words on a terminal; a command in it stays whole, so that it can be copied."""
        self._print(Text(wrapped(text, self._console.width) if self._fits else text), logged=text)

    def show(self, *parts: RenderableType) -> None:
        """Print results, whatever the detail."""
        for part in parts:
            self._console.print(fitted(part, self._console), soft_wrap=True)
            if self._log:
                plain = Console(file=StringIO(), width=_LOG_WIDTH, color_system=None)
                with plain.capture() as capture:
                    plain.print(part, soft_wrap=True)
                self._log.write(capture.get().rstrip("\n"))

    @contextmanager
    def progress(self, title: str) -> "Iterator[ProgressCallback]":
        """Show a progress bar on a terminal, and one line at the end if there was any work."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        started, last = time.monotonic(), 0
        bar = Progress(*columns, console=self._console)
        task = bar.add_task(title, total=None, visible=False)

        def report(done: int, total: int) -> None:
            nonlocal last
            last = total
            bar.update(task, completed=done, total=total, visible=True)

        with self._shown(bar):
            yield report
        if last:
            self.say(f"{title}: {last} in {time.monotonic() - started:.1f} s")

    @contextmanager
    def working(self, title: str) -> Iterator[None]:
        """Show a title and the elapsed time inside the context, on a terminal only."""
        bar = Progress(TextColumn("{task.description}"), TimeElapsedColumn(), console=self._console)
        bar.add_task(title, total=None)
        with self._shown(bar):
            yield

    @contextmanager
    def searching(self) -> Iterator[None]:
        """Show the live screen inside the context; in a file or pipe, a line about the progress every minute."""
        self.tally.start()
        self._last_line = time.monotonic()
        with self._progress_lines(), self._shown(self._screen):
            yield

    def _shown(self, content: RenderableType) -> AbstractContextManager[object]:
        """A context manager that shows what changes, where somebody watches."""
        return self._area(content) if self._area else nullcontext()

    def phase(self, title: str) -> None:
        """Show what happens until the first epoch ends."""
        self._screen.phase(title)

    def expect(self, trials: int) -> None:
        """Lower the number of planned trials to what the search space has."""
        self.say(
            f"the search space has only {counted(trials, 'distinct trial')}, fewer than the {self.tally.trials} "
            "requested"
        )
        self.tally.trials = trials

    def plan(self, plan: "Plan") -> None:
        """Print the plan of the search, and keep its forecast."""
        config = plan.config
        self._widths = Widths.of(
            trials=config.trials, epochs=config.training.epochs, backbones=config.backbones
        )
        self.tally.expect(plan)
        for line in plan_lines(plan, price=self.tally.price):
            self.say(line)

    def meter(self, seconds: Callable[[], float]) -> None:
        """Show these seconds as the worker time spent so far, which budgets and prices are based on."""
        self.tally.metered = seconds

    def take_up(
        self, rows: "Sequence[TrialRow]", curves: "Mapping[int, Mapping[int, float]]" = MappingProxyType({})
    ) -> None:
        """Count the trials of a resumed search, with their F1 by epoch, without printing a line for each."""
        self.tally.take_up(rows, curves)
        running = sum(row.state == RUNNING for row in rows)
        verb = "has" if len(rows) - running == 1 else "have"
        interrupted = f"; {counted(running, 'interrupted trial')} will continue" if running else ""
        self.say(f"{counted(len(rows) - running, 'trial')} {verb} ended{interrupted}")

    def trial(self, row: "TrialRow") -> None:
        """Update a trial from its row; print one line if it has ended."""
        self.tally.count(row)
        if row.state in (RUNNING, PAUSED):
            return
        plain = trial_line(
            row, self._widths, width=None, counter=self.tally.counter(), progress=self.tally.progress()
        )
        shown = trial_line(row, self._widths, width=self._console.width) if self._fits else plain
        self._print(shown, logged=plain.plain)
        if self._on_trial:
            self._on_trial(row)

    def epoch(self, row: "EpochRow") -> None:
        """Add an epoch to the curve of its trial; print a line for it if epochs are shown."""
        self.tally.epoch(row)
        if self._detail >= Detail.EPOCHS:
            self._show_epoch(row)
        if self._on_epoch:
            self._on_epoch(row)

    def _show_epoch(self, row: "EpochRow") -> None:
        width = self._console.width if self._fits else None
        most = self.tally.max_epochs(row.trial)
        shown = epoch_line(row, self._widths, max_epochs=most, width=width)
        self._print(shown, logged=epoch_line(row, self._widths, max_epochs=most, width=None).plain)

    def headline(self) -> str:
        """The progress of the search in one line; before the first epoch, with what it waits for."""
        waiting = self._screen.waiting
        return f"{waiting} · {self.tally.headline()}" if waiting else self.tally.headline()

    def spent(self) -> str | None:
        """The worker time of the search and its forecast, in one line; None if there was nothing left to do."""
        return self.tally.spent()

    def _print(self, text: Text, *, logged: str) -> None:
        self._last_line = time.monotonic()
        if self._detail > Detail.RESULTS:
            self._console.print(text, soft_wrap=True)
        if self._log:
            self._log.write(logged)

    @contextmanager
    def _progress_lines(self) -> Iterator[None]:
        """Write the headline inside the context whenever no other line has been written for a while."""
        stop = threading.Event()
        pipe = not self._fits and self._detail > Detail.RESULTS

        def run() -> None:
            while not stop.wait(max(0.0, self._last_line + self._progress_seconds - time.monotonic())):
                if time.monotonic() - self._last_line < self._progress_seconds:
                    continue
                self._last_line, line = time.monotonic(), self.headline()
                if pipe:
                    self._console.print(Text(line), soft_wrap=True)
                if self._log:
                    self._log.write(line)

        thread = threading.Thread(target=run, name="progress lines", daemon=True)
        if pipe or self._log:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            if thread.ident is not None:
                thread.join()
