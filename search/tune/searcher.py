"""What to try next: Ray's searcher over the Optuna study."""

from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from ray.tune.search import Searcher

from genre_core.recipe import Recipe
from search.config.schema import SearchConfig
from search.engine.messages import CUT_OFF, NUMBER, RECIPE
from search.study.study import Study
from search.study.suggest import sample
from search.study.without_repeats import goal


class StudySearcher(Searcher):
    """Gives out trials while there is room: first those to go on with, then new ones, until there are enough."""

    def __init__(
        self, study: Study, config: SearchConfig, *, workers: int, begin: Callable[[int, Recipe], None]
    ) -> None:
        """Args: what to ask, what to sample, how many trials at a time, and who is told of each that begins."""
        super().__init__()
        self._study = study
        self._config = config
        self._workers = workers
        self._begin = begin
        self._again = deque(study.running)
        self._live: set[str] = set()

    def go_on(self, number: int) -> None:
        """A running trial has lost its worker: give it out again."""
        self._again.append(number)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # or FINISHED
        """The next trial's config; None while there is nothing to give out, FINISHED when the search is over.

        It is over when the last trial has ended, not when it has begun: it may lose its worker.
        """
        if len(self._live) >= self._workers:
            return None
        if cut_off := bool(self._again):
            trial = self._study.trial(self._again.popleft())
        elif self._study.asked < goal(self._config, self._study):
            trial = self._study.ask()
        else:
            return None if self._live else Searcher.FINISHED
        recipe = sample(trial, self._config)
        self._live.add(trial_id)
        self._begin(trial.number, recipe)
        return {NUMBER: trial.number, RECIPE: asdict(recipe), CUT_OFF: cut_off}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Make room; how the trial ended is the scheduler's to tell the study."""
        self._live.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study is the state."""
