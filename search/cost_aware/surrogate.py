"""Predicts final scores: of a configuration, and of a trial from its scores so far."""

from collections.abc import Callable, Mapping, Sequence
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
FEATURES_PER_SPLIT = 0.7
"""Share of the columns that are considered at each split."""
FEW = 8
"""Number of trials below which the residual deviation is not estimated."""
RESIDUAL = 0.1
"""Residual standard deviation, in units of the score, of so few."""
OTHER_ARM = 0.3
"""Weight of a trial of another arm, relative to one of the same, as evidence of a rise."""
ABSENT = -1.0
"""Stands for a parameter that a trial does not have."""


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


class ConfigurationModel:
    """Extremely randomised trees that predict the final score of a configuration.

    Trees need no scaling, predict nothing beyond what was seen, take conditional parameters, and fit in milliseconds.
    """

    def __init__(self, random: np.random.Generator) -> None:
        """Args: the source of all random choices."""
        self._random = random
        self._trees: list[Any] = []
        self._residual = RESIDUAL

    @property
    def fitted(self) -> bool:
        """Whether there were scores to fit to."""
        return bool(self._trees)

    def fit(self, codes: NDArray[np.float64], finals: NDArray[np.float64]) -> None:
        """Fit to encoded configurations [trials, columns] and their final scores [trials]."""
        few = len(finals) < FEW
        forest = ExtraTreesRegressor(
            TREES,
            min_samples_leaf=1 if few else LEAF_SAMPLES,
            max_features=FEATURES_PER_SPLIT,
            bootstrap=True,
            random_state=int(self._random.integers(2**31)),
        ).fit(codes.astype(np.float32), finals)
        self._trees = [tree.tree_ for tree in forest.estimators_]
        if not few:
            self._residual = _upper_deviation(forest, codes, finals)

    def predict(
        self, codes: NDArray[np.float64], *, half: bool = False
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and variance, each [configurations], of the final score of encoded configurations.

        Args:
            codes: [configurations, columns].
            half: use a random half of the trees, so that predictions differ from call to call.
        """
        trees = self._random.permutation(len(self._trees))[: TREES // 2] if half else range(len(self._trees))
        x = codes.astype(np.float32)
        each = np.stack([self._trees[tree].predict(x)[:, 0] for tree in trees])
        return each.mean(axis=0), each.var(axis=0) + self._residual**2


def _upper_deviation(
    forest: ExtraTreesRegressor, codes: NDArray[np.float64], finals: NDArray[np.float64]
) -> float:
    """How far scores are above what the trees that were not fitted to them predict, where they predict good ones.

    The root mean square over the better half of the predictions. Scores below their prediction are left out: a learning
    rate at which some trials diverge does not make a still better score likelier.
    """
    x, n = codes.astype(np.float32), len(finals)
    total, count = np.zeros(n), np.zeros(n)
    for tree, sample in zip(forest.estimators_, forest.estimators_samples_, strict=True):
        out = np.ones(n, bool)
        out[sample] = False
        total[out] += tree.tree_.predict(x[out])[:, 0]
        count[out] += 1
    seen = count > 0
    predicted = total[seen] / count[seen]
    errors = (finals[seen] - predicted)[predicted >= np.median(predicted)]
    above = errors[errors > 0]
    return float(np.sqrt(np.mean(above**2))) if len(above) else 0.0


class RiseModel:
    """How much a trial's best score still rises, by the number of its epochs, from trials like it.

    The prior counts as one trial: with nothing known, a rise in proportion to the epochs left.
    """

    def __init__(self, max_epochs: int, rise: float) -> None:
        """Args: the maximum number of epochs of a trial; the expected rise from the first epoch to the last."""
        self._left = 1 - np.arange(max_epochs + 1) / max_epochs
        self._rise = rise

    def fit(
        self, scores: Sequence[Sequence[float]], log_costs: NDArray[np.float64], arms: Sequence[Any]
    ) -> None:
        """Learn from the scores of ended trials, one per epoch; trials of the same arm and cost are most alike."""
        self._log_costs, self._arms = log_costs, np.array([hash(arm) for arm in arms])
        best = [np.maximum.accumulate(own) for own in scores]
        self._rises = np.full((len(best), len(self._left)), np.nan)
        for row, own in zip(self._rises, best, strict=True):
            row[1 : len(own) + 1] = own[-1] - own

    def predict(
        self, epochs: NDArray[np.int64], log_costs: NDArray[np.float64], arms: Sequence[Any]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and variance [trials] of what the best scores still rise after this many epochs, 1 or more."""
        prior = self._rise * self._left[epochs]
        same = np.array([hash(arm) for arm in arms])[:, None] == self._arms
        weight = np.where(same, 1.0, OTHER_ARM) * np.exp(-np.abs(log_costs[:, None] - self._log_costs))
        rises = self._rises[:, epochs].T
        weight = np.where(np.isnan(rises), 0.0, weight)
        rises = np.nan_to_num(rises)
        total = 1 + weight.sum(axis=1)
        mean = (prior + (weight * rises).sum(axis=1)) / total
        spread = prior**2 + (prior - mean) ** 2 + (weight * (rises - mean[:, None]) ** 2).sum(axis=1)
        return mean, spread / total
