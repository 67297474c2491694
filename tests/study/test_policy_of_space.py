"""The policy of a cost-aware search as its configuration defines it."""

import math
from typing import Any

import numpy as np
import pytest

from search.config.schema import load
from search.cost_aware.cost import Cost
from search.study.policy import draw_of, make_policy, step_size


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"learning_rate": 0.01, "momentum": 0.9}, math.log(0.1)),
        ({"learning_rate": 0.01}, math.log(0.01)),
        ({"momentum": 0.5}, math.log(2)),
        ({}, 0.0),
    ],
    ids=["both", "momentum-fixed", "rate-fixed", "both-fixed"],
)
def test_the_step_size_is_the_learning_rate_over_the_friction(
    params: dict[str, float], expected: float
) -> None:
    assert step_size(params)["step_size"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("params", "fixed", "expected"),
    [
        ({"learning_rate": 0.01, "momentum": 0.9}, "adamw", math.log(0.01)),
        ({"learning_rate": 0.01, "momentum": 0.9, "optimizer": "adamw"}, "sgd", math.log(0.01)),
        ({"learning_rate": 0.01, "momentum": 0.9, "optimizer": "sgd"}, "sgd", math.log(0.1)),
    ],
    ids=["fixed", "sampled", "sampled-sgd"],
)
def test_the_step_size_of_adamw_is_its_learning_rate(
    params: dict[str, Any], fixed: str, expected: float
) -> None:
    assert step_size(params, optimizer=fixed)["step_size"] == pytest.approx(expected)


def test_a_policy_knows_a_fixed_optimizer_and_draws_a_searched_one() -> None:
    def cost_of(backbone: str, depth: int) -> Cost:
        return Cost(start=0.0, epoch=1.0, switch=0.0)

    codes = {}
    for optimizer in ("sgd", "adamw"):
        config = load(None, {"space.backbone": "resnet18", "space.optimizer": optimizer})
        policy = make_policy(config, cost_of=cost_of, progress=None, asked=0)
        assert policy._derived is not None
        codes[optimizer] = policy._derived({"learning_rate": 0.01, "momentum": 0.9})["step_size"]
    assert codes["sgd"] - codes["adamw"] == pytest.approx(math.log(10))
    config = load(None, {"space.optimizer": ["sgd", "adamw"]})
    random = np.random.default_rng(0)
    assert {draw_of(config)(random).params["optimizer"] for _ in range(20)} == {"sgd", "adamw"}


def test_a_drawn_configuration_is_one_of_the_space() -> None:
    config = load(
        None, {"space.backbone": ["resnet18", "vgg16"], "space.frozen_blocks": {"low": 1, "high": 3}}
    )
    random = np.random.default_rng(0)
    for _ in range(50):
        params = draw_of(config)(random).params
        assert 1 <= params[f"frozen_blocks_{params['backbone']}"] <= 3
        assert {"learning_rate", "momentum"} < params.keys()


def test_costs_are_asked_for_by_backbone_and_depth_sampled_or_fixed() -> None:
    asked = []

    def cost_of(backbone: str, depth: int) -> Cost:
        asked.append((backbone, depth))
        return Cost(start=0.0, epoch=1.0, switch=0.0)

    for depth in (2, {"low": 0, "high": "all"}):
        config = load(None, {"space.backbone": "resnet18", "space.frozen_blocks": depth})
        policy = make_policy(config, cost_of=cost_of, progress=None, asked=0)
        policy._cost_of({"learning_rate": 0.1, "frozen_share": 0.5} if asked else {"learning_rate": 0.1})
    assert asked == [("resnet18", 2), ("resnet18", 3)]
