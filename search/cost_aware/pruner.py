"""Optuna pruner of a cost-aware search."""

import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial

from search.cost_aware.policy import FreezeThaw


class CostAwarePruner(BasePruner):
    """Ends or pauses a trial when another one has more expected gain per cost."""

    def __init__(self, policy: FreezeThaw) -> None:
        """Args: the policy, which the sampler shares."""
        self._policy = policy

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the worker should switch to another trial."""
        return bool(trial.intermediate_values) and self._policy.prefers_other(study, trial)
