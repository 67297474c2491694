"""The policy of a cost-aware search for the search space of its configuration."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution

from genre_core.recipe import ADAMW, SGD
from search.config.schema import SearchConfig
from search.config.space import Space, depth_in, ends
from search.cost_aware.cost import Cost
from search.cost_aware.policy import FreezeThaw
from search.cost_aware.space import Configuration, Draw, draw_from
from search.study.suggest import fixed_trial, sample

BACKBONE = "backbone"
SMALLEST_FRICTION = 1e-6
"""Lower limit of 1 - momentum, for a momentum that is practically 1."""


def make_policy(
    config: SearchConfig,
    *,
    cost_of: Callable[[str, int], Cost],
    progress: Callable[[], float] | None,
    asked: int,
) -> FreezeThaw:
    """The policy of a search.

    Args:
        config: the configuration of the search.
        cost_of: the cost of a trial with a backbone and a frozen depth.
        progress: the spent share of the search's budget, from 0 to 1; None without a budget.
        asked: number of trials that the study already has. It changes the seed, since the same seed would draw the
            same configurations again.
    """

    def cost_of_parameters(params: Mapping[str, Any]) -> Cost:
        backbone = params.get(BACKBONE, config.backbones[0])
        sampled, fixed = depth_in(params, backbone), config.space.frozen_blocks
        depth = fixed if isinstance(fixed, int) else sampled
        assert depth is not None, "a depth that is not fixed is a parameter"
        return cost_of(backbone, depth)

    optimizer = config.space.optimizer
    return FreezeThaw(
        draw=draw_of(config),
        cost_of=cost_of_parameters,
        max_epochs=config.training.epochs,
        arm=BACKBONE,
        derived=lambda params: step_size(params, optimizer=optimizer if isinstance(optimizer, str) else SGD),
        progress=progress,
        stop_when_flat=config.stop_when_flat,
        seed=int(np.random.SeedSequence([config.seed, asked]).generate_state(1)[0]),
    )


def step_size(params: Mapping[str, Any], *, optimizer: str = SGD) -> dict[str, float]:
    """The logarithm of the effective learning rate, as far as it is sampled.

    It is lr / (1 - momentum) for SGD, and lr for AdamW, whose moment is a mean rather than a sum of gradients.

    Args:
        params: the parameters of a trial.
        optimizer: the optimizer if it is not sampled.
    """
    rate, momentum = params.get("learning_rate", 1.0), params.get("momentum", 0.0)
    if params.get("optimizer", optimizer) == ADAMW:
        return {"step_size": math.log(rate)}
    return {"step_size": math.log(rate) - math.log(max(1 - momentum, SMALLEST_FRICTION))}


def draw_of(config: SearchConfig) -> Draw:
    """Draws configurations of the search space: a backbone, then its other parameters."""
    spaces = {backbone: distributions_of(config, backbone) for backbone in config.backbones}
    others = {
        backbone: draw_from({name: one for name, one in space.items() if name != BACKBONE})
        for backbone, space in spaces.items()
    }
    names = list(spaces)

    def draw(random: np.random.Generator) -> Configuration:
        backbone = names[random.integers(len(names))]
        chosen = {BACKBONE: backbone} if BACKBONE in spaces[backbone] else {}
        return Configuration({**chosen, **others[backbone](random).params}, spaces[backbone])

    return draw


def distributions_of(config: SearchConfig, backbone: str) -> dict[str, BaseDistribution]:
    """The distributions of all parameters that are sampled for a backbone."""
    lowest = {name: ends(name, getattr(config.space, name))[0] for name in Space.model_fields}
    trial = fixed_trial(lowest | {BACKBONE: backbone})
    sample(trial, config)
    return trial.distributions
