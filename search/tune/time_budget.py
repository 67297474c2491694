"""Ray Tune's stopper: ends the search when the coordinator's time budget is spent."""

from collections.abc import Callable
from typing import Any

from ray.tune import Stopper

from search.engine.coordinator import Coordinator


class BudgetStopper(Stopper):
    """Ends all trials at once, and remembers whether it did: Ray does not say what ended a run."""

    def __init__(self, coordinator: Coordinator, *, spent: Callable[[], object]) -> None:
        """Args: who decides, and what is called once when the time is over."""
        self._coordinator = coordinator
        self._spent = spent
        self.stopped = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Never: the budget is the search's, not a trial's."""
        return False

    def stop_all(self) -> bool:
        """Whether the time is over."""
        if not self.stopped and self._coordinator.budget_spent():
            self.stopped = True
            self._spent()
        return self.stopped

    def __getstate__(self) -> dict[str, bool]:
        """For Ray's snapshots, from which nothing is ever restored: the coordinator holds an open study."""
        return {"stopped": self.stopped}
