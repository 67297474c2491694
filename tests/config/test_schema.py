"""A configuration is complete and valid, or rejected in one line with the key, the value and the way out."""

import json
from pathlib import Path
from typing import Any

import pydantic
import pytest
from pydantic import ValidationError
from refusals import refused

from genre_core.errors import ErrorCode, InputError
from search.config.mistakes import setting_path
from search.config.schema import SearchConfig, Training, load, to_yaml
from search.config.space import choices, is_share
from search.errors import SearchErrorCode

UNKNOWN, INVALID = SearchErrorCode.SETTING_UNKNOWN, SearchErrorCode.SETTING_INVALID
BAD_RANGE, NO_SGD = SearchErrorCode.RANGE_INVALID, SearchErrorCode.NESTEROV_WITHOUT_SGD
OUT_OF_RANGE, NO_MOMENTUM = ErrorCode.RECIPE_OUT_OF_RANGE, ErrorCode.NESTEROV_WITHOUT_MOMENTUM

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_shipped_configuration_is_valid_and_starts_with_the_command_that_runs_it(path: Path) -> None:
    load(path, {})
    assert f"genre-search run --config configs/{path.name}" in path.read_text().splitlines()[0]


def test_a_written_configuration_is_read_back_equal(tmp_path: Path) -> None:
    config = load(
        None, {"space.momentum": [0.5, 0.9], "weights": {"alexnet": "random"}, "time_budget": "2.1h"}
    )
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert load(tmp_path / "config.yaml", {}) == config


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("90s", 90), ("1.5m", 90), ("2h", 7200), ("1d", 86400), ("1e3s", 1000), (None, None)],
)
def test_a_duration_is_given_with_a_unit(given: Any, seconds: float | None) -> None:
    assert load(None, {"time_budget": given}).time_budget == seconds


@pytest.mark.parametrize("key", ["time_budget", "epoch_limit"])
@pytest.mark.parametrize("given", [2, 2.5, "2", 0, -5, True, "2 hours", [2]])
def test_a_duration_without_a_unit_is_rejected_in_a_file_and_on_the_command_line(
    key: str, given: Any, tmp_path: Path
) -> None:
    file, run = tmp_path / "c.yaml", tmp_path / "config.yaml"
    file.write_text(json.dumps({key: given}))
    run.write_text(to_yaml(load(None, {"provenance": {"corpus": "c"}})))
    for path, overrides in ((file, {}), (None, {key: given}), (run, {key: given})):
        with refused(INVALID, key, given, "30m"):
            load(path, overrides)


@pytest.mark.parametrize("written", [7200, 7200.0, 0.25, "7200s", "2h"])
def test_durations_in_the_config_of_an_older_run_are_seconds(written: Any, tmp_path: Path) -> None:
    seconds = {"7200s": 7200.0, "2h": 7200.0}.get(written, written)
    path, again = tmp_path / "config.yaml", tmp_path / "again.yaml"
    path.write_text(json.dumps({"time_budget": written, "epoch_limit": 600, "provenance": {"corpus": "c"}}))
    config = load(path, {})
    assert (config.time_budget, config.epoch_limit) == (seconds, 600)
    again.write_text(to_yaml(config.model_copy(update={"provenance": None})))
    assert load(again, {}).time_budget == seconds, "durations are now written with a unit"
    assert load(path, {"time_budget": "30m"}).time_budget == 1800


@pytest.mark.parametrize("space", [{}, {"frozen_blocks": {"low": 0, "high": "all"}}, None])
def test_an_older_run_has_a_depth_per_backbone_and_a_new_search_a_share(
    space: dict[str, Any] | None, tmp_path: Path
) -> None:
    path = tmp_path / "config.yaml"
    settings = {} if space is None else {"space": space}
    shares = []
    for provenance in (None, {"corpus": "c"}):
        path.write_text(json.dumps(settings | {"provenance": provenance}))
        config = load(path, {})
        shares.append(is_share(config.space.frozen_blocks))
        path.write_text(to_yaml(config))
        assert load(path, {}) == config
    assert shares == [True, False]


@pytest.mark.parametrize("depth", [3, [1, 2]])
def test_a_depth_that_is_no_range_is_read_from_an_older_run(depth: Any, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps({"space": {"frozen_blocks": depth}, "provenance": {"corpus": "c"}}))
    assert choices(load(path, {}).space.frozen_blocks) == choices(depth)


@pytest.mark.parametrize("space", ["x", {"frozen_blocks": "x"}, {"frozen_blocks": {"high": "x"}}])
def test_a_mistake_in_the_space_of_an_older_run_is_rejected(space: Any, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps({"space": space, "provenance": {"corpus": "c"}}))
    with refused(INVALID, "space", "x"):
        load(path, {})


def test_pretrained_and_imagenet_are_two_words_for_the_same_weights() -> None:
    for weights in ("pretrained", "imagenet", {"alexnet": "pretrained"}):
        config = load(None, {"weights": weights})
        assert {config.weights_of("alexnet"), config.weights_of("resnet18")} == {"imagenet"}
    assert load(None, {"weights": {"alexnet": "random"}}) != load(None, {"weights": "pretrained"})


def test_backbones_without_weights_of_their_own_use_imagenet() -> None:
    config = load(None, {"weights.alexnet": "/a.pth"})
    assert (config.weights_of("alexnet"), config.weights_of("resnet18")) == ("/a.pth", "imagenet")


def test_overrides_take_precedence_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("trials: 7\nspace: {momentum: 0.3}\n")
    config = load(tmp_path / "c.yaml", {"trials": 9})
    assert (config.trials, config.space.momentum) == (9, 0.3)


RATE: dict[str, Any] = {"low": 0.1, "high": 1}
BOTH: dict[str, Any] = {"space.nesterov": [False, True]}

MISTAKES: list[tuple[SearchErrorCode, dict[str, Any], list[str]]] = [
    (UNKNOWN, {"frontend": "mel64"}, ["frontend ", "front_end?"]),
    (UNKNOWN, {"space.lerning_rate": 1}, ["space.lerning_rate ", "learning_rate?"]),
    (UNKNOWN, {"space.learning_rate": RATE | {"hi": 1}}, ["space.learning_rate.hi "]),
    (UNKNOWN, {"synthetic.dificulty": 1}, ["synthetic.dificulty ", "difficulty?"]),
    (UNKNOWN, {"synthetic.foo": 1}, ["synthetic.foo ", "tracks_per_genre, seconds", "difficulty, seed"]),
    (UNKNOWN, {"training.seed": 1}, ["training.seed ", "mean seed?"]),
    (UNKNOWN, {"": 2}, ["''"]),
    (UNKNOWN, {"str": 2}, ["str "]),
    (UNKNOWN, {"space.range": 2}, ["space.range "]),
    (UNKNOWN, {"(keyed)": 2}, ["(keyed) "]),
    (UNKNOWN, {"two\nlines": 2}, ["two lines"]),
    # not a number, or not a usable one
    (INVALID, {"space.learning_rate": "fast"}, ["space.learning_rate", "'fast'"]),
    (INVALID, {"space.learning_rate": "x" * 10**5}, ["learning_rate='xxx"]),
    (INVALID, {"space.batch_size": 16.5}, ["space.batch_size", "16.5"]),
    (INVALID, {"trials_per_gpu": 1.5}, ["trials_per_gpu", "1.5"]),
    (INVALID, {"trials_per_gpu": "al"}, ["trials_per_gpu", "'al'", "auto"]),
    (INVALID, {"trials": "many"}, ["trials", "'many'"]),
    (INVALID, {"space.learning_rate": True}, ["space.learning_rate", "true"]),
    (INVALID, {"space.momentum": [0.5, False]}, ["space.momentum", "false"]),
    (INVALID, {"space.batch_size": {"low": 8, "high": True}}, ["space.batch_size.high", "true"]),
    (INVALID, {"space.frozen_blocks": True}, ["space.frozen_blocks", "true"]),
    (INVALID, {"training.epochs": True}, ["training.epochs", "true"]),
    (INVALID, {"trials": True}, ["trials", "true"]),
    (INVALID, {"synthetic.tracks_per_genre": True}, ["synthetic.tracks_per_genre ", "true"]),
    (INVALID, {"synthetic.seed": 2**32}, ["synthetic.seed ", "4294967295"]),
    (INVALID, {"space.learning_rate": {"low": 0.1, "high": float("inf")}}, ["learning_rate.high", "inf"]),
    (INVALID, {"space.learning_rate": {"low": float("nan"), "high": 1}}, ["learning_rate.low", "nan"]),
    (INVALID, {"space.learning_rate": [0.1, float("nan")]}, ["space.learning_rate.1", "nan"]),
    (INVALID, {"space.weight_decay": float("inf")}, ["space.weight_decay", "inf"]),
    (INVALID, {"training.warmup_epochs": float("inf")}, ["training.warmup_epochs", "inf"]),
    (INVALID, {"trials": float("inf")}, ["trials", "inf"]),
    (INVALID, {"synthetic.seconds": float("nan")}, ["synthetic.seconds", "nan"]),
    (INVALID, {"space.batch_size": {"low": 8, "high": 10**30}}, ["batch_size.high", "1e30", "4294967295"]),
    (INVALID, {"training.epochs": 10**400}, ["training.epochs", "1e400", "4294967295"]),
    (INVALID, {"seed": 2**32}, ["seed", "4294967295"]),
    # out of range
    (INVALID, {"trials": 0}, ["trials", "trials=0"]),
    (INVALID, {"worker_budget": "0s"}, ["worker_budget", "--budget", "above 0,"]),
    (INVALID, {"split.validation": 0}, ["split.validation", "validation=0"]),
    (INVALID, {"split.test": 0.5}, ["split.test", "test=0.5"]),
    (INVALID, {"max_bad_share": 2}, ["max_bad_share", "=2"]),
    (INVALID, {"cpus_per_trial": 0}, ["cpus_per_trial", "=0"]),
    (INVALID, {"space.learning_rate": RATE | {"step": 0}}, ["space.learning_rate.step", "step=0"]),
    (INVALID, {"space.batch_size": {"low": 8, "high": 64, "step": -8}}, ["batch_size.step", "step=-8"]),
    # the wrong shape
    (INVALID, {"space.learning_rate": {"low": 0.1}}, ["space.learning_rate.high"]),
    (INVALID, {"space.momentum": []}, ["space.momentum", "[]"]),
    (INVALID, {"space.backbone": []}, ["space.backbone", "[]"]),
    (INVALID, {"space.nesterov": RATE}, ["space.nesterov", "a list"]),
    (INVALID, {"space.frozen_blocks": {"low": 0, "high": "al"}}, ["frozen_blocks.high", "'al'", "all"]),
    (INVALID, {"space": 3}, ["space", "3"]),
    (INVALID, {"space": {1: 2}}, ["space.1"]),
    (INVALID, {"sampler": 5}, ["sampler", "5"]),
    (INVALID, {"weights": 3}, ["weights", "3"]),
    (INVALID, {"weights": ["random"]}, ["weights", "['random']"]),
    (INVALID, {"weights": {"alexnet": 3}}, ["weights.alexnet", "3"]),
    (INVALID, {"data": ""}, ["data", "''"]),
    (INVALID, {"weights": ""}, ["weights", "''"]),
    (INVALID, {"address": ""}, ["address", "''"]),
    (INVALID, {"sampler": ""}, ["sampler.name", "''"]),
    # durations
    (INVALID, {"time_budget": "2 hours"}, ["time_budget", "'2 hours'", "2h"]),
    (INVALID, {"time_budget": "0s"}, ["time_budget", "0"]),
    (INVALID, {"time_budget": "9" * 400 + "d"}, ["time_budget"]),
    # contradictions within a range
    (BAD_RANGE, {"space.learning_rate": {"low": 1, "high": 0.1}}, ["low=1.0", "high=0.1"]),
    (BAD_RANGE, {"space.learning_rate": {"low": 0.1, "high": 0.1}}, ["low=0.1", "high=0.1"]),
    (BAD_RANGE, {"space.learning_rate": {"low": 0, "high": 0.1, "log": True}}, ["low=0.0", "log"]),
    (BAD_RANGE, {"space.learning_rate": RATE | {"log": True, "step": 0.1}}, ["learning_rate", "drop one"]),
    (
        BAD_RANGE,
        {"space.momentum": {"low": 0.5, "high": 0.9, "log": True, "step": 0.1}},
        ["momentum", "drop one"],
    ),
    (BAD_RANGE, {"space.learning_rate": RATE | {"step": 5}}, ["step=5", "high=1.0"]),
    # optimizers
    (INVALID, {"space.optimizer": "adam"}, ["space.optimizer", "'adam'", "'sgd'", "'adamw'"]),
    (INVALID, {"space.optimizer": ["sgd", "lion"]}, ["space.optimizer.1", "'lion'", "'adamw'"]),
    (INVALID, {"space.optimizer": {"low": 0, "high": 1}}, ["space.optimizer", "a list"]),
    (NO_SGD, {"space.optimizer": "adamw", "space.nesterov": True}, ["space.nesterov", "=True", "add sgd"]),
    (NO_SGD, {"space.optimizer": ["adamw"], **BOTH}, ["space.nesterov", "True", "add sgd"]),
    (
        SearchErrorCode.REPEAT_SEEDS_OF_INFINITE_SPACE,
        {"repeat_seeds": 2, "space.momentum": RATE | {"high": 0.9}, "space.learning_rate": 0.1},
        ["repeat_seeds", "2", "space.momentum"],
    ),
    # paths and addresses
    (SearchErrorCode.PATH_INVALID, {"data": "a\0b"}, ["'a\\x00b'"]),
    (SearchErrorCode.PATH_INVALID, {"data": "~nobody-of-this-name/a"}, ["'~nobody-of-this-name/a'"]),
    (SearchErrorCode.PATH_INVALID, {"weights": {"alexnet": "\0"}}, ["'\\x00'"]),
    (
        SearchErrorCode.ADDRESS_WITH_CREDENTIALS,
        {"data": "s3://me:key@b/music"},
        ["--data", "AWS_ACCESS_KEY_ID"],
    ),
    (
        SearchErrorCode.ADDRESS_WITH_CREDENTIALS,
        {"storage": "s3://me:key@b"},
        ["--storage", "AWS_ACCESS_KEY_ID"],
    ),
    (SearchErrorCode.ADDRESS_WITH_CREDENTIALS, {"mlflow": "https://me:key@b"}, ["mlflow", "MLFLOW_TRACKING"]),
]

REJECTED_RECIPES: list[tuple[ErrorCode, dict[str, Any], list[str]]] = [
    (OUT_OF_RANGE, {"space.learning_rate": -0.1}, ["learning_rate=-0.1"]),
    (OUT_OF_RANGE, {"space.momentum": {"low": 0.5, "high": 1.0}}, ["momentum=1.0"]),
    (OUT_OF_RANGE, {"space.frozen_blocks": 6, "space.backbone": ["vgg16", "resnet18"]}, ["0..5", "resnet18"]),
    (OUT_OF_RANGE, {"space.frozen_blocks": {"low": 0, "high": 9}}, ["frozen_blocks=9", "0..7", "alexnet"]),
    (OUT_OF_RANGE, {"space.batch_size": [16, 1]}, ["batch_size=1"]),
    (OUT_OF_RANGE, {"space.batch_size": {"low": 1, "high": 8}}, ["batch_size=1"]),
    (OUT_OF_RANGE, {"training.epochs": 0}, ["epochs=0"]),
    (NO_MOMENTUM, {"space.nesterov": True, "space.momentum": 0}, ["momentum=0", "nesterov"]),
    (NO_MOMENTUM, BOTH | {"space.momentum": {"low": 0, "high": 0.9}}, ["momentum=0", "nesterov"]),
    (NO_MOMENTUM, BOTH | {"space.momentum": [0.9, 0]}, ["momentum=0", "nesterov"]),
    (
        NO_MOMENTUM,
        BOTH | {"space.momentum": [0.9, 0], "space.optimizer": ["adamw", "sgd"]},
        ["momentum=0", "nesterov"],
    ),
    (ErrorCode.UNKNOWN_BACKBONE, {"space.backbone": "resnet50"}, ["backbone='resnet50'", "resnet"]),
    (ErrorCode.UNKNOWN_BACKBONE, {"space.backbone": ""}, ["backbone=''"]),
    (ErrorCode.UNKNOWN_BACKBONE, {"weights": {"alexnett": "random"}}, ["backbone='alexnett'", "alexnet?"]),
    (
        ErrorCode.RECIPE_UNKNOWN_CHOICE,
        {"training.schedule": "linear"},
        ["schedule='linear'", "cosine", "constant"],
    ),
    (ErrorCode.SYNTHETIC_OUT_OF_RANGE, {"synthetic.difficulty": 3}, ["difficulty=3"]),
]
"""Values with the right type that genre_core rejects: at both ends of every range, for every backbone."""


def _name(case: object) -> str:
    return str(case)[:99] if isinstance(case, dict) else ""


@pytest.mark.parametrize(("code", "settings", "facts"), MISTAKES, ids=_name)
def test_a_mistake_is_one_line_with_the_key_the_value_and_the_way_out(
    code: SearchErrorCode, settings: dict[str, Any], facts: list[str]
) -> None:
    with refused(code, *facts):
        load(None, settings)


@pytest.mark.parametrize("settings", [{"space.learning_rate": "x" * 10**5}, {"trials": 10**400}], ids=_name)
def test_a_message_about_something_long_is_short(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        load(None, settings)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(("code", "settings", "facts"), REJECTED_RECIPES, ids=_name)
def test_both_ends_of_every_range_are_checked_for_every_backbone(
    code: ErrorCode, settings: dict[str, Any], facts: list[str]
) -> None:
    with refused(code, *facts):
        load(None, settings)


UNIONS: list[tuple[dict[str, Any], str]] = [
    ({"space": {"momentum": "x"}}, "space.momentum"),
    ({"space": {"momentum": ["x"]}}, "space.momentum.0"),
    ({"space": {"momentum": {"low": "x", "high": 1}}}, "space.momentum.low"),
    ({"space": {"batch_size": {"low": 1, "high": 2, "step": "x"}}}, "space.batch_size.step"),
    ({"space": {"backbone": {}}}, "space.backbone"),
    ({"space": {"frozen_blocks": {"high": "x"}}}, "space.frozen_blocks.high"),
    ({"space": {"frozen_blocks": {"high": 1.5}}}, "space.frozen_blocks.high"),
    ({"space": {"frozen_blocks": {"(range)": 1}}}, "space.frozen_blocks.(range)"),
    ({"weights": 1}, "weights"),
    ({"weights": {"alexnet": 1}}, "weights.alexnet"),
    ({"trials_per_gpu": -1}, "trials_per_gpu"),
    ({"trials_per_gpu": "x"}, "trials_per_gpu"),
    ({"workers": "x"}, "workers"),
    ({"time_budget": "0s"}, "time_budget"),
]


@pytest.mark.parametrize(("settings", "path"), UNIONS, ids=str)
def test_pydantic_locates_a_mistake_in_a_union_by_keys_and_our_tags_only(
    settings: dict[str, Any], path: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        SearchConfig.model_validate(settings)
    paths = [".".join(setting_path(mistake)) for mistake in caught.value.errors()]
    assert paths[0] == path, (
        f"pydantic {pydantic.VERSION} reports {caught.value.errors()[0]['loc']}: adapt "
        "search.config.mistakes.setting_path, or tag the union with a tag of search.config.settings.TAGS"
    )


@pytest.mark.parametrize(
    ("settings", "head_init"),
    [
        ({}, Training().head_init),
        ({"provenance": {"corpus": "0"}}, "random"),
        ({"provenance": {"corpus": "0"}, "training": {"epochs": 3}}, "random"),
        ({"provenance": {"corpus": "0"}, "training": {"head_init": "probe"}}, "probe"),
        ({"training": {"head_init": "probe"}}, "probe"),
    ],
)
def test_a_run_without_head_init_predates_the_setting_and_has_random_heads(
    settings: dict[str, Any], head_init: str, tmp_path: Path
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps(settings))
    config = load(file, {})
    assert config.training.head_init == head_init
    file.write_text(to_yaml(config))
    assert load(file, {}) == config


def test_an_unknown_head_init_is_refused_with_the_known_ones() -> None:
    with refused(ErrorCode.RECIPE_UNKNOWN_CHOICE, "probe, random", "head_init='zero'"):
        load(None, {"training.head_init": "zero"})


@pytest.mark.parametrize(
    ("given", "search", "sampler", "pruner"),
    [
        ({}, "cost_aware", None, None),
        ({"search": "cost_aware"}, "cost_aware", None, None),
        ({"search": "optuna"}, "optuna", "tpe", "median"),
        ({"sampler": "gp"}, "optuna", "gp", "median"),
        ({"pruner": {"name": "hyperband", "reduction_factor": 3}}, "optuna", "tpe", "hyperband"),
        ({"pruner.name": "none"}, "optuna", "tpe", "none"),
        ({"search": "optuna", "sampler": "random", "pruner": "none"}, "optuna", "random", "none"),
        ({"search": "cost_aware", "provenance": {}}, "cost_aware", None, None),
        ({"sampler": "tpe", "pruner": "median", "provenance": {}}, "optuna", "tpe", "median"),
    ],
)
def test_a_sampler_or_a_pruner_means_optuna_whose_defaults_are_filled_in_and_config_yaml_reads_back_equal(
    given: dict[str, Any], search: str, sampler: str | None, pruner: str | None, tmp_path: Path
) -> None:
    config = load(None, given)
    assert config.search == search
    assert [one and one.name for one in (config.sampler, config.pruner)] == [sampler, pruner]
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert load(tmp_path / "config.yaml", {}) == config


@pytest.mark.parametrize("name", ["sampler", "pruner"])
def test_a_cost_aware_search_has_no_sampler_and_no_pruner_of_optuna(name: str) -> None:
    with refused(SearchErrorCode.SAMPLER_OR_PRUNER_NOT_USED, f"{name}=random", "search=optuna"):
        load(None, {"search": "cost_aware", name: "random"})
    assert load(None, {"search": "cost_aware", name: None}).search == "cost_aware"


def test_the_workers_time_is_a_duration(tmp_path: Path) -> None:
    config = load(None, {"worker_budget": "1.5h"})
    assert config.worker_budget == 5400.0
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert load(tmp_path / "config.yaml", {}) == config
    with refused(SearchErrorCode.SETTING_INVALID, "worker_budget", "5400", "2h"):
        load(None, {"worker_budget": 5400})


# overrides -> the setting that is expected, and what of it
MERGED = [
    ({"pruner.n_startup_trials": 2}, "pruner", {"name": "median", "n_startup_trials": 2}),
    ({"sampler.n_startup_trials": 4}, "sampler", {"name": "tpe", "n_startup_trials": 4}),
    ({"sampler": "qmc", "sampler.scramble": False}, "sampler", {"name": "qmc", "scramble": False}),
    ({"space.learning_rate.low": 1e-3}, "space.learning_rate", {"low": 1e-3, "high": 0.1, "log": True}),
    ({"space.momentum.high": 0.9}, "space.momentum", {"low": 0.5, "high": 0.9}),
    ({"space.frozen_blocks.high": 2}, "space.frozen_blocks", {"low": 0, "high": 2}),
    ({"synthetic.seconds": 3}, "synthetic", {"seconds": 3, "tracks_per_genre": 20}),
]


@pytest.mark.parametrize(("overrides", "key", "expected"), MERGED)
def test_a_key_of_a_mapping_is_set_alone(
    overrides: dict[str, Any], key: str, expected: dict[str, Any]
) -> None:
    found: Any = load(None, overrides)
    for name in key.split("."):
        found = getattr(found, name)
    assert {name: getattr(found, name) for name in expected} == expected


# unknown key -> what the message suggests
SUGGESTED = [
    ("epochs", "training.epochs"),
    ("training.epoch", "training.epochs"),
    ("training.learning_rate", "space.learning_rate"),
    ("space.learning_rat", "space.learning_rate"),
    ("lr", "space.learning_rate"),
    ("batch", "space.batch_size"),
    ("early_stopping", "training.patience"),
    ("metric", "macro F1"),
    ("space.learning_rate.min", "low"),
    ("num_samples", "trials"),
    ("zzz", "config show"),
]


@pytest.mark.parametrize(("key", "suggested"), SUGGESTED)
def test_an_unknown_setting_suggests_one_with_its_whole_path(key: str, suggested: str) -> None:
    with refused(UNKNOWN, key, suggested):
        load(None, {key: 1})


def test_every_mistake_is_listed() -> None:
    with refused(INVALID, "trials", "seed", "split.test"):
        load(None, {"trials": -1, "seed": -1, "split.test": 2})


def test_a_grid_needs_a_finite_space() -> None:
    with refused(SearchErrorCode.GRID_OF_INFINITE_SPACE, "space.learning_rate", "step"):
        load(None, {"sampler": "grid"})
    finite = {"space.learning_rate": [0.01, 0.1], "space.momentum": 0.9}
    assert load(None, {"sampler": "grid", **finite}).search == "optuna"


def test_the_address_of_data_is_kept_and_not_taken_for_a_path() -> None:
    assert load(None, {"data": "s3://bucket/my music/?region=r"}).data == "s3://bucket/my%20music?region=r"
