"""Forecast of a search: a range for the working time of its trials."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from genre_core.models.registry import block_names
from search.config.schema import Optuna, SearchConfig, Training
from search.config.space import DepthRange, Space, choices
from search.engine.costs import Costs, Workload, build_seconds

DRAWS = 200
"""Number of simulated searches."""
SIMULATED_TRIALS = 1000
"""Maximum number of trials in each; longer searches are extrapolated."""
OUTSIDE = 0.05
"""Fraction of the simulated searches outside either end of the range."""


STARTUP_TRIALS = {"median": 5, "percentile": 5}
"""Optuna's defaults: trials before the first can be pruned."""


USUAL_SHARE, SHORT_SEARCH_TRIALS = 0.5, 10
"""A search that prunes or pauses trains at most the share USUAL_SHARE + SHORT_SEARCH_TRIALS / trials of all epochs: in
114 replays of three strategies on two recorded searches, with 12 to 119 trials of 5 epochs, none trained more."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A kind of trial, which determines its cost."""

    backbone: str
    frozen_blocks: int
    share: float
    """Fraction of uniformly drawn configurations."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Seconds of all workers together.

    At both ends, the same small fraction of simulated searches, with cheaper or costlier trials, is outside.
    """

    trials: int
    low: float
    """If every trial is pruned at its first opportunity."""
    high: float
    """If trials are pruned or paused as rarely as in any replay."""
    most: float
    """If every trial is trained to its last epoch."""
    fit: tuple[int, int] | None = None
    """Fewest and most trials that fit into the budget; None if there is none, or if all of them do."""

    @property
    def per_trial(self) -> tuple[float, float]:
        """The range of the mean per trial."""
        trials = max(self.trials, 1)
        return self.low / trials, self.high / trials


@dataclass(frozen=True, kw_only=True)
class Looks:
    """The number of epochs of a trial."""

    first: int
    """Minimum."""
    complete: int
    """Trials that are trained to the end before any can be pruned."""
    all: int
    """Maximum."""
    prunes: bool = True
    """Whether trials are pruned or paused."""

    def usual(self, trials: int) -> float:
        """The expected maximum of the mean number of epochs per trial."""
        share = min(1.0, USUAL_SHARE + SHORT_SEARCH_TRIALS / trials) if self.prunes else 1.0
        return max(float(self.first), share * self.all)


class CostSource(Enum):
    """Where the costs of a forecast come from."""

    MEASURED = "measured"
    """Measured in earlier trials under the same conditions."""
    PROBED = "probed"
    """One batch of each backbone was timed."""
    UNKNOWN = "unknown"
    """Nothing is known of the cluster."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan of a search and its expected cost."""

    config: SearchConfig
    workload: Workload
    image: tuple[int, int]
    """Mels and frames of a segment."""
    configurations: int | None
    """Number of configurations; None if there are infinitely many."""
    workers: int | None
    """Trials at a time; None if the cluster decides."""
    device: str
    source: CostSource
    costs: Costs
    kinds: tuple[Cell, ...]
    """Kinds of trials in the search space."""
    measured: int
    """Number of kinds with measured costs."""
    budget: float | None
    """Seconds of all workers together, including those already spent; None for no limit."""
    forecast: Forecast | None
    """Forecast of the remaining trials; None if the costs are unknown."""


def cells(space: Space) -> list[Cell]:
    """All kinds of trials in a search space."""
    backbones = choices(space.backbone)
    found = []
    for backbone in backbones:
        depths = _depths(backbone, space.frozen_blocks)
        found += [
            Cell(backbone=backbone, frozen_blocks=depth, share=1 / len(backbones) / len(depths))
            for depth in depths
        ]
    return found


def looks(training: Training, pruner: Optuna | None) -> Looks:
    """A trial's epochs under early stopping and its pruner; without a pruner, it may pause after any epoch."""
    patient = min(training.epochs, training.patience + 1)
    if pruner is None:
        return Looks(first=1, complete=0, all=training.epochs)
    if pruner.name == "none":
        return Looks(first=patient, complete=0, all=training.epochs, prunes=False)
    given = pruner.parameters
    first = given.get("min_resource", given.get("n_warmup_steps", 0) + 1)
    startup = given.get("n_startup_trials", STARTUP_TRIALS.get(pruner.name, 0))
    return Looks(
        first=min(first if isinstance(first, int) else 1, patient), complete=int(startup), all=training.epochs
    )


def forecast(
    costs: Costs,
    kinds: Sequence[Cell],
    looks: Looks,
    *,
    trials: int,
    budget: float | None = None,
    seed: int = 0,
) -> Forecast:
    """Simulate searches that draw their trials uniformly.

    Args:
        costs: of the kinds of trials.
        kinds: all kinds of trials.
        looks: the number of epochs of a trial.
        trials: number of trials to run.
        budget: seconds of all workers together; None for no limit.
        seed: of the simulation.
    """
    if not trials:
        return Forecast(trials=0, low=0.0, high=0.0, most=0.0)
    drawn = np.random.default_rng(seed).choice(
        len(kinds), size=(DRAWS, min(trials, SIMULATED_TRIALS)), p=_shares(kinds)
    )
    cost = [costs.of(kind.backbone, kind.frozen_blocks) for kind in kinds]
    first = np.array([c.start for c in cost])
    again = np.array([build_seconds(kind.backbone, kind.frozen_blocks) for kind in kinds])
    start = np.where(_first_of_its_kind(drawn), first[drawn], again[drawn])
    epoch = np.array([c.epoch for c in cost])[drawn]
    fewest = np.where(np.arange(drawn.shape[1]) < looks.complete, looks.all, looks.first)
    limit = math.inf if budget is None else budget
    simulated = int(drawn.shape[1])

    def end(epochs: float | NDArray[np.int64], quantile: float) -> float:
        spent = float(np.quantile((start + epoch * epochs).sum(axis=1), quantile))
        return min(limit, spent * trials / simulated)

    return Forecast(
        trials=trials,
        low=end(fewest, OUTSIDE),
        high=end(looks.usual(trials), 1 - OUTSIDE),
        most=end(looks.all, 1 - OUTSIDE),
        fit=None
        if budget is None
        else _fit(start + epoch * looks.all, start + epoch * fewest, budget, trials=trials),
    )


def _depths(backbone: str, value: int | tuple[int, ...] | DepthRange) -> tuple[int, ...]:
    if isinstance(value, DepthRange):
        return tuple(range(value.low, value.deepest(len(block_names(backbone))) + 1))
    return choices(value)


def _shares(kinds: Sequence[Cell]) -> NDArray[np.float64]:
    shares = np.array([kind.share for kind in kinds])
    return np.asarray(shares / shares.sum(), dtype=np.float64)


def _first_of_its_kind(drawn: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether no trial before it in the same search is of the same kind, [searches, trials]."""
    first = np.zeros(drawn.shape, dtype=bool)
    for row, kinds in zip(first, drawn, strict=True):
        row[np.unique(kinds, return_index=True)[1]] = True
    return first


def _fit(
    dear: NDArray[np.float64], cheap: NDArray[np.float64], budget: float, *, trials: int
) -> tuple[int, int] | None:
    """Fewest and most trials that end within the budget, from the seconds of each [searches, trials]."""
    fewest, most = (_within(seconds, budget, trials=trials) for seconds in (dear, cheap))
    return None if fewest == trials else (fewest, most)


def _within(seconds: NDArray[np.float64], budget: float, *, trials: int) -> int:
    """Median number of trials that end within a budget."""
    spent = np.cumsum(seconds, axis=1)
    within = int(np.median((spent <= budget).sum(axis=1)))
    if within < spent.shape[1]:
        return within
    return min(trials, int(budget / float(np.median(spent[:, -1])) * spent.shape[1]))
