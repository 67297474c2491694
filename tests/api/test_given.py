"""Settings as keyword arguments mean what they mean on the command line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import refused

from search.api.given import by_dotted_key
from search.config.schema import load
from search.errors import SearchErrorCode

EQUAL: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"trials": 7}, {"trials": 7}),
    ({"space": {"momentum": 0.9}}, {"space.momentum": 0.9}),
    ({"space": {"backbone": ("alexnet", "vgg16")}}, {"space.backbone": ["alexnet", "vgg16"]}),
    (
        {"space": {"learning_rate": {"low": 1e-3, "high": 1e-1, "log": True}}},
        {"space.learning_rate": {"low": 1e-3, "high": 1e-1, "log": True}},
    ),
    ({"space": {"momentum": list(np.linspace(0.5, 0.9, 3))}}, {"space.momentum": [0.5, 0.7, 0.9]}),
    ({"space": {"batch_size": np.int64(16)}}, {"space.batch_size": 16}),
    ({"training": {"epochs": 3}, "space.momentum": 0.5}, {"training.epochs": 3, "space.momentum": 0.5}),
    ({"data": Path("/music"), "pruner": "none"}, {"data": "/music", "pruner": "none"}),
    ({"weights": {"resnet18": Path("/weights.pt")}}, {"weights": {"resnet18": "/weights.pt"}}),
]


@pytest.mark.parametrize(("keywords", "overrides"), EQUAL)
def test_keywords_are_the_settings_of_the_same_name(
    keywords: dict[str, Any], overrides: dict[str, Any]
) -> None:
    assert load(None, by_dotted_key(keywords)) == load(None, overrides)


@pytest.mark.parametrize(
    ("keywords", "values"),
    [
        ({"trails": 5}, ["trails", "trials"]),
        ({"space": {"lr": 0.1}}, ["space.lr", "space.learning_rate"]),
        ({"epochs": 5}, ["epochs", "training.epochs"]),
    ],
)
def test_an_unknown_keyword_is_a_mistake_with_a_suggestion(
    keywords: dict[str, Any], values: list[str]
) -> None:
    with refused(SearchErrorCode.SETTING_UNKNOWN, *values):
        load(None, by_dotted_key(keywords))
