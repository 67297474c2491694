"""A configuration is whole and legal, or refused in one line that names the key, the value and the way out."""

import json
from pathlib import Path
from typing import Any

import pytest

from genre_core.errors import InputError
from search.config.schema import load, parse_override, to_yaml

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_shipped_configuration_is_legal_and_opens_with_the_command_that_runs_it(path: Path) -> None:
    load(path, {})
    assert f"genre-search run --config configs/{path.name}" in path.read_text().splitlines()[0]


def test_what_is_written_is_read_back_equal(tmp_path: Path) -> None:
    config = load(
        None, {"space.momentum": [0.5, 0.9], "weights": {"alexnet": "random"}, "time_budget": "2.1h"}
    )
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert load(tmp_path / "config.yaml", {}) == config


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("90s", 90), ("1.5m", 90), ("2h", 7200), ("1d", 86400), ("1e3s", 1000), (None, None)],
)
def test_a_time_budget_has_a_unit(given: Any, seconds: float | None) -> None:
    assert load(None, {"time_budget": given}).time_budget == seconds


@pytest.mark.parametrize("key", ["time_budget", "epoch_limit"])
@pytest.mark.parametrize("given", [2, 2.5, "2", 0, -5, True, "2 hours", [2]])
def test_a_time_without_a_unit_is_refused_in_a_file_and_on_the_command_line(
    key: str, given: Any, tmp_path: Path
) -> None:
    file, run = tmp_path / "c.yaml", tmp_path / "config.yaml"
    file.write_text(json.dumps({key: given}))
    run.write_text(to_yaml(load(None, {"provenance": {"corpus": "c"}})))
    for path, overrides in ((file, {}), (None, {key: given}), (run, {key: given})):
        with pytest.raises(InputError) as caught:
            load(path, overrides)
        assert key in str(caught.value)
        assert str(given).lower() in str(caught.value).lower()
        assert "30m" in str(caught.value)


@pytest.mark.parametrize("written", [7200, 7200.0, 0.25, "7200s", "2h"])
def test_a_run_of_an_earlier_version_keeps_its_seconds(written: Any, tmp_path: Path) -> None:
    seconds = {"7200s": 7200.0, "2h": 7200.0}.get(written, written)
    path, again = tmp_path / "config.yaml", tmp_path / "again.yaml"
    path.write_text(json.dumps({"time_budget": written, "epoch_limit": 600, "provenance": {"corpus": "c"}}))
    config = load(path, {})
    assert (config.time_budget, config.epoch_limit) == (seconds, 600)
    again.write_text(to_yaml(config.model_copy(update={"provenance": None})))
    assert load(again, {}).time_budget == seconds, "what is written now has its unit"
    assert load(path, {"time_budget": "30m"}).time_budget == 1800


def test_weights_by_backbone_leave_the_others_at_imagenet() -> None:
    config = load(None, {"weights.alexnet": "/a.pth"})
    assert (config.weights_of("alexnet"), config.weights_of("resnet18")) == ("/a.pth", "imagenet")


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("trials: 7\nspace: {momentum: 0.3}\n")
    config = load(tmp_path / "c.yaml", {"trials": 9})
    assert (config.trials, config.space.momentum) == (9, 0.3)


BAD_SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"frontend": "mel64"}, "frontend is not a setting; did you mean front_end?"),
    ({"space.lerning_rate": 1}, "space.lerning_rate is not a setting; did you mean learning_rate?"),
    ({"space.learning_rate": "fast"}, "space.learning_rate: input should be a valid number"),
    (
        {"space.learning_rate": {"low": 1, "high": 0.1}},
        "low must be less than high, but got low=1.0, high=0.1",
    ),
    ({"space.learning_rate": {"low": 0, "high": 0.1, "log": True}}, "low must be above 0 with log: true"),
    ({"space.learning_rate": {"low": 0.1, "high": 1, "log": True, "step": 0.1}}, "exclude each other"),
    ({"space.learning_rate": {"low": 0.1}}, "space.learning_rate.high: field required"),
    ({"space.learning_rate": {"low": 0.1, "hi": 1, "high": 2}}, "space.learning_rate.hi is not a setting"),
    ({"space.learning_rate": -0.1}, "learning_rate must be above 0, but got learning_rate=-0.1"),
    ({"space.momentum": []}, "space.momentum: "),
    ({"space.momentum": {"low": 0.5, "high": 1.0}}, "momentum must be in [0, 1), but got momentum=1.0"),
    ({"space.nesterov": True, "space.momentum": 0}, "momentum must be above 0 with nesterov"),
    ({"space.backbone": "resnet50"}, "backbone='resnet50'; did you mean resnet"),
    ({"space.backbone": []}, "space.backbone: "),
    ({"space.frozen_blocks": 6, "space.backbone": ["vgg16", "resnet18"]}, "in 0..5 for resnet18"),
    ({"space.frozen_blocks": {"low": 0, "high": "al"}}, "space.frozen_blocks.high: "),
    ({"space.frozen_blocks": {"low": 0, "high": 9}}, "frozen_blocks must be in 0..7 for alexnet"),
    ({"space.batch_size": [16, 1]}, "batch_size must be 2 or more"),
    ({"space.batch_size": 16.5}, "space.batch_size: input should be a valid integer"),
    ({"space": 3}, "space: "),
    ({"training.schedule": "linear"}, "schedule must be one of cosine, constant"),
    ({"training.epochs": 0}, "epochs must be 1 or more"),
    ({"trials": 0}, "trials: input should be greater than or equal to 1, but got trials=0"),
    ({"trials": "many"}, "trials: input should be a valid integer"),
    ({"time_budget": "2 hours"}, "time_budget: must have a unit"),
    ({"time_budget": "0s"}, "time_budget: input should be greater than 0"),
    ({"synthetic.difficulty": 3}, "difficulty must be between 0 and 1, but got difficulty=3"),
    ({"synthetic.dificulty": 1}, "synthetic.dificulty"),
    ({"sampler": 5}, "sampler: "),
    ({"weights": {"alexnet": 3}}, "weights"),
    ({"weights": {"alexnett": "random"}}, "backbone='alexnett'; did you mean alexnet?"),
    ({"space.learning_rate": {"low": 0.1, "high": float("inf")}}, "high: input should be a finite number"),
    ({"space.learning_rate": {"low": float("nan"), "high": 1}}, "low: input should be a finite number"),
    ({"space.learning_rate": [0.1, float("nan")]}, "space.learning_rate.1: input should be a finite"),
    ({"space.weight_decay": float("inf")}, "space.weight_decay: input should be a finite number"),
    ({"space.learning_rate": {"low": 0.1, "high": 0.1}}, "low must be less than high"),
    ({"space.learning_rate": {"low": 0.1, "high": 1, "step": 0}}, "step: input should be greater than 0"),
    ({"space.learning_rate": {"low": 0.1, "high": 1, "step": 5}}, "step must be at most high - low"),
    ({"space.learning_rate": True}, "space.learning_rate: must be a number, but got true"),
    ({"space.momentum": [0.5, False]}, "space.momentum: must be a number, but got false"),
    (
        {"space.momentum": {"low": 0, "high": 0.9}, "space.nesterov": [False, True]},
        "momentum must be above 0",
    ),
    ({"space.momentum": [0.9, 0], "space.nesterov": [False, True]}, "momentum must be above 0 with nesterov"),
    ({"space.momentum": {"low": 0.5, "high": 0.9, "log": True, "step": 0.1}}, "exclude each other"),
    ({"space.batch_size": {"low": 1, "high": 8}}, "batch_size must be 2 or more"),
    ({"space.batch_size": {"low": 8, "high": 64, "step": -8}}, "step: input should be greater than or equal"),
    (
        {"space.batch_size": {"low": 8, "high": 10**30}},
        "high: must be at most 4294967295, but got about 1e30",
    ),
    ({"space.batch_size": {"low": 8, "high": True}}, "high: must be a number, but got true"),
    ({"space.frozen_blocks": True}, "space.frozen_blocks: must be a number, but got true"),
    ({"space.backbone": ""}, "backbone=''"),
    ({"space": {1: 2}}, "space.1: "),
    ({"": 2}, "'' is not a setting"),
    ({"str": 2}, "str is not a setting"),
    ({"space.range": 2}, "space.range is not a setting"),
    ({"two\nlines": 2}, "two lines is not a setting"),
    ({"space.learning_rate": "x" * 10**5}, "but got learning_rate='xxx"),
    ({"training.epochs": 10**400}, "training.epochs: must be at most 4294967295, but got about 1e400"),
    ({"training.epochs": True}, "training.epochs: must be a number, but got true"),
    ({"training.warmup_epochs": float("inf")}, "training.warmup_epochs: input should be a finite number"),
    ({"split.validation": 0}, "split.validation: input should be greater than 0"),
    ({"split.test": 0.5}, "split.test: input should be less than 0.5"),
    ({"trials": True}, "trials: must be a number, but got true"),
    ({"trials": float("inf")}, "trials: input should be a finite number"),
    ({"seed": 2**32}, "seed: must be at most 4294967295"),
    ({"time_budget": "9" * 400 + "d"}, "time_budget: input should be a finite number"),
    ({"trials_per_gpu": 1.5}, "trials_per_gpu: input should be a valid integer"),
    ({"synthetic.tracks_per_genre": True}, "synthetic: must be a number, but got true"),
    ({"synthetic.seconds": float("nan")}, "synthetic.seconds: input should be a finite number"),
    ({"data": ""}, "data: string should have at least 1 character"),
    ({"data": "a\0b"}, "a path must lead somewhere, but 'a\\x00b' does not"),
    ({"data": "~nobody-of-this-name/a"}, "a path must lead somewhere"),
    ({"weights": ""}, "weights: string should have at least 1 character"),
    ({"weights": {"alexnet": "\0"}}, "a path must lead somewhere"),
    ({"address": ""}, "address: string should have at least 1 character"),
    ({"sampler": ""}, "sampler.name: string should have at least 1 character"),
    ({"max_bad_share": 2}, "max_bad_share: input should be less than or equal to 1"),
    ({"cpus_per_trial": 0}, "cpus_per_trial: input should be greater than 0"),
]


@pytest.mark.parametrize(
    ("settings", "words"), BAD_SETTINGS, ids=[str(case[0])[:99] for case in BAD_SETTINGS]
)
def test_a_mistake_is_one_line_with_the_key_and_the_value(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        load(None, settings)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 500


BOMB = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)

BAD_FILES: dict[str, tuple[str | bytes, str]] = {
    "not YAML": ("space: [1, 2", "at line 1"),
    "a list": ("- 1\n- 2\n", "holds a list"),
    "a tab": ("space:\n\tmomentum: 1\n", "at line 2"),
    "binary": (b"\xff\xfe\x00", "must be a readable YAML file"),
    "a control character": ("data: \x07", "unacceptable character #x0007"),
    "two documents": ("trials: 3\n---\ntrials: 4\n", "at line 2"),
    "a key twice": ("trials: 3\nseed: 1\ntrials: 4\n", "at line 3: trials is there twice, keep one"),
    "a key twice inside": ("space:\n  momentum: 0.1\n  'momentum': 0.2\n", "at line 3: momentum is there"),
    "a key that is a number": ("1: 2", "1: keys should be strings"),
    "a key that is nothing": ("~: 2", "keys should be strings"),
    "a key that is a list": ("[1, 2]: 3", "found unhashable key"),
    "an infinity": (
        "space: {learning_rate: {low: 0.1, high: .inf}}",
        "high: input should be a finite number",
    ),
    "no number": ("space: {learning_rate: {low: .nan, high: 1}}", "low: input should be a finite number"),
    "an alias bomb": (BOMB, "at line 2: an alias is not read, write the value out"),
    "a list in itself": ("data: &a [*a]", "an alias is not read"),
    "an alias of nothing": ("data: *a", "an alias is not read"),
    "nested without end": ("a: " + "[" * 10**4, "is not"),
    "an impossible date": ("data: 2026-99-99", "month must be in 1..12"),
    "a number of 10,000 digits": ("trials: " + "9" * 10**4, "is not"),
    "a number of 10,000 hexadecimal digits": ("trials: 0x" + "f" * 10**4, "but got about 1e12041"),
    "no truth": ("data: !!bool perhaps", "is not"),
    "code": ("data: !!python/object/apply:os.system [touch executed]", "could not determine a constructor"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_file_that_is_no_configuration_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    content, words = BAD_FILES[case]
    path = tmp_path / "c.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as caught:
        load(path, {})
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(InputError) as caught:
        load(None, dict([parse_override(f"trials={path.read_text(errors='replace')}")]))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["", "nothing.yaml", "x" * 300, "a\0b", "itself.yaml"])
def test_a_path_to_no_file_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "itself.yaml").symlink_to("itself.yaml")
    with pytest.raises(InputError, match="--config must be a readable YAML file") as caught:
        load(tmp_path / name, {})
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "key", "value"), [("a.b=3", "a.b", 3), ("a=x=y", "a", "x=y"), ("a=", "a", None)]
)
def test_an_override_is_read_as_yaml(text: str, key: str, value: object) -> None:
    assert parse_override(text) == (key, value)


@pytest.mark.parametrize("text", ["a", "=3", "a=[1"])
def test_an_override_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--set must be key=value|must be a YAML value"):
        parse_override(text)
