"""Draws a recipe from an Optuna trial."""

from typing import Any

from optuna.trial import BaseTrial

from genre_core.models.registry import block_names
from genre_core.recipe import Recipe
from search.config.schema import SearchConfig
from search.config.space import DepthRange, FloatRange, IntRange
from search.study.study import REPEAT


def sample(trial: BaseTrial, config: SearchConfig) -> Recipe:
    """Draw a recipe, or what was drawn; the frozen depth's range is that of the backbone drawn first."""
    space = config.space
    backbone = draw(trial, "backbone", space.backbone)
    values = {
        name: draw(trial, name, getattr(space, name))
        for name in type(space).model_fields
        if name not in ("backbone", "frozen_blocks")
    }
    return Recipe(
        backbone=backbone,
        weights=config.weights_of(backbone),
        frozen_blocks=draw_depth(trial, backbone, space.frozen_blocks),
        precision="float32" if config.precision == "auto" else config.precision,
        seed=config.seed + trial.user_attrs.get(REPEAT, 0),
        **config.training.model_dump(),
        **values,
    )


def draw(trial: BaseTrial, name: str, value: Any) -> Any:
    """A fixed value as it is; one of a choice or a range as Optuna suggests."""
    if isinstance(value, FloatRange):
        return trial.suggest_float(name, value.low, value.high, log=value.log, step=value.step)
    if isinstance(value, IntRange):
        return trial.suggest_int(name, value.low, value.high, log=value.log, step=value.step)
    if isinstance(value, tuple):
        return trial.suggest_categorical(name, value)
    return value


def draw_depth(trial: BaseTrial, backbone: str, value: int | tuple[int, ...] | DepthRange) -> int:
    """Each backbone's depth is a parameter of its own, for the ranges differ."""
    name = f"frozen_blocks_{backbone}"
    if isinstance(value, DepthRange):
        n_blocks = len(block_names(backbone))
        return trial.suggest_int(name, value.low, n_blocks if value.high == "all" else value.high)
    depth: int = draw(trial, name, value)
    return depth
