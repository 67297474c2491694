"""Predicts learning curves: the best score that a configuration reaches within some more epochs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from sklearn.ensemble import ExtraTreesRegressor

from search.cost_aware.space import share

Params = Mapping[str, Any]
Derived = Callable[[Params], Mapping[str, float]]
"""Further numbers that a score depends on, computed from the parameters of a trial."""

TREES = 40
LEAF_SAMPLES = 2
"""Minimum number of samples in a leaf; more smooth the noise of validation scores."""
FEW_ROWS = 20
"""Number of rows below which a leaf may have one sample."""
FEATURES_PER_SPLIT = 0.7
"""Share of the columns that are considered at each split."""
MAX_ROWS = 1000
"""Maximum number of rows to fit to; of more, a random sample is used."""
ABSENT = -1.0
"""Stands for a parameter that a trial does not have, and for the score before the first epoch."""


@dataclass(frozen=True, eq=False)
class Curve:
    """An encoded configuration and its scores so far, one per epoch; none for one that was not tried."""

    code: Sequence[float]
    scores: Sequence[float] = ()


class Encoder:
    """Encodes parameters as numbers: choices one-hot, logarithmic ranges as logarithms, absent ones as -1."""

    def __init__(self, distributions: Mapping[str, BaseDistribution], derived: Derived | None = None) -> None:
        """Args: the distributions of all parameters, and a function for further numbers."""
        self._distributions = dict(sorted(distributions.items()))
        self._derived = derived

    def __call__(self, params: Params) -> list[float]:
        """Encode the parameters of a trial."""
        row: list[float] = []
        for name, distribution in self._distributions.items():
            value = params.get(name)
            if isinstance(distribution, CategoricalDistribution):
                row += [float(value == choice) for choice in distribution.choices]
            else:
                row.append(ABSENT if value is None else share(value, distribution))
        return row + (list(self._derived(params).values()) if self._derived else [])


class CurveModel:
    """Extremely randomised trees over (configuration, epochs so far, scores so far, further epochs).

    Each prefix of each curve is a row, once with the next epoch and once with the last known epoch as its horizon. The
    target is the best score within the horizon. Trees need no scaling, predict nothing beyond what was seen, and fit
    in milliseconds. Quick-Tune (Arango et al. 2024) and ifBO (Rakotoarison et al. 2024) predict such scores with a
    deep-kernel Gaussian process and a transformer.
    """

    def __init__(self, *, max_epochs: int, random: np.random.Generator) -> None:
        """Args: the maximum number of epochs of a trial; source of all random choices."""
        self._max_epochs = max_epochs
        self._random = random
        self._trees: list[Any] = []

    @property
    def fitted(self) -> bool:
        """Whether there were scores to fit to."""
        return bool(self._trees)

    def fit(self, curves: Iterable[Curve]) -> None:
        """Fit to all scores; without any, nothing changes."""
        rows: list[list[float]] = []
        targets: list[float] = []
        for curve in curves:
            for done in range(n := len(curve.scores)):
                for horizon in {1, n - done}:
                    rows.append(self._row(curve.code, curve.scores[:done], horizon))
                    targets.append(max(curve.scores[: done + horizon]))
        if not rows:
            return
        x, y = np.array(rows, np.float32), np.array(targets)
        if len(x) > MAX_ROWS:
            kept = self._random.choice(len(x), MAX_ROWS, replace=False)
            x, y = x[kept], y[kept]
        forest = ExtraTreesRegressor(
            TREES,
            min_samples_leaf=LEAF_SAMPLES if len(x) >= FEW_ROWS else 1,
            max_features=FEATURES_PER_SPLIT,
            random_state=int(self._random.integers(2**31)),
        )
        self._trees = [tree.tree_ for tree in forest.fit(x, y).estimators_]

    def predict(self, curves: Sequence[Curve], horizons: Sequence[int]) -> NDArray[np.float64]:
        """The best score of each curve within further epochs, as each tree predicts it: [trees, curves]."""
        rows = [self._row(curve.code, curve.scores, h) for curve, h in zip(curves, horizons, strict=True)]
        x = np.array(rows, np.float32)
        return np.stack([tree.predict(x)[:, 0] for tree in self._trees])

    def _row(self, code: Sequence[float], scores: Sequence[float], horizon: int) -> list[float]:
        last = scores[-1] if scores else ABSENT
        best = max(scores) if scores else ABSENT
        slope = scores[-1] - scores[-2] if len(scores) > 1 else 0.0
        return [*code, len(scores) / self._max_epochs, horizon / self._max_epochs, last, best, slope]
