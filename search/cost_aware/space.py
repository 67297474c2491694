"""Draws and varies configurations of a search space."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

STEP = 0.15
"""Standard deviation of a variation, as a share of the range."""


@dataclass(frozen=True, eq=False)
class Configuration:
    """The parameters of a trial and their distributions."""

    params: Mapping[str, Any]
    distributions: Mapping[str, BaseDistribution]


Draw = Callable[[np.random.Generator], Configuration]
"""Draws a configuration uniformly. In a conditional space its parameters may differ from draw to draw."""


def draw_from(space: Mapping[str, BaseDistribution]) -> Draw:
    """Draw from a space in which every configuration has all parameters."""

    def draw(random: np.random.Generator) -> Configuration:
        return Configuration({name: _uniform(one, random) for name, one in space.items()}, dict(space))

    return draw


def varied(configuration: Configuration, random: np.random.Generator) -> Configuration:
    """Move each number by a normal step within its range; choices are kept, so a conditional space stays valid."""
    moved = {
        name: _moved(value, configuration.distributions[name], random)
        for name, value in configuration.params.items()
    }
    return Configuration(moved, configuration.distributions)


def _uniform(distribution: BaseDistribution, random: np.random.Generator) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[random.integers(len(distribution.choices))]
    return at(random.random(), distribution)


def _moved(value: Any, distribution: BaseDistribution, random: np.random.Generator) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return value
    place = share(value, distribution) + STEP * random.standard_normal()
    reflected = 1 - abs(
        1 - abs(place) % 2
    )  # a place beyond an end; clipping would pile values up at the ends
    return at(reflected, distribution)


def share(value: float, distribution: BaseDistribution) -> float:
    """A number's place in its range, from 0 to 1, in the logarithm if the range is logarithmic."""
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = float(distribution.low), float(distribution.high)
    if distribution.log:
        value, low, high = np.log([value, low, high])
    return float((value - low) / (high - low)) if high > low else 0.0


def at(place: float, distribution: BaseDistribution) -> float | int:
    """The number at a place from 0 to 1 in a range: the inverse of `share`, on the range's steps."""
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = float(distribution.low), float(distribution.high)
    whole = isinstance(distribution, IntDistribution)
    if whole:  # so that the ends are as likely as the others
        low, high = low - 0.5, high + 0.5
    if distribution.log:
        value = float(np.exp(np.log(low) + place * (np.log(high) - np.log(low))))
    else:
        value = low + place * (high - low)
    if distribution.step is not None and (not whole or distribution.step > 1):
        value = distribution.low + distribution.step * round((value - distribution.low) / distribution.step)
    value = min(max(value, distribution.low), distribution.high)
    return int(min(max(round(value), distribution.low), distribution.high)) if whole else value
