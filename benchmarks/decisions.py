"""How long the default search takes to decide, as the number of trials grows.

    python benchmarks/decisions.py [--trials 500] [--epochs 10]

Drives the policy with made learning curves in the default search space, with one worker. Prints CPU milliseconds per
decision: what an idle worker trains next, and after an epoch, whether the trial goes on. Needs neither torch nor Ray.
"""

import argparse
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import optuna
from optuna.trial import Trial

from genre_core.recipe import Recipe
from search.config.schema import load
from search.cost_aware.policy import FreezeThaw
from search.cost_aware.pruner import CostAwarePruner
from search.cost_aware.sampler import CostAwareSampler
from search.engine.costs import Costs
from search.study.policy import make_policy
from search.study.suggest import sample

GROUP = 100
"""Trials per row of the table."""


class MadeSearch:
    """A search with one worker, whose trials have made learning curves."""

    def __init__(self, *, trials: int, epochs: int) -> None:
        """Args: the number of trials, and the most epochs of each."""
        self._config = load(None, {"training": {"epochs": epochs}})
        self._n_trials, self._n_epochs = trials, epochs
        self._policy: FreezeThaw = make_policy(self._config, cost_of=Costs().of, progress=None, asked=0)
        self._study = optuna.create_study(
            direction="maximize",
            sampler=CostAwareSampler(self._policy, seed=0),
            pruner=CostAwarePruner(self._policy),
        )
        self._random = np.random.default_rng(0)
        self._paused: dict[int, Trial] = {}
        self._curves: dict[int, np.ndarray] = {}
        self._done: dict[int, int] = {}
        """Trial -> number of its epochs so far."""
        self.decisions: list[tuple[int, float]] = []
        """Number of trials so far, and CPU seconds, of each decision."""

    def run(self) -> None:
        """Search until nothing is left that is worth its cost."""
        while (trial := self._next()) is not None:
            self._train(trial)

    def _next(self) -> Trial | None:
        asked = len(self._curves)
        with self._timed():
            choice = self._policy.choose(
                self._study, paused=tuple(self._paused), busy=(), may_ask=asked < self._n_trials
            )
            if choice.trial is not None:
                return self._paused.pop(choice.trial)
            if not choice.new:
                return None
            trial = self._study.ask()
            recipe = sample(trial, self._config)
        self._curves[trial.number] = self._curve(recipe)
        return trial

    def _train(self, trial: Trial) -> None:
        curve = self._curves[trial.number]
        done = self._done.get(trial.number, 0)
        for epoch in range(done + 1, self._n_epochs + 1):
            trial.report(curve[epoch - 1], epoch)
            self._done[trial.number] = epoch
            with self._timed():
                pauses = epoch < self._n_epochs and trial.should_prune()
            if pauses:
                self._paused[trial.number] = trial
                return
        self._study.tell(trial, max(curve))

    def _curve(self, recipe: Recipe) -> np.ndarray:
        """F1 by epoch: highest for a step size of about 0.05, and for the deeper half of the network."""
        step = math.log(recipe.learning_rate / (1 - recipe.momentum) / 0.05)
        height = 0.8 * math.exp(-0.1 * step**2) - 0.02 * recipe.frozen_blocks + self._random.normal(0, 0.03)
        risen = 1 - 0.6 ** np.arange(1, self._n_epochs + 1)
        return np.clip(height * risen + self._random.normal(0, 0.02, self._n_epochs), 0, 1)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        began = time.process_time()
        yield
        self.decisions.append((len(self._curves), time.process_time() - began))


def main() -> None:
    """Run the search and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=10)
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    search = MadeSearch(trials=given.trials, epochs=given.epochs)
    search.run()
    print("| trials so far | decisions | median | mean | 99 % | maximum |\n|---|---|---|---|---|---|")
    for first in range(0, given.trials, GROUP):
        own = [1e3 * seconds for trials, seconds in search.decisions if first < trials <= first + GROUP]
        cells = [np.median(own), np.mean(own), np.quantile(own, 0.99), max(own)]
        print(f"| {first + GROUP} | {len(own)} | {' | '.join(f'{cell:.1f}' for cell in cells)} |")


if __name__ == "__main__":
    main()
