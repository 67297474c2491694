"""Comparison of replayed searches by the time that each needs to come near the best F1 of the recorded trials."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from search.engine.simulator import Reached, Trace
from search.report.fitting import FittedTable

MARGINS = (0.05, 0.02, 0.01)
"""Distances from the best validation F1 of the pool."""
TOLERANCE = 1e-9
"""Differences of F1 below this are rounding."""
_LOW, _HIGH = 0.1, 0.9
"""Quantiles over the repeats."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The time that a strategy needs to come within a margin of the best F1; None if under half of its repeats did."""

    strategy: str
    workers: int
    margin: float
    seconds_median: float | None
    """Wall-clock time."""
    seconds_low: float | None
    """10th percentile of the wall-clock time."""
    seconds_high: float | None
    """90th percentile of the wall-clock time; None if fewer repeats reached the margin."""
    reached: float
    """Share of the repeats that reached the margin."""
    worker_seconds_median: float | None
    epochs_median: float | None

    def as_json(self) -> dict[str, Any]:
        """The part that `genre-search simulate --json` prints."""
        return {
            name: getattr(self, name)
            for name in (
                "strategy",
                "workers",
                "margin",
                "seconds_median",
                "seconds_low",
                "seconds_high",
                "reached",
            )
        }


def outcome(
    strategy: str, workers: int, margin: float, traces: Sequence[Trace], *, best_f1: float
) -> Outcome:
    """Summarize the repeats of a strategy.

    Args:
        strategy: its name.
        workers: number of virtual workers.
        margin: distance from the best F1.
        traces: one per repeat.
        best_f1: the best F1 of the pool.
    """
    steps = [trace.reach(best_f1 - margin - TOLERANCE) for trace in traces]
    reached = sum(step is not None for step in steps) / len(steps)
    seconds = _values(steps, "seconds")
    return Outcome(
        strategy=strategy,
        workers=workers,
        margin=margin,
        seconds_median=_quantile(seconds, 0.5),
        seconds_low=_quantile(seconds, _LOW) if reached >= 0.5 else None,
        seconds_high=_quantile(seconds, _HIGH) if reached >= 0.5 else None,
        reached=reached,
        worker_seconds_median=_quantile(_values(steps, "worker_seconds"), 0.5),
        epochs_median=_quantile(_values(steps, "epochs"), 0.5),
    )


def table(outcomes: Sequence[Outcome]) -> FittedTable:
    """A table with one row per outcome."""
    titles = ("strategy", "within", "seconds", "10-90 %", "worker s", "epochs", "reached")
    shown = FittedTable(*titles, left=("strategy",), drop=("10-90 %", "epochs"))
    last = None
    for own in outcomes:
        shown.add_row(
            own.strategy if own.strategy != last else "",
            f"{own.margin:g}",
            _number(own.seconds_median),
            _interval(own),
            _number(own.worker_seconds_median),
            _number(own.epochs_median),
            f"{own.reached:.0%}",
        )
        last = own.strategy
    return shown


def comparison(own: Sequence[Outcome], others: Sequence[Outcome]) -> list[str]:
    """A line for each strategy: how its time to the smallest margin compares with that of the recorded search."""
    margin = min(outcome.margin for outcome in own)
    [recorded] = [outcome.seconds_median for outcome in own if outcome.margin == margin]
    assert recorded is not None, "the recorded search reached its own best"
    lines = []
    for other in others:
        if other.margin == margin and other.seconds_median is None:
            lines.append(f"{other.strategy} came within {margin:g} in {other.reached:.0%} of its replays.")
        elif other.margin == margin and other.seconds_median:
            ratio = recorded / other.seconds_median
            lines.append(
                f"Within {margin:g}, {other.strategy} is {ratio:.2g} times as fast as the recorded search."
            )
    return lines


def _values(steps: Sequence[Reached | None], name: str) -> list[float]:
    return sorted(math.inf if step is None else float(getattr(step, name)) for step in steps)


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    """A quantile by linear interpolation; None if it is infinite.

    Between a finite and an infinite value, the lower quantiles and the median are the finite one. So the median of
    repeats of which exactly half reached their goal is the slowest of these.
    """
    position = share * (len(ordered) - 1)
    below = ordered[math.floor(position)]
    above = ordered[math.ceil(position)]
    if math.isinf(below):
        return None
    if math.isinf(above):
        return below if share <= 0.5 else None
    return below + (position - math.floor(position)) * (above - below)


def _interval(own: Outcome) -> str:
    if own.seconds_median is None:
        return "-"
    high = "never" if own.seconds_high is None else _number(own.seconds_high)
    return f"{_number(own.seconds_low)} to {high}"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"
