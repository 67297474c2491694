"""A sampler of recorded configurations: each proposal is replaced by the nearest unused member of a pool."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from search.config.space import FROZEN_SHARE, Space, share_of
from search.cost_aware.space import Configuration
from search.engine.recorded import Curve, Pool

BACKBONE = "backbone"
_LOG = ("learning_rate",)
"""Settings that are sampled on a logarithmic scale."""
_OTHER_BACKBONE, _OTHER_CHOICE = 10.0, 1.0
"""Squared distances between different choices; numbers are scaled to [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class PoolSpace:
    """The unconditional search space of a pool and its members' parameters in it."""

    distributions: Mapping[str, BaseDistribution]
    members: Sequence[Mapping[str, Any]]
    """Parameters of each curve."""

    @classmethod
    def of(cls, pool: Pool) -> "PoolSpace":
        """The backbone, learning rate, momentum, frozen share, and what else differs between the curves of a pool."""
        always = (BACKBONE, "learning_rate", "momentum")
        others = [
            name
            for name in Space.model_fields
            if name not in (*always, "frozen_blocks")
            and len({getattr(curve.recipe, name) for curve in pool.curves}) > 1
        ]
        members = [_parameters(curve, (*always, *others)) for curve in pool.curves]
        names = members[0]
        return cls(
            distributions={name: _distribution(name, [member[name] for member in members]) for name in names},
            members=members,
        )


class Deck:
    """The members of a pool, each of which can be used once."""

    def __init__(self, space: PoolSpace) -> None:
        """Args: the space of the pool."""
        self.space = space
        self._unused = np.ones(len(space.members), bool)
        self._configurations = [Configuration(member, space.distributions) for member in space.members]

    @property
    def unused(self) -> NDArray[np.intp]:
        """Indices of the unused members."""
        return np.flatnonzero(self._unused)

    def use(self, member: int) -> Mapping[str, Any]:
        """Use a member; returns its parameters."""
        assert self._unused[member], "a member is used once"
        self._unused[member] = False
        return self.space.members[member]

    def left(self) -> list[Configuration]:
        """The unused members; each is always the same object."""
        return [self._configurations[member] for member in self.unused]


def _parameters(curve: Curve, names: Sequence[str]) -> dict[str, Any]:
    own = {name: getattr(curve.recipe, name) for name in names}
    return own | {FROZEN_SHARE: share_of(curve.recipe.frozen_blocks, curve.n_blocks)}


def _distribution(name: str, values: Sequence[Any]) -> BaseDistribution:
    if name == FROZEN_SHARE:
        return FloatDistribution(0.0, 1.0)
    if isinstance(values[0], str | bool):
        return CategoricalDistribution(sorted(set(values)))
    return FloatDistribution(float(min(values)), float(max(values)), log=name in _LOG)


class PoolSampler(BaseSampler):
    """Wraps a sampler so that it samples only members of a pool, each of them once.

    A proposal is replaced by the nearest unused member. If the sampler proposes nothing, because it is random or has
    too few trials to learn from, an unused member is drawn at random.
    """

    def __init__(self, sampler: BaseSampler | None, deck: Deck, *, random: np.random.Generator) -> None:
        """Wrap a sampler.

        Args:
            sampler: the sampler to wrap; None to return the members in their order.
            deck: the pool.
            random: draws members.
        """
        self._sampler = sampler
        self._deck = deck
        self._random = random
        space = self._space = deck.space
        self._coordinates = {
            name: np.array([_coordinate(distribution, member[name]) for member in space.members])
            for name, distribution in space.distributions.items()
        }
        self._member: dict[int, int] = {}

    def member(self, trial: int) -> int:
        """The index of the pool's curve that a trial replays."""
        return self._member[trial]

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Call the wrapped sampler."""
        if self._sampler:
            self._sampler.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The space of the pool."""
        return dict(self._space.distributions)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The parameters of an unused member of the pool."""
        chosen = self._choose(study, trial)
        self._member[trial.number] = chosen
        return dict(self._deck.use(chosen))

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The member's value; Optuna does not call this for parameters that `sample_relative` returned."""
        return self._space.members[self._member[trial.number]][param_name]

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Call the wrapped sampler."""
        if self._sampler:
            self._sampler.after_trial(study, trial, state, values)

    def _choose(self, study: optuna.Study, trial: FrozenTrial) -> int:
        unused = self._deck.unused
        if self._sampler is None:
            return int(unused[0])
        inner = self._sampler.infer_relative_search_space(study, trial)
        proposed = self._sampler.sample_relative(study, trial, inner)
        if not proposed:
            return int(self._random.choice(unused))
        return int(unused[np.argmin(self._distances(proposed)[unused])])

    def _distances(self, proposed: Mapping[str, Any]) -> NDArray[np.float64]:
        """Squared distance of every member to a proposal, which may lack parameters: [members]."""
        total = np.zeros(len(self._space.members))
        for name, value in proposed.items():
            distribution, own = self._space.distributions[name], self._coordinates[name]
            gap = own - _coordinate(distribution, value)
            if isinstance(distribution, CategoricalDistribution):
                total += (gap != 0) * (_OTHER_BACKBONE if name == BACKBONE else _OTHER_CHOICE)
            else:
                total += gap**2
        return total


def _coordinate(distribution: BaseDistribution, value: Any) -> float:
    """A number's position in its range, or a choice's index."""
    if isinstance(distribution, CategoricalDistribution):
        return float(distribution.choices.index(value))
    assert isinstance(distribution, FloatDistribution), distribution
    if distribution.single():
        return 0.0
    low, high, own = distribution.low, distribution.high, float(value)
    if distribution.log:
        low, high, own = math.log(low), math.log(high), math.log(own)
    return (own - low) / (high - low)
