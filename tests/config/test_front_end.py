"""The front end of a search: its backbones' own, if one of them needs it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from documented import CNN10, files, importable
from refusals import refused

from genre_core.audio.mel import FRONT_ENDS
from genre_core.errors import ErrorCode
from genre_core.models.registry import find_backbone, register_backbone
from search.config.schema import load, to_yaml
from search.data.front_end import front_end_of
from search.errors import SearchErrorCode

OTHERS = """
from dataclasses import replace
from audio_networks import CNN10
OTHER = replace(CNN10, front_end=replace(CNN10.front_end, name="mel64-16k", sample_rate=16_000))
SAME = replace(CNN10)
TALL = replace(CNN10, front_end=None, min_side=100, channels=3)
"""


@pytest.fixture(autouse=True)
def networks(tmp_path: Path) -> Iterator[None]:
    """The document's audio network, and variants of it."""
    with importable(tmp_path, files("python") | {"others.py": OTHERS}):
        yield


def test_the_backbones_front_end_is_that_of_the_search_with_its_level(tmp_path: Path) -> None:
    config = load(None, {"space.backbone": CNN10, "level": "absolute"})
    assert config.front_end == "mel64-32k"
    wanted = find_backbone(CNN10).front_end
    assert wanted is not None
    assert front_end_of(config) == replace(wanted, level="absolute")
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert load(tmp_path / "config.yaml", {}) == config


@pytest.mark.parametrize(
    ("backbones", "given", "expected"),
    [
        (["resnet18"], {}, "mel128"),
        (["resnet18"], {"front_end": "mel64"}, "mel64"),
        ([CNN10, "resnet18"], {}, "mel64-32k"),
        ([CNN10, "others:SAME"], {"front_end": "mel64-32k"}, "mel64-32k"),
        (["others:TALL"], {"front_end": "mel128x3"}, "mel128x3"),
    ],
)
def test_backbones_that_need_none_take_the_front_end_of_the_search(
    backbones: list[str], given: dict[str, Any], expected: str
) -> None:
    assert front_end_of(load(None, {"space.backbone": backbones} | given)).name == expected


@pytest.mark.parametrize(
    ("backbones", "given", "code", "details"),
    [
        ([CNN10], "mel128", SearchErrorCode.FRONT_END_OF_BACKBONE, ["mel64-32k", "front_end=mel128"]),
        ([CNN10, "others:OTHER"], None, SearchErrorCode.FRONT_ENDS_DIFFER, ["mel64-32k", "mel64-16k"]),
        (["others:TALL"], "mel64", SearchErrorCode.FRONT_END_DOES_NOT_FIT, ["others:TALL", "100", "64"]),
        ([CNN10, "others:TALL"], None, SearchErrorCode.FRONT_END_DOES_NOT_FIT, ["others:TALL", "mel64-32k"]),
        (["resnet18"], "mel3", ErrorCode.UNKNOWN_FRONT_END, ["mel3", *FRONT_ENDS]),
    ],
)
def test_a_front_end_that_a_backbone_cannot_use_is_refused(
    backbones: list[str], given: str | None, code: Any, details: list[str]
) -> None:
    front_end = {} if given is None else {"front_end": given}
    with refused(code, *details):
        front_end_of(load(None, {"space.backbone": backbones} | front_end))


def test_settings_have_the_full_names_of_registered_backbones() -> None:
    register_backbone("cnn10", CNN10)
    config = load(None, {"space.backbone": ["cnn10", "vgg16"], "weights": {"cnn10": "random"}})
    assert config.backbones == (CNN10, "vgg16")
    assert config.weights_of(CNN10) == "random"


def test_weights_of_a_backbone_are_set_by_its_path_on_the_command_line() -> None:
    config = load(None, {"space.backbone": CNN10, f"weights.{CNN10}": "random", "weights.vgg16": "imagenet"})
    assert config.weights == {CNN10: "random", "vgg16": "imagenet"}


@pytest.mark.parametrize("name", files("yaml"))
def test_the_documents_settings_load(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(files("yaml")[name])
    given = yaml.safe_load(files("yaml")[name])["space"]["backbone"]
    assert config_backbones(tmp_path / name) == (given if isinstance(given, list) else [given])


def config_backbones(path: Path) -> list[str]:
    """The backbones that a settings file searches."""
    return [*load(path, {}).backbones]


@pytest.mark.parametrize("name", ["gone:NET", "os:path", "audio_networks:CNN9", "x y:z"])
def test_settings_with_a_backbone_that_cannot_be_imported_are_refused(name: str) -> None:
    codes = {"gone:NET": ErrorCode.BACKBONE_NOT_IMPORTABLE, "x y:z": ErrorCode.UNKNOWN_BACKBONE}
    with refused(codes.get(name, ErrorCode.NOT_A_BACKBONE), name):
        load(None, {"space.backbone": ["resnet18", name]})
