"""The configurations of a finite search space: how many there are, and which one some values are."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from genre_core.models.registry import block_names
from search.config.space import DepthRange, FloatRange, IntRange, Space, choices

BACKBONE = "backbone"
Configuration = tuple[str, tuple[int, ...]]
"""A backbone, and for each of its sampled settings the place of the value among those that it may have."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """The values that a sampled setting may have, by place from 0 on."""

    count: int
    value: Callable[[int], Any]
    place: Callable[[Any], int | None]
    """None where the setting has no such value."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A finite space. Settings are in the order in which they are sampled, the backbone before all others."""

    axes: Mapping[str, Mapping[str, Axis]]
    """Backbone -> name of Optuna's parameter -> its values, without the fixed ones."""

    @property
    def size(self) -> int:
        """How many configurations there are."""
        return sum(_product(axes) for axes in self.axes.values())

    def axis(self, name: str, params: Mapping[str, Any]) -> Axis:
        """The values that a parameter may have after these, which were sampled before it."""
        return _listed(tuple(self.axes)) if name == BACKBONE else self.axes[self._backbone(params)][name]

    def configuration(self, params: Mapping[str, Any]) -> Configuration | None:
        """What these values are; None where a value is missing, or is none of the space's."""
        backbone = self._backbone(params)
        if backbone not in self.axes or (len(self.axes) > 1 and BACKBONE not in params):
            return None
        axes = self.axes[backbone]
        places = [axis.place(params[name]) for name, axis in axes.items() if name in params]
        known = [place for place in places if place is not None]
        return (backbone, tuple(known)) if len(known) == len(axes) else None

    def used_up(self, name: str, params: Mapping[str, Any], tried: Collection[Configuration]) -> set[int]:
        """Places of a parameter's values with which, after these params, all configurations were tried."""
        if name == BACKBONE:
            counts = Counter(backbone for backbone, _ in tried)
            return {n for n, (name, axes) in enumerate(self.axes.items()) if counts[name] >= _product(axes)}
        backbone = self._backbone(params)
        axes = self.axes[backbone]
        names = list(axes)
        at = names.index(name)
        before = tuple(axes[earlier].place(params[earlier]) for earlier in names[:at])
        seen = Counter(places[at] for other, places in tried if other == backbone and places[:at] == before)
        below = _product({later: axes[later] for later in names[at + 1 :]})
        return {place for place, count in seen.items() if count >= below}

    def _backbone(self, params: Mapping[str, Any]) -> str:
        return str(params.get(BACKBONE, next(iter(self.axes))))


def grid(space: Space) -> Grid | None:
    """The space's configurations; None where there is no end of them."""
    if endless(space):
        return None
    names = [name for name in Space.model_fields if name not in (BACKBONE, "frozen_blocks")]
    common = {name: _axis(value) for name in names if _is_sampled(value := getattr(space, name))}
    return Grid(
        axes={
            backbone: common | _depth(backbone, space.frozen_blocks) for backbone in choices(space.backbone)
        }
    )


def endless(space: Space) -> str | None:
    """The first setting that may have any number between two; None where the space is finite."""
    values = {name: getattr(space, name) for name in Space.model_fields}
    return next((k for k, v in values.items() if isinstance(v, FloatRange) and v.step is None), None)


def _is_sampled(value: Any) -> bool:
    return isinstance(value, tuple | FloatRange | IntRange | DepthRange)


def _depth(backbone: str, value: Any) -> dict[str, Axis]:
    """The axis of a backbone's frozen depth, under the name that Optuna has for it."""
    if not _is_sampled(value):
        return {}
    if isinstance(value, DepthRange):
        high = len(block_names(backbone)) if value.high == "all" else value.high
        value = IntRange(low=value.low, high=high)
    return {f"frozen_blocks_{backbone}": _axis(value)}


def _axis(value: Any) -> Axis:
    if isinstance(value, IntRange):
        return _stepped(range(value.low, value.high + 1, value.step))
    if isinstance(value, FloatRange):
        return _spaced(Fraction(str(value.low)), Fraction(str(value.high)), Fraction(str(value.step)))
    return _listed(value)


def _listed(values: tuple[Any, ...]) -> Axis:
    """A value that is listed twice is one."""
    distinct = list(dict.fromkeys(values))
    places = {value: place for place, value in enumerate(distinct)}
    return Axis(count=len(distinct), value=distinct.__getitem__, place=places.get)


def _stepped(values: range) -> Axis:
    def place(value: Any) -> int | None:
        return values.index(value) if value in values else None

    return Axis(count=len(values), value=values.__getitem__, place=place)


def _spaced(low: Fraction, high: Fraction, step: Fraction) -> Axis:
    """Decimal fractions, as Optuna takes them: 0.1 * 3 is 0.3."""
    count = int((high - low) // step) + 1

    def place(value: Any) -> int | None:
        nearest = round((Fraction(str(value)) - low) / step)
        return nearest if 0 <= nearest < count else None

    return Axis(count=count, value=lambda place: float(low + place * step), place=place)


def _product(axes: Mapping[str, Axis]) -> int:
    return math.prod(axis.count for axis in axes.values())
