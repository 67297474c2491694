"""Configurations to try first are in the search space, or are rejected in one line."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from refusals import refused

from genre_core.models.registry import block_names
from search.config.enqueued import Enqueued, optuna_parameters
from search.config.reference import commented_yaml, json_schema
from search.config.schema import load, to_yaml
from search.config.space import Space, blocks_of
from search.config.yaml_reader import parse_override
from search.errors import SearchErrorCode

UNKNOWN, INVALID = SearchErrorCode.SETTING_UNKNOWN, SearchErrorCode.SETTING_INVALID
OUTSIDE, TWICE = SearchErrorCode.ENQUEUED_OUTSIDE_SPACE, SearchErrorCode.ENQUEUED_TWICE

GOOD: dict[str, Any] = {"backbone": "resnet18", "learning_rate": 0.01, "momentum": 0.9, "frozen_blocks": 3}
FINITE: dict[str, Any] = {
    "space.backbone": ["resnet18", "vgg16"],
    "space.learning_rate": [0.001, 0.01],
    "space.momentum": {"low": 0.1, "high": 0.9, "step": 0.1},
    "space.frozen_blocks": [0, 3],
}
COMPLETE: dict[str, Any] = GOOD | {"learning_rate": 0.001}

MISTAKES: list[tuple[SearchErrorCode, dict[str, Any], list[dict[str, Any]], list[str]]] = [
    (UNKNOWN, {}, [GOOD, {"lr": 0.1}], ["enqueue[1].lr ", "enqueue[1].learning_rate?"]),
    (UNKNOWN, {}, [{"momentun": 0.1}], ["enqueue[0].momentun ", "enqueue[0].momentum?"]),
    (UNKNOWN, {}, [{"epochs": 3}], ["enqueue[0].epochs ", "weight_decay"]),
    (INVALID, {}, [{}], ["enqueue[0]", "{}"]),
    (INVALID, {}, ["fast"], ["enqueue[0]", "'fast'"]),  # type: ignore[list-item]
    (INVALID, {}, {"momentum": 0.5}, ["enqueue", "a list", "{'momentum': 0.5}"]),  # type: ignore[list-item]
    (INVALID, {}, [GOOD, {"momentum": "x"}], ["enqueue[1].momentum", "'x'"]),
    (INVALID, {}, [{"momentum": True}], ["enqueue[0].momentum", "true"]),
    (INVALID, {}, [{"learning_rate": float("nan")}], ["enqueue[0].learning_rate", "nan"]),
    (INVALID, {}, [{"frozen_blocks": "al"}], ["enqueue[0].frozen_blocks", "'al'", "all"]),
    (INVALID, {}, [{"frozen_blocks": 1.5}], ["enqueue[0].frozen_blocks", "1.5"]),
    (
        OUTSIDE,
        {},
        [GOOD, {"learning_rate": 0.5}],
        ["enqueue[1].learning_rate", "=0.5", "0.1", "space.learning"],
    ),
    (OUTSIDE, {}, [{"backbone": "resnet50"}], ["enqueue[0].backbone", "'resnet50'", "resnet18"]),
    (OUTSIDE, {"space.backbone": "vgg16"}, [GOOD], ["enqueue[0].backbone", "'resnet18'", "vgg16"]),
    (OUTSIDE, {}, [{"weight_decay": 0.1}], ["enqueue[0].weight_decay", "=0.1", "0.0", "space.weight_decay"]),
    (OUTSIDE, {}, [{"nesterov": True}], ["enqueue[0].nesterov", "=True", "space.nesterov"]),
    (OUTSIDE, {}, [GOOD | {"frozen_blocks": 6}], ["enqueue[0].frozen_blocks", "0..5", "resnet18", "=6"]),
    (OUTSIDE, {}, [GOOD | {"frozen_blocks": -1}], ["enqueue[0].frozen_blocks", "0..5", "=-1"]),
    (OUTSIDE, {}, [{"frozen_blocks": 3}], ["enqueue[0].frozen_blocks", "=3", "backbone", "all"]),
    (OUTSIDE, {}, [{"frozen_blocks": 6}], ["enqueue[0].frozen_blocks", "=6", "name the backbone"]),
    (
        OUTSIDE,
        {"space.frozen_blocks": {"low": 2, "high": 4}},
        [GOOD | {"frozen_blocks": 1}],
        ["enqueue[0].frozen_blocks", "=1", "2 to 4"],
    ),
    (
        OUTSIDE,
        {"space.frozen_blocks": [0, 3]},
        [{"frozen_blocks": "all"}],
        ["enqueue[0].frozen_blocks", "0 or 3"],
    ),
    (OUTSIDE, FINITE, [{"momentum": 0.55}], ["enqueue[0].momentum", "=0.55", "steps of 0.1"]),
    (OUTSIDE, FINITE, [{"learning_rate": 0.005}], ["enqueue[0].learning_rate", "=0.005", "0.001 or 0.01"]),
    (TWICE, FINITE, [COMPLETE, GOOD, COMPLETE], ["enqueue[2]", "enqueue[0]"]),
    (TWICE, {}, [GOOD, GOOD], ["enqueue[1]", "enqueue[0]"]),
]


@pytest.mark.parametrize(("code", "space", "enqueue", "facts"), MISTAKES, ids=lambda case: str(case)[:60])
def test_a_mistake_is_one_line_with_the_whole_path_the_value_and_the_way_out(
    code: SearchErrorCode, space: dict[str, Any], enqueue: list[dict[str, Any]], facts: list[str]
) -> None:
    with refused(code, *facts):
        load(None, space | {"enqueue": enqueue})


@pytest.mark.parametrize(
    ("space", "enqueue"),
    [
        ({}, [GOOD, GOOD | {"momentum": 0.8}, {"momentum": 0.5}, {"frozen_blocks": "all"}]),
        ({}, [{"learning_rate": 1e-4}, {"learning_rate": 0.1}, {"frozen_blocks": 0}]),
        ({}, [{"backbone": "vgg16"}, {"backbone": "vgg16"}]),
        (FINITE, [COMPLETE, {"momentum": 0.3}, {"frozen_blocks": 3}, {"weight_decay": 0.0}]),
        (FINITE | {"repeat_seeds": 2}, [COMPLETE, COMPLETE]),
        (
            {"space.frozen_blocks": {"low": 1, "high": "all"}},
            [{"frozen_blocks": 5}, {"frozen_blocks": "all"}],
        ),
        ({"space.frozen_blocks": 5, "space.backbone": "resnet18"}, [{"frozen_blocks": "all"}]),
    ],
    ids=str,
)
def test_configurations_of_the_space_are_read_back_equal(
    space: dict[str, Any], enqueue: list[dict[str, Any]], tmp_path: Path
) -> None:
    config = load(None, space | {"enqueue": enqueue})
    assert [entry.given for entry in config.enqueue] == enqueue
    for text in (to_yaml(config), commented_yaml(config)):
        (tmp_path / "config.yaml").write_text(text)
        assert load(tmp_path / "config.yaml", {}) == config
    jsonschema.validate({"enqueue": enqueue}, json_schema())


def test_the_command_line_takes_yaml() -> None:
    key, value = parse_override("enqueue=[{backbone: resnet18, frozen_blocks: all}, {learning_rate: 1e-3}]")
    given = [entry.given for entry in load(None, {key: value}).enqueue]
    assert given == [{"backbone": "resnet18", "frozen_blocks": "all"}, {"learning_rate": 0.001}]


def test_a_value_is_exactly_that_of_a_step_or_of_the_list() -> None:
    printed = {"momentum": 0.1 + 0.2, "batch_size": 16.0, "learning_rate": 0.001}
    config = load(
        None, FINITE | {"space.batch_size": {"low": 8, "high": 24, "step": 8}, "enqueue": [printed]}
    )
    assert (
        json.dumps(config.enqueue[0].given) == '{"learning_rate": 0.001, "momentum": 0.3, "batch_size": 16}'
    )


def test_every_hyperparameter_of_the_space_can_be_enqueued() -> None:
    assert list(Enqueued.model_fields) == list(Space.model_fields)


@pytest.mark.parametrize("depth", ["all", 0, 3, 5])
@pytest.mark.parametrize("backbone", ["resnet18", "vgg16"])
def test_a_depth_has_each_of_its_names_in_the_study(backbone: str, depth: int | str) -> None:
    entry = {"backbone": backbone, "frozen_blocks": depth}
    config = load(None, {"enqueue": [entry]})
    given, n_blocks = optuna_parameters(config.enqueue[0], config.space), len(block_names(backbone))
    blocks = n_blocks if depth == "all" else depth
    assert given.keys() == {"backbone", f"frozen_blocks_{backbone}", "frozen_share"}
    assert given[f"frozen_blocks_{backbone}"] == blocks == blocks_of(given["frozen_share"], n_blocks)


@pytest.mark.parametrize(("depth", "share"), [("all", 1.0), (0, 0.0)])
def test_nothing_and_all_can_be_frozen_whatever_the_backbone(depth: int | str, share: float) -> None:
    config = load(None, {"enqueue": [{"frozen_blocks": depth}]})
    given = optuna_parameters(config.enqueue[0], config.space)
    assert given.pop("frozen_share") == share
    assert set(given) == {f"frozen_blocks_{backbone}" for backbone in config.backbones}
    for backbone in config.backbones:
        n_blocks = len(block_names(backbone))
        assert given[f"frozen_blocks_{backbone}"] == blocks_of(share, n_blocks)


def test_the_file_of_the_winner_enqueues_nothing(tmp_path: Path) -> None:
    from made_runs import make_run

    from search.report.winner import best_row, write_winner

    run = make_run(tmp_path / "r", settings={"enqueue": [{"backbone": "alexnet", "momentum": 0.6}]})
    repeated = load(write_winner(run), {})
    assert repeated.enqueue == ()
    assert repeated.space.momentum == best_row(run).momentum
