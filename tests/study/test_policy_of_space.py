"""The policy of a cost-aware search as its configuration defines it."""

import math

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
