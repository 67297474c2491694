"""Samples the recipe of a trial from the search space."""

from collections.abc import Mapping
from typing import Any

from optuna.trial import BaseTrial, FixedTrial

from genre_core.models.registry import block_names
from genre_core.recipe import Recipe
from search.config.schema import SearchConfig
from search.config.space import DepthRange, FloatRange, IntRange, depth_parameter
from search.study.study import REPEAT


def sample(trial: BaseTrial, config: SearchConfig) -> Recipe:
    """Sample the recipe of a trial, or read it back if it was sampled before.

    The backbone is sampled first, since the range of the frozen depth depends on it.
    """
    space = config.space
    backbone = suggest(trial, "backbone", space.backbone)
    values = {
        name: suggest(trial, name, getattr(space, name))
        for name in type(space).model_fields
        if name not in ("backbone", "frozen_blocks")
    }
    return Recipe(
        backbone=backbone,
        weights=config.weights_of(backbone),
        frozen_blocks=suggest_depth(trial, backbone, space.frozen_blocks),
        precision="float32" if config.precision == "auto" else config.precision,
        seed=config.seed + trial.user_attrs.get(REPEAT, 0),
        **config.training.model_dump(),
        **values,
    )


def suggest(trial: BaseTrial, name: str, value: Any) -> Any:
    """Suggest one value of a list or a range; a fixed value is returned as it is."""
    if isinstance(value, FloatRange):
        return trial.suggest_float(name, value.low, value.high, log=value.log, step=value.step)
    if isinstance(value, IntRange):
        return trial.suggest_int(name, value.low, value.high, log=value.log, step=value.step)
    if isinstance(value, tuple):
        return trial.suggest_categorical(name, value)
    return value


def suggest_depth(trial: BaseTrial, backbone: str, value: int | tuple[int, ...] | DepthRange) -> int:
    """Suggest a frozen depth; a parameter per backbone, because the ranges differ."""
    name = depth_parameter(backbone)
    if isinstance(value, DepthRange):
        n_blocks = len(block_names(backbone))
        return trial.suggest_int(name, value.low, n_blocks if value.high == "all" else value.high)
    depth: int = suggest(trial, name, value)
    return depth


def fixed_trial(settings: Mapping[str, Any]) -> FixedTrial:
    """A trial that suggests these settings, which are a value for each field of Space."""
    return FixedTrial({**settings, depth_parameter(settings["backbone"]): settings["frozen_blocks"]})
