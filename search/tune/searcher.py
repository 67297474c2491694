"""Ray Tune's searcher: asks the coordinator what runs next."""

from typing import Any

from ray.tune.search import Searcher

from search.engine.coordinator import Coordinator
from search.engine.messages import Assignment, Finished
from search.tune.wire import config_of


class CoordinatorSearcher(Searcher):
    """Gives Ray's trials their assignments. A trial of Ray's is a worker's turn, not a trial of the study."""

    def __init__(self, coordinator: Coordinator) -> None:
        """Args: who decides."""
        super().__init__()
        self._coordinator = coordinator

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # or FINISHED
        """The config of the next trial; None while there is none, FINISHED when the search is over."""
        answer = self._coordinator.next_for(trial_id)
        if isinstance(answer, Assignment):
            return config_of(answer)
        return Searcher.FINISHED if isinstance(answer, Finished) else None

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing: the scheduler has told the coordinator."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study is the state."""
