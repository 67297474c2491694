"""Samples the recipe of a trial from the search space."""

from collections.abc import Mapping
from typing import Any

from optuna.trial import BaseTrial, FixedTrial

from genre_core.models.registry import block_names
from genre_core.recipe import Recipe
from search.config.schema import SearchConfig
from search.config.space import (
    FROZEN_SHARE,
    DepthRange,
    FloatRange,
    IntRange,
    blocks_of,
    depth_parameter,
    is_share,
    share_of,
)
from search.study.study import REPEAT


def sample(trial: BaseTrial, config: SearchConfig) -> Recipe:
    """Sample the recipe of a trial, or read it back if it was sampled before.

    The backbone is sampled first, since the frozen depth depends on it.
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
    """Suggest a frozen depth: as a share for all backbones if any depth is possible, else in blocks of this backbone.

    The share is sampled from the same range whatever the backbone, so that every sampler can model it together with the
    other parameters. A trial that has a depth in blocks keeps it.
    """
    name, n_blocks = depth_parameter(backbone), len(block_names(backbone))
    if is_share(value) and name not in trial.params:
        return blocks_of(trial.suggest_float(FROZEN_SHARE, 0.0, 1.0), n_blocks)
    if isinstance(value, DepthRange):
        return trial.suggest_int(name, value.low, value.deepest(n_blocks))
    depth: int = suggest(trial, name, value)
    return depth


def fixed_trial(settings: Mapping[str, Any], *, share: float | None = None) -> FixedTrial:
    """A trial that suggests these settings.

    Args:
        settings: a value for each field of Space.
        share: the value of FROZEN_SHARE if it is known; by default the one that stands for the frozen depth.
    """
    backbone, depth = settings["backbone"], settings["frozen_blocks"]
    if share is None:
        share = share_of(depth, len(block_names(backbone)))
    return FixedTrial({**settings, depth_parameter(backbone): depth, FROZEN_SHARE: share})
