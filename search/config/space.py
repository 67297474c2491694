"""The search space: each hyperparameter is a fixed value, a list of choices, or a range."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from genre_core.errors import InputError
from genre_core.models.registry import block_names
from genre_core.recipe import SGD, Recipe
from search.config.settings import Keyed, Number, Scalar, Sequence, Settings, Word, by_shape, number_or
from search.errors import SearchErrorCode

FROZEN_SHARE = "frozen_share"
"""Optuna's name for the frozen depth as a share of the blocks, one parameter for all backbones."""


def choices(value: Any) -> tuple[Any, ...]:
    """The possible values of a setting that is fixed or a list."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


class FloatRange(Settings):
    """Any number from low to high."""

    low: float
    """Lowest value."""
    high: float
    """Highest value."""
    log: bool = False
    """Sample uniformly in the logarithm."""
    step: float | None = Field(default=None, gt=0)
    """Distance of the possible values; by default the range is continuous."""


class IntRange(Settings):
    """Any integer from low to high."""

    low: int
    """Lowest value."""
    high: int
    """Highest value."""
    log: bool = False
    """Sample uniformly in the logarithm."""
    step: int = Field(default=1, ge=1)
    """Distance of the possible values."""


class DepthRange(Settings):
    """Number of leading blocks to freeze; `all` is the number of blocks of the sampled backbone."""

    low: int = Field(default=0, ge=0)
    """Lowest depth; 0 trains all blocks."""
    high: Annotated[Annotated[int, Number] | Annotated[Literal["all"], Word], number_or("all")] = "all"
    """Highest depth; `all` trains only the new head."""
    as_share: bool = True
    """Sample the whole depth, from 0 to all, as one parameter for all backbones instead of one for each. Runs that do
    not name it are older than this setting: false."""

    def deepest(self, n_blocks: int) -> int:
        """The highest depth for a backbone with so many blocks."""
        return n_blocks if self.high == "all" else self.high


_any_shape, _no_range = by_shape(), by_shape("must be a value or a list")
_AtLeastOne = Field(min_length=1)

FloatValue = Annotated[
    Annotated[float, Scalar]
    | Annotated[tuple[float, ...], _AtLeastOne, Sequence]
    | Annotated[FloatRange, Keyed],
    _any_shape,
]
IntValue = Annotated[
    Annotated[int, Scalar] | Annotated[tuple[int, ...], _AtLeastOne, Sequence] | Annotated[IntRange, Keyed],
    _any_shape,
]
DepthValue = Annotated[
    Annotated[int, Scalar] | Annotated[tuple[int, ...], _AtLeastOne, Sequence] | Annotated[DepthRange, Keyed],
    _any_shape,
]
BoolValue = Annotated[Annotated[bool, Scalar] | Annotated[tuple[bool, ...], _AtLeastOne, Sequence], _no_range]
OptimizerValue = Annotated[
    Annotated[Literal["sgd", "adamw"], Scalar]
    | Annotated[tuple[Literal["sgd", "adamw"], ...], _AtLeastOne, Sequence],
    _no_range,
]
NameValue = Annotated[Annotated[str, Scalar] | Annotated[tuple[str, ...], _AtLeastOne, Sequence], _no_range]


class Space(Settings):
    """The values of each trial: a single value is fixed, a list is a choice, {low, high} is a range."""

    backbone: NameValue = ("alexnet", "densenet121", "resnet18", "resnet34", "vgg16")
    """ImageNet networks: alexnet, densenet121, resnet18, resnet34, vgg11, vgg13, vgg16, vgg19, and the latter four with
    `_bn`."""
    learning_rate: FloatValue = FloatRange(low=1e-4, high=1e-1, log=True)
    momentum: FloatValue = FloatRange(low=0.5, high=0.99)
    frozen_blocks: DepthValue = DepthRange()
    optimizer: OptimizerValue = SGD
    nesterov: BoolValue = Recipe.nesterov
    weight_decay: FloatValue = Recipe.weight_decay
    head_lr_ratio: FloatValue = Recipe.head_lr_ratio
    batch_size: IntValue = Recipe.batch_size
    label_smoothing: FloatValue = Recipe.label_smoothing
    mixup: FloatValue = Recipe.mixup
    masking: FloatValue = Recipe.masking


def depth_parameter(backbone: str) -> str:
    """Optuna's name for the frozen depth of a backbone, if the depth is not sampled as FROZEN_SHARE."""
    return f"frozen_blocks_{backbone}"


def blocks_of(share: float, n_blocks: int) -> int:
    """The frozen depth, in blocks, that a share in [0, 1] means; equal parts of [0, 1] belong to the depths.

    So every depth of a backbone is equally likely if the share is uniform, whatever its number of blocks.
    """
    return min(n_blocks, math.floor(share * (n_blocks + 1)))


def share_of(blocks: int, n_blocks: int) -> float:
    """The share that stands for a frozen depth: the middle of those that `blocks_of` turns into it."""
    return (blocks + 0.5) / (n_blocks + 1)


def depth_in(params: Mapping[str, Any], backbone: str) -> int | None:
    """The frozen depth, in blocks, that parameters of a study mean for a backbone; None if they have none."""
    if (name := depth_parameter(backbone)) in params:
        return int(params[name])
    return blocks_of(params[FROZEN_SHARE], len(block_names(backbone))) if FROZEN_SHARE in params else None


def is_share(depth: Any) -> bool:
    """Whether this value of `frozen_blocks` is sampled as FROZEN_SHARE.

    A bounded range is not: its bounds are numbers of blocks, which are another share of each backbone.
    """
    return isinstance(depth, DepthRange) and depth.as_share and (depth.low, depth.high) == (0, "all")


def is_conditional(space: Space) -> bool:
    """Whether the parameters that are sampled depend on the backbone."""
    sampled = isinstance(space.frozen_blocks, tuple | DepthRange)
    return len(set(choices(space.backbone))) > 1 and sampled and not is_share(space.frozen_blocks)


def ends(name: str, value: Any) -> tuple[Any, ...]:
    """The extreme values of a setting, the lowest first.

    Raises:
        InputError: a range is empty, or its options contradict each other.
    """
    if not isinstance(value, FloatRange | IntRange | DepthRange):
        return tuple(sorted(choices(value)))
    if value.high != "all" and value.low >= value.high:
        raise InputError(
            f"space.{name}: low must be less than high, but got low={value.low}, high={value.high}",
            code=SearchErrorCode.RANGE_INVALID,
        )
    if getattr(value, "log", False) and value.low <= 0:
        raise InputError(
            f"space.{name}: low must be above 0 with log: true, but got low={value.low}",
            code=SearchErrorCode.RANGE_INVALID,
        )
    if getattr(value, "log", False) and getattr(value, "step", None) not in (None, 1):
        raise InputError(
            f"space.{name}: step and log: true exclude each other; drop one of them",
            code=SearchErrorCode.RANGE_INVALID,
        )
    if not isinstance(value, DepthRange) and value.step and value.step > value.high - value.low:
        raise InputError(
            f"space.{name}: step must be at most high - low, but got low={value.low}, high={value.high}, "
            f"step={value.step}",
            code=SearchErrorCode.RANGE_INVALID,
        )
    return value.low, value.high
