"""Configurations that a search tries first, and their validation against the search space."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from genre_core.errors import InputError
from genre_core.models.registry import block_names, full_name
from search.config.mistakes import ENQUEUE, shown
from search.config.settings import Number, Settings, Word, number_or
from search.config.space import (
    FROZEN_SHARE,
    DepthRange,
    FloatRange,
    IntRange,
    Space,
    choices,
    depth_parameter,
    is_share,
    share_of,
)
from search.errors import SearchErrorCode

ALL: Final = "all"
"""The frozen depth that trains only the new head."""
_STEP_ERROR: Final = 1e-6
"""In steps; a value that was printed and read again, or summed from steps, is this close to its step."""


class Enqueued(Settings):
    """A configuration to try first; the hyperparameters that it does not name are sampled."""

    backbone: str | None = None
    learning_rate: float | None = None
    momentum: float | None = None
    frozen_blocks: (
        Annotated[Annotated[int, Number] | Annotated[Literal["all"], Word], number_or(ALL)] | None
    ) = Field(default=None)
    """Number of leading blocks to freeze, or `all`."""
    optimizer: str | None = None
    nesterov: bool | None = None
    weight_decay: float | None = None
    head_lr_ratio: float | None = None
    batch_size: int | None = None
    label_smoothing: float | None = None
    mixup: float | None = None
    masking: float | None = None

    @property
    def given(self) -> dict[str, Any]:
        """The hyperparameters that it names."""
        return {name: value for name, value in self if value is not None}

    @model_validator(mode="before")
    @classmethod
    def _check_mapping(cls, given: object) -> object:
        if not isinstance(given, Mapping | Enqueued):
            raise ValueError(f"must be a mapping from hyperparameters to values, but got {shown(given)}")
        return given

    @model_validator(mode="after")
    def _check_not_empty(self) -> Self:
        if not self.given:
            raise ValueError("must name a hyperparameter, but got {}; leave it out")
        return self

    @model_serializer(mode="wrap")
    def _without_absent(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        named = self.given
        return {name: value for name, value in serialize(self).items() if name in named}


def _listed(given: object) -> object:
    if not isinstance(given, list | tuple):
        raise ValueError(f"must be a list of configurations, but got {shown(given)}")
    return given


Queue = Annotated[tuple[Enqueued, ...], BeforeValidator(_listed)]
"""The configurations to try first, in their order."""


def with_full_name(entry: Enqueued) -> Enqueued:
    """Replace the short name of a registered backbone."""
    return entry.model_copy(update={"backbone": full_name(entry.backbone)}) if entry.backbone else entry


def in_space(entries: Sequence[Enqueued], space: Space, *, seeds: int) -> tuple[Enqueued, ...]:
    """The configurations with their values exactly as the space has them.

    Args:
        entries: the configurations.
        space: the search space, which has been checked itself.
        seeds: number of seeds with which each configuration may be tried.

    Raises:
        InputError: a configuration is not in the space, or is listed more often than it can be tried.
    """
    found: list[Enqueued] = []
    for index, entry in enumerate(entries):
        values = {
            name: _value(index, name, value, getattr(space, name))
            for name, value in entry.given.items()
            if name != "frozen_blocks"
        }
        if entry.frozen_blocks is not None:
            _check_depth(index, entry, space)
        found.append(entry.model_copy(update=values))
        equal = [earlier for earlier in range(index) if found[earlier] == found[index]]
        if len(equal) >= seeds and _is_complete(entry, space):
            raise InputError(
                f"{ENQUEUE}[{index}] must differ from the configurations before it, but equals "
                f"{ENQUEUE}[{equal[0]}], {shown(entry.given)}; leave it out",
                code=SearchErrorCode.ENQUEUED_TWICE,
            )
    return tuple(found)


def optuna_parameters(entry: Enqueued, space: Space) -> dict[str, Any]:
    """A configuration by Optuna's names; the frozen depth has each of its names, whichever is sampled.

    So it keeps its meaning when another range in `space` changes the name of the depth.
    """
    found = entry.given
    if entry.frozen_blocks is None:
        return found
    del found["frozen_blocks"]
    depths = {backbone: _depth(entry.frozen_blocks, backbone) for backbone in _backbones(entry, space)}
    share = _share(entry.frozen_blocks, depths)
    by_backbone = {depth_parameter(backbone): depth for backbone, depth in depths.items()}
    return found | by_backbone | ({} if share is None else {FROZEN_SHARE: share})


def is_like(entry: Enqueued, settings: Mapping[str, Any], *, n_blocks: int) -> bool:
    """Whether the settings of a trial, by the names of the space, are those of a configuration.

    Args:
        entry: the configuration.
        settings: of the trial.
        n_blocks: number of blocks of the trial's backbone.
    """
    wanted = entry.given
    if entry.frozen_blocks == ALL:
        wanted["frozen_blocks"] = n_blocks
    return all(settings[name] == value for name, value in wanted.items())


def _backbones(entry: Enqueued, space: Space) -> tuple[str, ...]:
    """The backbones that a configuration may have."""
    return (entry.backbone,) if entry.backbone else tuple(dict.fromkeys(choices(space.backbone)))


def _depth(blocks: int | str, backbone: str) -> int:
    return len(block_names(backbone)) if blocks == ALL else int(blocks)


def _share(blocks: int | str, depths: Mapping[str, int]) -> float | None:
    """The share that means this depth for each of the backbones; None if it is another one for each."""
    if len(depths) == 1:
        [(backbone, depth)] = depths.items()
        return share_of(depth, len(block_names(backbone)))
    return {0: 0.0, ALL: 1.0}.get(blocks)


def _is_complete(entry: Enqueued, space: Space) -> bool:
    """Whether it names all hyperparameters that are sampled."""
    sampled = (name for name in Space.model_fields if len(_possible(getattr(space, name))) != 1)
    return set(sampled) <= entry.given.keys()


def _possible(value: Any) -> tuple[Any, ...]:
    """The values of a list, the ends of a range."""
    if isinstance(value, FloatRange | IntRange | DepthRange):
        return (value.low, value.high)
    return tuple(dict.fromkeys(choices(value)))


def _value(index: int, name: str, value: Any, own: Any) -> Any:
    """The value of one hyperparameter as the space has it."""
    if (found := _in_space(value, own)) is None:
        raise InputError(
            f"{ENQUEUE}[{index}].{name} must be in the search space, {_described(own)}, but got {name}={shown(value)}; "
            f"change it, or space.{name}",
            code=SearchErrorCode.ENQUEUED_OUTSIDE_SPACE,
        )
    return found


def _check_depth(index: int, entry: Enqueued, space: Space) -> None:
    """The frozen depth must be in the space, and in every backbone that it may be combined with."""
    blocks, backbones = entry.frozen_blocks, _backbones(entry, space)
    assert blocks is not None, "it is given"
    depths = {backbone: _depth(blocks, backbone) for backbone in backbones}
    for backbone, depth in depths.items():
        n_blocks = len(block_names(backbone))
        if not 0 <= depth <= n_blocks:
            way_out = "change it" if entry.backbone else "change it, or name the backbone"
            raise InputError(
                f"{ENQUEUE}[{index}].frozen_blocks must be in 0..{n_blocks} for {backbone}, but got "
                f"frozen_blocks={blocks}; {way_out}",
                code=SearchErrorCode.ENQUEUED_OUTSIDE_SPACE,
            )
        own: Any = space.frozen_blocks
        if isinstance(own, DepthRange):
            own = IntRange(low=own.low, high=own.deepest(n_blocks))
        _value(index, "frozen_blocks", depth, own)
    if is_share(space.frozen_blocks) and _share(blocks, depths) is None:
        raise InputError(
            f"{ENQUEUE}[{index}].frozen_blocks must come with a backbone, since backbones differ in their number of "
            f"blocks, but got frozen_blocks={blocks} alone; name the backbone, or use 0 or {ALL}",
            code=SearchErrorCode.ENQUEUED_OUTSIDE_SPACE,
        )


def _in_space(value: Any, own: Any) -> Any:
    """The value as the space has it, exactly on a step of its range; None if the space does not have it."""
    if isinstance(own, FloatRange | IntRange):
        return _on_step(value, own) if own.low <= value <= own.high else None
    return next((choice for choice in choices(own) if choice == value), None)


def _on_step(value: float, own: FloatRange | IntRange) -> float | None:
    if own.step is None or (isinstance(own, IntRange) and own.log):
        return value
    low, step = Fraction(str(own.low)), Fraction(str(own.step))
    steps = (Fraction(str(value)) - low) / step
    if abs(steps - round(steps)) > _STEP_ERROR:
        return None
    on_step = low + round(steps) * step
    return int(on_step) if isinstance(own, IntRange) else float(on_step)


def _described(own: Any) -> str:
    """The values of a setting in words."""
    if isinstance(own, FloatRange | IntRange):
        step = f" in steps of {own.step}" if own.step not in (None, 1) else ""
        return f"{own.low} to {own.high}{step}"
    return " or ".join(map(str, _possible(own)))
