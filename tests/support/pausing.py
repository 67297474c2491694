"""Strategies and pruners for searches that pause trials: they do what a test says, or anything."""

from collections.abc import Collection, Sequence
from random import Random

import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial

from search.engine.messages import Choice, New, Nothing, Resume


class PauseAfter(BasePruner):
    """Wants trials to end, or to pause, after some of their epochs."""

    def __init__(self, *epochs: tuple[int, int]) -> None:
        """Args: trial and epoch, for each epoch after which one should pause."""
        self._epochs = set(epochs)
        self.asked: list[tuple[int, int]] = []
        """Trial and epoch of each question."""

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether this epoch is among them."""
        at = trial.number, max(trial.intermediate_values)
        self.asked.append(at)
        return at in self._epochs


class Scripted:
    """A strategy whose choices are known beforehand; after them, it starts new trials and resumes the oldest."""

    pauses = True

    def __init__(self, *choices: Choice, gives_up: Sequence[int] = ()) -> None:
        """Args: the first choices, and the order in which paused trials are given up."""
        self._choices = list(choices)
        self._gives_up = gives_up
        self.asked: list[tuple[tuple[int, ...], tuple[int, ...], bool]] = []
        """For each question the paused and the busy trials, and whether there may be a new one."""

    def choose(self, *, paused: Collection[int], busy: Collection[int], may_ask: bool) -> Choice:
        """The next choice."""
        self.asked.append((tuple(sorted(paused)), tuple(sorted(busy)), may_ask))
        if self._choices:
            return self._choices.pop(0)
        if may_ask:
            return New()
        return Resume(min(paused)) if paused else Nothing()

    def least_promising(self, paused: Collection[int]) -> int:
        """The first of the order that is paused."""
        return next(number for number in self._gives_up if number in paused)


class RandomPauses(BasePruner):
    """Wants a trial to end, or to pause, after most of its epochs."""

    def __init__(self, random: Random) -> None:
        """Args: draws."""
        self._random = random
        self.calm = False
        """Whether it wants no trial to end any more."""

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """As it is drawn."""
        return not self.calm and self._random.random() < 0.8


class RandomChoices:
    """A strategy that chooses at random among all that it may choose."""

    pauses = True

    def __init__(self, random: Random) -> None:
        """Args: draws."""
        self._random = random
        self.calm = False
        """Whether it chooses nothing only where there is nothing left."""

    def choose(self, *, paused: Collection[int], busy: Collection[int], may_ask: bool) -> Choice:
        """As it is drawn."""
        choices: list[Choice] = [*map(Resume, sorted(paused)), *([New()] if may_ask else [])]
        if not choices or (not self.calm and self._random.random() < 0.3):
            return Nothing()
        return self._random.choice(choices)

    def spares(self) -> bool:
        """Whether a worker has memory for paused trials, as it is drawn."""
        return self._random.random() < 0.8

    def least_promising(self, paused: Collection[int]) -> int:
        """As it is drawn."""
        return self._random.choice(sorted(paused))


class Elsewhere:
    """A strategy of which a trial that paused first continues where another has paused."""

    pauses = True

    def choose(self, *, paused: Collection[int], busy: Collection[int], may_ask: bool) -> Choice:
        """The trial that has been paused for longest, if two are or there are no new ones."""
        if may_ask and len(paused) < 2:
            return New()
        return Resume(next(iter(paused))) if paused else Nothing()

    def least_promising(self, paused: Collection[int]) -> int:
        """The one that was paused last."""
        return list(paused)[-1]
