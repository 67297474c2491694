"""Simple strategies that pause trials: baselines for replays."""

from collections.abc import Callable, Collection, Mapping, Sequence
from math import inf

import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial

from search.engine.messages import Choice, New, Nothing, Resume
from search.engine.ports import Strategy

Scores = Callable[[], Mapping[int, Sequence[float]]]
"""Returns the validation F1 by epoch of each trial so far."""
REDUCTION = 3
"""Reduction factor: one in this many trials of a rung is promoted, to this many times the epochs."""


class AtEpochs(BasePruner):
    """Pauses every trial after certain epochs."""

    def __init__(self, epochs: Collection[int]) -> None:
        """Args: the epochs, counted from 1."""
        self._epochs = frozenset(epochs)

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the last epoch is one of them."""
        return trial.last_step in self._epochs


class OneEpochThenBest(Strategy):
    """Trains all trials for one epoch, then the best to its end, then the second best, and so on."""

    pauses = True

    def __init__(self, scores: Scores) -> None:
        """Args: the scores."""
        self._scores = scores

    def choose(self, *, paused: Collection[int], busy: Collection[int], may_ask: bool) -> Choice:
        """A new trial while there may be one, then the best paused one."""
        if may_ask:
            return New()
        return Resume(_best(paused, self._scores())) if paused else Nothing()

    def least_promising(self, paused: Collection[int]) -> int:
        """The one with the lowest score."""
        return _worst(paused, self._scores())


class Promotion(Strategy):
    """Asynchronous successive halving (Li et al. 2020): trials pause at rungs, and the best of each are resumed.

    A worker resumes a paused trial that is among the best of its rung, starting with the highest rung; if there is
    none, it starts a new trial.
    """

    pauses = True

    def __init__(self, scores: Scores, rungs: Sequence[int]) -> None:
        """Args: the scores, and the epochs after which trials pause, in order."""
        self._scores = scores
        self._rungs = rungs

    def choose(self, *, paused: Collection[int], busy: Collection[int], may_ask: bool) -> Choice:
        """A promotion if there is one, else a new trial."""
        scores = self._scores()
        for rung in reversed(self._rungs):
            waiting = [number for number in paused if len(scores[number]) == rung]
            reached = sorted((max(own[:rung]) for own in scores.values() if len(own) >= rung), reverse=True)
            promoted = len(reached) // REDUCTION
            bar = reached[promoted - 1] if promoted else inf
            if waiting and max(scores[best := _best(waiting, scores)]) >= bar:
                return Resume(best)
        return New() if may_ask else Nothing()

    def least_promising(self, paused: Collection[int]) -> int:
        """The one with the lowest score."""
        return _worst(paused, self._scores())


def rungs(max_epochs: int) -> list[int]:
    """Epochs after which `Promotion` pauses: 1, 3, 9, … below the maximum."""
    found, rung = [], 1
    while rung < max_epochs:
        found.append(rung)
        rung *= REDUCTION
    return found


def _best(numbers: Collection[int], scores: Mapping[int, Sequence[float]]) -> int:
    return max(numbers, key=lambda number: (max(scores[number]), -number))


def _worst(numbers: Collection[int], scores: Mapping[int, Sequence[float]]) -> int:
    return min(numbers, key=lambda number: (max(scores[number]), -number))
