"""Optuna sampler of a cost-aware search."""

from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial

from search.cost_aware.policy import FreezeThaw
from search.cost_aware.space import Configuration


class CostAwareSampler(BaseSampler):
    """Samples the configuration that the policy chose: the most expected gain for its cost.

    Use it together with `CostAwarePruner` over the same policy. Where nothing pauses trials, as in `Study.optimize`,
    the policy chooses when a trial is sampled.
    """

    def __init__(
        self,
        policy: FreezeThaw,
        *,
        seed: int | None = None,
        fixed: Callable[[FrozenTrial], Mapping[str, Any]] = lambda trial: {},
    ) -> None:
        """Set up.

        Args:
            policy: chooses the configurations.
            seed: of parameters that the policy's search space does not have.
            fixed: returns the parameters with which a trial was enqueued.
        """
        self._policy = policy
        self._fixed = fixed
        self._independent = RandomSampler(seed=seed)
        self._chosen: Configuration | None = None

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The distributions of the chosen configuration's parameters."""
        self._chosen = self._policy.propose(study, trial, fixed=self._fixed(trial))
        return dict(self._chosen.distributions)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The chosen configuration's parameters."""
        assert self._chosen is not None, "the search space is inferred first"
        return dict(self._chosen.params)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A random value, for a parameter that the policy's search space does not have."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)
