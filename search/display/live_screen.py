"""The live screen of a search: a header of two lines, the running trials, and the best ones."""

from collections.abc import Iterator, Sequence

from rich.console import Console, ConsoleOptions, RenderableType
from rich.text import Text

from search.display.machine_use import MachineUse
from search.display.tally import Tally
from search.report.fitting import FittedTable
from search.report.formatting import duration, rate, roughly, score, sparkline
from search.report.trial_table import trial_table
from search.run.schemas import TrialRow

_SHORTEST_BAR, _EPOCH_BAR = 8, 8
"""Width of the search's bar on a narrow screen, and of a trial's, in characters."""
_CURVE = 10
"""The most epochs in a curve, the last ones."""
_OTHER_LINES = 14
"""Lines of a screen that do not show running trials."""
_FEWEST_TRIALS = 3
"""Running trials that are shown on the lowest screen."""
_SEPARATOR = " · "
_RUNNING = ("trial", "backbone", "frozen", "lr", "momentum", "epoch", "last F1", "best F1", "F1 by epoch")
_DROPPED = ("momentum", "F1 by epoch", "frozen", "last F1")


class LiveScreen:
    """Draws a tally; rich calls it several times a second in a thread of its own."""

    def __init__(self, tally: Tally, *, use: MachineUse | None) -> None:
        """Args: what is shown; the use of this machine, or None if the search runs elsewhere."""
        self._tally = tally
        self._use = use
        self._phase: tuple[str, float] | None = None

    def phase(self, title: str) -> None:
        """Show what happens until the first epoch of the search ends.

        Args:
            title: of the phase, perhaps with a detail after a comma, which may change during the phase.
        """
        earlier, since = self._phase or ("", 0.0)
        same = earlier.partition(",")[0] == title.partition(",")[0]
        self._phase = title, since if same else self._tally.elapsed

    @property
    def waiting(self) -> str | None:
        """What has happened since which time; None after the first epoch."""
        if self._phase is None or self._tally.begun:
            return None
        title, since = self._phase
        return f"{title}, {duration(self._tally.elapsed - since)}"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Draw everything for the present width and height."""
        width = options.max_width
        first, rest = self._first_line(width)
        yield Text(first, style="bold", no_wrap=True)
        yield Text(self._second_line(width), no_wrap=True)
        running = self._tally.running
        most = max(_FEWEST_TRIALS, console.height - _OTHER_LINES)
        if running:
            yield Text()
            yield self._running(running[:most])
        if len(running) > most:
            yield Text(f"and {len(running) - most} more", style="dim")
        if self._tally.top:
            yield Text("\nbest so far", style="dim")
            yield trial_table(self._tally.top)
        if last := [*([self._tally.spending()] if self._tally.begun else []), *rest]:
            yield Text(f"\n{_SEPARATOR.join(last)}", style="dim")

    def _first_line(self, width: int) -> tuple[str, list[str]]:
        """A bar, trials, the time, and the use of this machine; and the parts that a narrow screen has no room for."""
        tally, left = self._tally, self._tally.seconds_left()
        parts = [f"{tally.done}/{tally.trials}", *tally.endings(), f"{duration(tally.elapsed)} elapsed"]
        rest: list[str] = []
        parts += [] if left is None else [f"about {roughly(left)} left"]
        parts += [", ".join(self._use.parts())] if self._use else []
        parts += [f"{tally.paused} paused"] if tally.paused else []
        while len(parts) > 1 and len(_SEPARATOR.join(parts)) + 1 + _SHORTEST_BAR > width:
            rest.insert(0, parts.pop())
        text = _SEPARATOR.join(parts)
        share = tally.done / tally.trials if tally.trials else 0.0
        return f"{progress_bar(share, max(_SHORTEST_BAR, width - 1 - len(text)))} {text}", rest

    def _second_line(self, width: int) -> str:
        """The best trial with as many of its settings as fit, or what the search waits for."""
        parts = (self._tally.winner() or self.waiting or "no score yet").split(_SEPARATOR)
        while len(_SEPARATOR.join(parts)) > width and len(parts) > 1:
            parts.pop()
        return _SEPARATOR.join(parts)

    def _running(self, rows: Sequence[TrialRow]) -> FittedTable:
        shown = FittedTable(*_RUNNING, left=("backbone", "epoch", "F1 by epoch"), drop=_DROPPED)
        highest = self._tally.best.val_f1 if self._tally.best else None
        for row in rows:
            curve = self._tally.curve(row.trial)
            done = f"{row.epochs:>{len(str(row.max_epochs))}}/{row.max_epochs}"
            shown.add_row(
                str(row.trial),
                row.backbone,
                f"{row.frozen_blocks}/{row.n_blocks}",
                rate(row.learning_rate),
                rate(row.momentum),
                f"{progress_bar(row.epochs / row.max_epochs, _EPOCH_BAR)} {done}",
                score(curve[-1] if curve else None),
                score(row.val_f1),
                sparkline(curve[-_CURVE:], highest or 1.0),
            )
        return shown


def progress_bar(share: float, width: int) -> str:
    """A bar of `width` characters, of which a share is done."""
    done = min(width, int(share * width))
    return "━" * done + "─" * (width - done)
