"""The plan of a search as lines of at most 80 columns."""

import textwrap
from collections.abc import Iterator
from pathlib import Path

from search.config.schema import SearchConfig
from search.config.space import Space
from search.engine.forecast import CostSource, Forecast, Plan
from search.report.formatting import counted, duration
from search.report.search_space import searched_values
from search.run.folder import RunFolder

COLUMNS = 80
_NAME_WIDTH, _CELL_WIDTH, _NARROW_CELL_WIDTH = 12, 15, 12
"""Columns of the table of costs: the shortest for a backbone's name, one for a duration, and one for a
duration if a name is longer."""


def title(config: SearchConfig, run: Path, *, resumed: bool = False) -> str:
    """The first line of a search."""
    most = counted(config.trials, "trial")
    if resumed:
        return f"Resuming search {RunFolder(run).name}: up to {most}"
    return f"Search {RunFolder(run).name}: up to {most} over {', '.join(config.backbones)}"


def plan_lines(plan: Plan, *, price: float | None = None) -> list[str]:
    """The search space, the costs and the forecast.

    Args:
        plan: of the search.
        price: of an hour of a worker; None for no price.
    """
    lines = [*_space(plan), *_data(plan), *_costs(plan), *_forecast(plan, price)]
    return [part for line in lines for part in ([line] if len(line) <= COLUMNS else _wrapped(line))]


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(line, COLUMNS, subsequent_indent="    ", break_on_hyphens=False)


def worker_time(low: float, high: float, price: float | None) -> str:
    """A range of worker time, and its price if that of an hour is known."""
    text = f"{between(low, high)} of worker time"
    return text if price is None else f"{text}, {money(low, high, price)}"


def between(low: float, high: float) -> str:
    """Two durations, or one if they read the same."""
    ends = duration(low), duration(high)
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def money(low: float, high: float, price: float) -> str:
    """The price of a range of worker time, without a currency."""
    ends = f"{low / 3600 * price:.2f}", f"{high / 3600 * price:.2f}"
    return f"price {ends[0] if ends[0] == ends[1] else ' to '.join(ends)}"


def _space(plan: Plan) -> Iterator[str]:
    space = plan.config.space
    searched = {name: text for name in Space.model_fields if (text := searched_values(getattr(space, name)))}
    many = plan.configurations is None
    count = "infinitely many configurations" if many else counted(plan.configurations or 0, "configuration")
    pairs = counted(len(plan.kinds), "pair")
    yield f"Space: {count}, {pairs} of backbone and frozen blocks"
    width = max(map(len, searched), default=0)
    for name, text in searched.items():
        yield f"  {name:<{width}}  {text}"


def _data(plan: Plan) -> Iterator[str]:
    work, (mels, frames) = plan.workload, plan.image
    yield (
        f"Segments: {work.train_segments:,} to train on, {work.validation_segments:,} to validate, "
        f"{mels} mels x {frames} frames"
    )


def _costs(plan: Plan) -> Iterator[str]:
    epochs = plan.config.training.epochs
    match plan.source:
        case CostSource.UNKNOWN:
            yield "Costs: unknown until the first search on this cluster has measured them"
            return
        case CostSource.PROBED:
            yield f"Costs on {plan.device}: one batch of each backbone was timed on this machine"
        case CostSource.MEASURED:
            yield f"Costs on {plan.device}: {plan.measured} of {len(plan.kinds)} pairs measured, the others estimated"
    name = max(_NAME_WIDTH, 1 + max(map(len, plan.config.backbones)))
    width = _CELL_WIDTH if name == _NAME_WIDTH else _NARROW_CELL_WIDTH
    titles = "".join(f"{title:>{width}}" for title in ("activations", "epoch", counted(epochs, "epoch")))
    yield f"  {'backbone':<{name}}{'frozen':>8}{titles}"
    for backbone in plan.config.backbones:
        depths = sorted({kind.frozen_blocks for kind in plan.kinds if kind.backbone == backbone})
        for depth in dict.fromkeys((depths[-1], depths[0])):
            cost = plan.costs.of(backbone, depth)
            whole = cost.start + epochs * cost.epoch
            cells = "".join(f"{short(seconds):>{width}}" for seconds in (cost.start, cost.epoch, whole))
            yield f"  {backbone:<{name}}{depth:>8}{cells}"


def short(seconds: float) -> str:
    """A duration, of less than ten seconds with two digits."""
    return f"{seconds:.2g} s" if seconds < 9.95 else duration(seconds)


def _forecast(plan: Plan, price: float | None) -> Iterator[str]:
    if plan.forecast is None:
        yield "Forecast: available after the first search on this cluster"
        return
    low, high, most = plan.forecast.low, plan.forecast.high, plan.forecast.most
    yield f"Forecast of {counted(plan.forecast.trials, 'trial')}: {between(low, high)} of worker time"
    if most > high:
        yield f"  at most {duration(most)}, with every trial trained to its last epoch"
    if plan.workers and (plan.config.workers or 0) > plan.workers:
        yield f"  --workers {plan.config.workers} is more than this machine can run: {plan.workers} at a time"
    if plan.workers:
        yield f"  with {counted(plan.workers, 'worker')}: {between(low / plan.workers, high / plan.workers)}"
    if price is not None:
        yield f"  {money(low, high, price)}, at {price:g} for an hour of a worker"
    yield from _fit(plan.forecast)


def _fit(forecast: Forecast) -> Iterator[str]:
    if forecast.fit is not None:
        fewest, most = forecast.fit
        count = f"{fewest}" if fewest == most else f"{fewest} to {most}"
        yield f"  the budget is spent after {count} of {counted(forecast.trials, 'trial')}"
