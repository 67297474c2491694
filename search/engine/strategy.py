"""The strategy of a search by Optuna alone."""

from collections.abc import Collection

from search.engine.messages import Choice, New, Nothing


class OptunaStrategy:
    """Trains new trials until there are enough; a trial that the pruner wants to end has ended."""

    pauses = False

    def choose(self, *, paused: Collection[int], busy: Collection[int], may_ask: bool) -> Choice:
        """A new trial while there may be one."""
        return New() if may_ask else Nothing()

    def least_promising(self, paused: Collection[int]) -> int:
        """Any of them: this strategy pauses none."""
        return min(paused)
