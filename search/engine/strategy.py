"""The strategies of a search: what an idle worker trains next."""

from collections.abc import Collection

from search.cost_aware.policy import FreezeThaw
from search.engine.messages import Choice, New, Nothing, Resume
from search.study.study import Study


class OptunaStrategy:
    """Trains new trials until there are enough; a trial that the pruner stops has ended."""

    pauses = False

    def choose(self, *, paused: Collection[int], busy: Collection[int], may_ask: bool) -> Choice:
        """A new trial while there may be one."""
        return New() if may_ask else Nothing()

    def least_promising(self, paused: Collection[int]) -> int:
        """Any of them: this strategy pauses none."""
        return min(paused)


class CostAwareStrategy:
    """Trains the new or paused trial with the most expected improvement per cost."""

    pauses = True

    def __init__(self, policy: FreezeThaw, study: Study) -> None:
        """Args: the policy, which the study's sampler and pruner share; the study."""
        self._policy = policy
        self._study = study

    def choose(self, *, paused: Collection[int], busy: Collection[int], may_ask: bool) -> Choice:
        """The policy's choice."""
        chosen = self._policy.choose(self._study.of_optuna, paused=paused, busy=busy, may_ask=may_ask)
        if chosen.trial is not None:
            return Resume(chosen.trial)
        return New() if chosen.new else Nothing()

    def least_promising(self, paused: Collection[int]) -> int:
        """The trial that is least worth resuming."""
        return self._policy.least_promising(self._study.of_optuna, paused)
