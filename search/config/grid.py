"""The configurations of a finite search space: how many there are, and which one a set of parameters is."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from genre_core.models.registry import block_names
from search.config.space import (
    FROZEN_SHARE,
    DepthRange,
    FloatRange,
    IntRange,
    Space,
    blocks_of,
    choices,
    depth_in,
    depth_parameter,
    is_share,
    share_of,
)

BACKBONE = "backbone"
Configuration = tuple[str, tuple[int, ...]]
"""A backbone, and for each of its sampled settings the index of the value."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """The possible values of a sampled setting, by index."""

    count: int
    value: Callable[[int], Any]
    index: Callable[[Any], int | None]
    """None for a value that the setting cannot have."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A finite space; settings are in the order in which they are sampled, after the backbone."""

    axes: Mapping[str, Mapping[str, Axis]]
    """Backbone -> Optuna's name of a sampled parameter -> its values; fixed settings have no axis."""

    @property
    def size(self) -> int:
        """The number of configurations."""
        return sum(_product(axes) for axes in self.axes.values())

    def axis(self, name: str, params: Mapping[str, Any]) -> Axis:
        """The possible values of a parameter, given the parameters that were sampled before it."""
        return _listed(tuple(self.axes)) if name == BACKBONE else self.axes[self._backbone(params)][name]

    def configuration(self, params: Mapping[str, Any]) -> Configuration | None:
        """The configuration that these parameters are; None if one is missing or not in the space."""
        backbone = self._backbone(params)
        if backbone not in self.axes or (len(self.axes) > 1 and BACKBONE not in params):
            return None
        axes = self.axes[backbone]
        if not axes.keys() <= params.keys():
            params = _with_both_depths(params, backbone)
        indices = [axis.index(params[name]) for name, axis in axes.items() if name in params]
        known = [index for index in indices if index is not None]
        return (backbone, tuple(known)) if len(known) == len(axes) else None

    def untried(self, tried: Collection[Configuration], fixed: Mapping[str, Any]) -> int:
        """Number of configurations with some fixed parameters that are not in `tried`."""
        count = 0
        for backbone in self._backbones(fixed):
            places = self._places(backbone, fixed)
            own = sum(other == backbone and _agrees(indices, places) for other, indices in tried)
            count += self._combinations(backbone, places) - own
        return count

    def exhausted(
        self,
        name: str,
        params: Mapping[str, Any],
        tried: Collection[Configuration],
        *,
        fixed: Mapping[str, Any] | None = None,
    ) -> set[int]:
        """Indices of the values of a parameter that lead only to configurations in `tried`.

        Args:
            name: the parameter.
            params: the parameters that were sampled before it.
            tried: configurations.
            fixed: parameters whose values are known before they are sampled.
        """
        known = {**(fixed or {}), **params}
        if name == BACKBONE:
            left = (self.untried(tried, {**known, BACKBONE: backbone}) for backbone in self.axes)
            return {n for n, count in enumerate(left) if count <= 0}
        backbone = self._backbone(params)
        at = list(self.axes[backbone]).index(name)
        places = {place: index for place, index in self._places(backbone, known).items() if place != at}
        seen = Counter(
            indices[at] for other, indices in tried if other == backbone and _agrees(indices, places)
        )
        per_value = self._combinations(backbone, places) // self.axes[backbone][name].count
        return {index for index, count in seen.items() if count >= per_value}

    def _backbones(self, fixed: Mapping[str, Any]) -> list[str]:
        return [name for name in self.axes if fixed.get(BACKBONE, name) == name]

    def _places(self, backbone: str, params: Mapping[str, Any]) -> dict[int, int]:
        """Place of each of these parameters among the axes of a backbone -> index of its value."""
        indices = {
            place: axis.index(params[name])
            for place, (name, axis) in enumerate(self.axes[backbone].items())
            if name in params
        }
        return {place: index for place, index in indices.items() if index is not None}

    def _combinations(self, backbone: str, places: Collection[int]) -> int:
        """Number of configurations of a backbone in which the parameters at these places are known."""
        return math.prod(
            axis.count for place, axis in enumerate(self.axes[backbone].values()) if place not in places
        )

    def _backbone(self, params: Mapping[str, Any]) -> str:
        return str(params.get(BACKBONE, next(iter(self.axes))))


def grid(space: Space) -> Grid | None:
    """The configurations of a space; None if there are infinitely many."""
    if continuous(space):
        return None
    names = [name for name in Space.model_fields if name not in (BACKBONE, "frozen_blocks")]
    common = {name: _axis(value) for name in names if _is_sampled(value := getattr(space, name))}
    return Grid(
        axes={
            backbone: common | _depth(backbone, space.frozen_blocks) for backbone in choices(space.backbone)
        }
    )


def continuous(space: Space) -> str | None:
    """The first setting with a continuous range; None if the space is finite."""
    values = {name: getattr(space, name) for name in Space.model_fields}
    return next((k for k, v in values.items() if isinstance(v, FloatRange) and v.step is None), None)


def _is_sampled(value: Any) -> bool:
    return isinstance(value, tuple | FloatRange | IntRange | DepthRange)


def _depth(backbone: str, value: Any) -> dict[str, Axis]:
    """The axis of a backbone's frozen depth, if it is sampled."""
    if not _is_sampled(value):
        return {}
    n_blocks = len(block_names(backbone))
    if is_share(value):
        return {FROZEN_SHARE: _shares(n_blocks)}
    if isinstance(value, DepthRange):
        value = IntRange(low=value.low, high=value.deepest(n_blocks))
    return {depth_parameter(backbone): _axis(value)}


def _with_both_depths(params: Mapping[str, Any], backbone: str) -> Mapping[str, Any]:
    """Parameters with the frozen depth under either name: trials before `space` was edited may have the other one."""
    if (depth := depth_in(params, backbone)) is None:
        return params
    share = share_of(depth, len(block_names(backbone)))
    return {**params, depth_parameter(backbone): depth, FROZEN_SHARE: share}


def _axis(value: Any) -> Axis:
    if isinstance(value, IntRange):
        return _whole_steps(range(value.low, value.high + 1, value.step))
    if isinstance(value, FloatRange):
        return _decimal_steps(*(Fraction(str(end)) for end in (value.low, value.high, value.step)))
    return _listed(value)


def _listed(values: tuple[Any, ...]) -> Axis:
    """Values of a list; one that is listed twice counts once."""
    distinct = list(dict.fromkeys(values))
    indices = {value: index for index, value in enumerate(distinct)}
    return Axis(count=len(distinct), value=distinct.__getitem__, index=indices.get)


def _shares(n_blocks: int) -> Axis:
    """Shares by the frozen depth that they mean."""

    def index(share: float) -> int | None:
        return blocks_of(share, n_blocks) if 0 <= share <= 1 else None

    return Axis(count=n_blocks + 1, value=lambda depth: share_of(depth, n_blocks), index=index)


def _whole_steps(values: range) -> Axis:
    def index(value: Any) -> int | None:
        return values.index(value) if value in values else None

    return Axis(count=len(values), value=values.__getitem__, index=index)


def _decimal_steps(low: Fraction, high: Fraction, step: Fraction) -> Axis:
    """Steps in decimal arithmetic, as Optuna computes them: 3 * 0.1 is 0.3."""
    count = int((high - low) // step) + 1

    def index(value: Any) -> int | None:
        nearest = round((Fraction(str(value)) - low) / step)
        return nearest if 0 <= nearest < count else None

    return Axis(count=count, value=lambda index: float(low + index * step), index=index)


def _agrees(indices: Sequence[int], places: Mapping[int, int]) -> bool:
    """Whether a configuration has these values."""
    return all(indices[place] == index for place, index in places.items())


def _product(axes: Mapping[str, Axis]) -> int:
    return math.prod(axis.count for axis in axes.values())
