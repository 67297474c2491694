"""Options become settings; an option given twice is rejected."""

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from genre_core.errors import InputError
from search.cli import main
from search.cli.output import INTERRUPTED
from search.config.schema import SearchConfig, to_yaml
from search.errors import SearchErrorCode
from search.evaluate import finish
from search.tune import search

REPEATED, SET_TWICE = SearchErrorCode.OPTION_REPEATED, SearchErrorCode.SETTING_REPEATED
GIVEN_TWICE = [
    ("run --data a --data b", "--data", REPEATED),
    ("run --trials=1 --trials=1", "--trials", REPEATED),
    ("run --set trials=1 --set trials=2", "--set", SET_TWICE),
    ("data check x --set trials=1 --set trials=2", "--set", SET_TWICE),
    ("resume runs/x --trials 1 --trials 2", "--trials", REPEATED),
    ("finish runs/x --seeds 1 --seeds 2", "--seeds", REPEATED),
    ("data make new --seed 1 --seed 2", "--seed", REPEATED),
]


@pytest.mark.parametrize(("arguments", "option", "code"), GIVEN_TWICE)
def test_an_option_given_twice_is_rejected(arguments: str, option: str, code: SearchErrorCode) -> None:
    with pytest.raises(InputError) as error:
        main.app(arguments.split(), standalone_mode=False)
    assert error.value.code is code
    assert option in str(error.value)


@pytest.fixture
def driven(monkeypatch: pytest.MonkeyPatch) -> list[SearchConfig]:
    """The settings of searches that commands would have run."""
    configs: list[SearchConfig] = []

    def drive(config: SearchConfig, **_: object) -> NoReturn:
        configs.append(config)
        raise KeyboardInterrupt

    for module, name in ((search, "run"), (search, "resume"), (finish, "finish")):
        monkeypatch.setattr(module, name, drive)
    return configs


def test_repeatable_options_can_be_repeated(
    driven: list[SearchConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    options = "--set training.epochs=2 --set seed=3 --warm-start a --warm-start b --trials 7 --data 1"
    assert main.app(["run", *options.split()], standalone_mode=False) == INTERRUPTED
    (config,) = driven
    assert (config.training.epochs, config.seed, len(config.warm_start)) == (2, 3, 2)
    assert (config.trials, Path(config.data).name) == (7, "1"), "values are YAML, texts are not"
    assert not list(tmp_path.iterdir())


def test_an_option_takes_precedence_over_set(driven: list[SearchConfig]) -> None:
    main.app(["run", "--set", "trials=3", "--trials", "7"], standalone_mode=False)
    assert driven[0].trials == 7


UNLISTED = {
    "--stop-when-flat": ("", "stop_when_flat", True),
    "--price": ("2.5", "price", 2.5),
    "--cpus-per-trial": ("2", "cpus_per_trial", 2.0),
    "--feature-cache": ("0", "feature_cache", 0.0),
    "--data-cache": ("5", "data_cache", 5.0),
    "--seed": ("7", "seed", 7),
    "--repeat-seeds": ("3", "repeat_seeds", 3),
}
"""Options that --help of `run` does not list: value, setting, and the setting's value."""


@pytest.mark.parametrize("option", UNLISTED)
def test_an_option_for_a_setting_that_few_need_is_not_listed_but_works(
    option: str, driven: list[SearchConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    value, setting, expected = UNLISTED[option]
    space = ["--set", "space.learning_rate=[0.1]", "--set", "space.momentum=[0.9]"]
    main.app(["run", option, *value.split(), *space], standalone_mode=False)
    assert getattr(driven[0], setting) == expected
    main.app(["run", "--help"], standalone_mode=False)
    listed = capsys.readouterr().out
    assert f"{option} " not in listed
    assert "--trials " in listed


@pytest.mark.parametrize("value", ["-1", "much", ".nan", ".inf", "2,5"])
def test_a_price_is_a_number_of_0_or_more(value: str) -> None:
    for option in (["--price", value], ["--set", f"price={value}"]):
        with pytest.raises(InputError, match="price"):
            main.app(["run", *option], standalone_mode=False)


def test_the_price_of_a_run_stays_when_it_is_resumed_without_one(
    driven: list[SearchConfig], tiny: Callable[..., SearchConfig], tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text(to_yaml(tiny(price=2.5)), encoding="utf-8")
    for options in ([], ["--price", "0"]):
        assert main.app(["resume", str(tmp_path), *options], standalone_mode=False) == INTERRUPTED
    assert [config.price for config in driven] == [2.5, 0]


def test_a_search_of_a_cluster_without_its_gpus_can_be_resumed_and_finished(
    driven: list[SearchConfig], tiny: Callable[..., SearchConfig], tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text(to_yaml(tiny(address="auto", workers=4)), encoding="utf-8")
    for verb in ("resume", "finish"):
        done = main.app([verb, str(tmp_path), "--trials-per-gpu", "2"], standalone_mode=False)
        assert done == INTERRUPTED
    assert [(config.trials_per_gpu, config.workers) for config in driven] == [(2, 4), (2, 4)]
