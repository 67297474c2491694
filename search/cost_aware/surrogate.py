"""Predicts learning curves: the best score that a configuration reaches within some more epochs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
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

    def __init__(self, random: np.random.Generator) -> None:
        """Args: the source of all random choices."""
        self._random = random
        self._trees: list[Any] = []

    @property
    def fitted(self) -> bool:
        """Whether there were scores to fit to."""
        return bool(self._trees)

    def fit(self, curves: Iterable[tuple[Sequence[float], Sequence[float]]]) -> None:
        """Fit to all scores; without any, nothing changes.

        Args:
            curves: for each trial its encoded configuration and its scores, one per epoch.
        """
        rows: list[list[float]] = []
        targets: list[float] = []
        for code, scores in curves:
            for done in range(n := len(scores)):
                now = self.state(code, scores[:done])
                for horizon in {1, n - done}:
                    rows.append([*now, horizon])
                    targets.append(max(scores[: done + horizon]))
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

    def state(self, code: Sequence[float], scores: Sequence[float]) -> list[float]:
        """What is known of a trial: its encoded configuration, and what its scores so far say."""
        last = scores[-1] if scores else ABSENT
        best = max(scores) if scores else ABSENT
        slope = scores[-1] - scores[-2] if len(scores) > 1 else 0.0
        return [*code, float(len(scores)), last, best, slope]

    def predict(self, states: NDArray[np.float64], horizons: NDArray[np.int64]) -> NDArray[np.float64]:
        """Predict the best score of trials within further epochs.

        Args:
            states: a `state` per trial, [trials, columns].
            horizons: numbers of epochs, [trials].

        Returns:
            What each tree predicts, [trees, trials].
        """
        x = np.column_stack([states, horizons]).astype(np.float32)
        return np.stack([tree.predict(x)[:, 0] for tree in self._trees])
