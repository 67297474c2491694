"""The space that a search samples: each hyperparameter is one fixed value, a choice, or a range."""

import math
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidatorFunctionWrapHandler,
    field_validator,
)

from genre_core.errors import InputError

LARGEST = 2**32 - 1
"""A whole number beyond this is a slip; every seed, count and size that torch, numpy and Optuna take is within."""


def choices(value: Any) -> tuple[Any, ...]:
    """The values that a fixed value or a choice may take."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _values(given: object, taken: object) -> list[tuple[object, object]]:
    """Each value as it was given and as it was taken."""
    if isinstance(given, Mapping) and is_dataclass(taken):
        return [(was, getattr(taken, name)) for name, was in given.items()]
    return list(zip(choices(given), choices(taken), strict=False))


class Settings(BaseModel):
    """Unknown keys are errors, numbers are finite, and nothing changes after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="wrap")
    @classmethod
    def _numbers_are_numbers(cls, given: object, take: ValidatorFunctionWrapHandler) -> object:
        """Python takes true for 1, and whole numbers of any size."""
        taken = take(given)
        for was, now in _values(given, taken):
            if isinstance(was, bool) and not isinstance(now, bool | None):
                raise ValueError(f"must be a number, but got {str(was).lower()}")
            if isinstance(now, int) and abs(now) > LARGEST:
                raise ValueError(f"must be at most {LARGEST}, but got about 1e{math.log10(abs(now)):.0f}")
        return taken


class FloatRange(Settings):
    """Any number from low to high."""

    low: float
    high: float
    log: bool = False
    """Sample the logarithm evenly."""
    step: float | None = Field(default=None, gt=0)


class IntRange(Settings):
    """Any whole number from low to high."""

    low: int
    high: int
    log: bool = False
    step: int = Field(default=1, ge=1)


class DepthRange(Settings):
    """How many leading blocks to freeze; `all` is as many as the drawn backbone has."""

    low: int = Field(default=0, ge=0)
    high: int | Literal["all"] = "all"


def _kind(value: object) -> str:
    if isinstance(value, Mapping | BaseModel):
        return "range"
    return "choices" if isinstance(value, list | tuple) else "fixed"


_Fixed, _Choices, _Range = Tag("fixed"), Tag("choices"), Tag("range")
_by_kind = Discriminator(_kind)
_AtLeastOne = Field(min_length=1)

FloatValue = Annotated[
    Annotated[float, _Fixed]
    | Annotated[tuple[float, ...], _AtLeastOne, _Choices]
    | Annotated[FloatRange, _Range],
    _by_kind,
]
IntValue = Annotated[
    Annotated[int, _Fixed] | Annotated[tuple[int, ...], _AtLeastOne, _Choices] | Annotated[IntRange, _Range],
    _by_kind,
]
DepthValue = Annotated[
    Annotated[int, _Fixed]
    | Annotated[tuple[int, ...], _AtLeastOne, _Choices]
    | Annotated[DepthRange, _Range],
    _by_kind,
]
BoolValue = Annotated[Annotated[bool, _Fixed] | Annotated[tuple[bool, ...], _AtLeastOne, _Choices], _by_kind]
NameValue = Annotated[Annotated[str, _Fixed] | Annotated[tuple[str, ...], _AtLeastOne, _Choices], _by_kind]


class Space(Settings):
    """What is sampled for each trial. One value is fixed, a list is a choice, {low, high} a range."""

    backbone: NameValue = ("alexnet", "densenet121", "resnet18", "resnet34", "vgg16")
    learning_rate: FloatValue = FloatRange(low=1e-4, high=1e-1, log=True)
    momentum: FloatValue = FloatRange(low=0.5, high=0.99)
    frozen_blocks: DepthValue = DepthRange()
    nesterov: BoolValue = False
    weight_decay: FloatValue = 0.0
    head_lr_ratio: FloatValue = 1.0
    batch_size: IntValue = 32
    label_smoothing: FloatValue = 0.0
    mixup: FloatValue = 0.0
    masking: FloatValue = 0.0


def ends(name: str, value: Any) -> tuple[Any, ...]:
    """The values that a setting takes at its extremes, the lowest first.

    Raises:
        InputError: a range is empty or turned around.
    """
    if not isinstance(value, FloatRange | IntRange | DepthRange):
        return tuple(sorted(choices(value)))
    if value.high != "all" and value.low >= value.high:
        raise InputError(
            f"space.{name}: low must be less than high, but got low={value.low}, high={value.high}"
        )
    if getattr(value, "log", False) and value.low <= 0:
        raise InputError(f"space.{name}: low must be above 0 with log: true, but got low={value.low}")
    if getattr(value, "log", False) and getattr(value, "step", None) not in (None, 1):
        raise InputError(f"space.{name}: step and log: true exclude each other; drop one of them")
    if not isinstance(value, DepthRange) and value.step and value.step > value.high - value.low:
        raise InputError(
            f"space.{name}: step must be at most high - low, but got low={value.low}, high={value.high}, "
            f"step={value.step}"
        )
    return value.low, value.high
