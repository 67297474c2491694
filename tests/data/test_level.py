"""The setting `level` of a search, and its default for searches that predate it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from noise import RECIPE
from refusals import refused
from reporters import unseen_display

from genre_core.corpus.audit import audit
from genre_core.corpus.splits import split_corpus
from genre_core.corpus.tracks import read_corpus
from genre_core.system.disk_cache import NodeCache
from search.config.schema import SearchConfig, load, to_yaml
from search.data.prepare import prepare_resumed
from search.errors import SearchErrorCode
from search.tune.torch_trainer import TorchTrainer, WorkingSet


def _written(config: SearchConfig, file: Path, *, without_level: bool = False) -> Path:
    settings = yaml.safe_load(to_yaml(config))
    if without_level:
        del settings["level"]
    file.write_text(yaml.safe_dump(settings))
    return file


@pytest.mark.parametrize(
    ("provenance", "without_level", "overrides", "level"),
    [
        (None, True, {}, "track"),
        ({}, True, {}, "absolute"),
        ({"corpus": "0"}, True, {}, "absolute"),
        ({"corpus": "0"}, True, {"trials": 9}, "absolute"),
        ({"corpus": "0"}, True, {"level": "track"}, "track"),
        ({"corpus": "0"}, False, {}, "track"),
    ],
)
def test_a_run_without_a_level_predates_the_setting_and_is_absolute(
    provenance: dict[str, Any] | None,
    without_level: bool,
    overrides: dict[str, Any],
    level: str,
    tmp_path: Path,
) -> None:
    config = load(None, {}).model_copy(update={"provenance": provenance})
    file = _written(config, tmp_path / "config.yaml", without_level=without_level)
    assert load(file, overrides).level == level


def test_an_unknown_level_in_the_settings_is_refused_with_the_known_ones() -> None:
    with refused(SearchErrorCode.SETTING_INVALID, "'track'", "'absolute'", "level='loud'"):
        load(None, {"level": "loud"})


@pytest.mark.parametrize("older", [True, False])
def test_a_search_goes_on_with_the_levels_that_it_began_with(
    older: bool,
    tiny: Callable[..., SearchConfig],
    music: Path,
    cache: Path,
    tmp_path: Path,
) -> None:
    """From config.yaml to the mels and the model cards, without Ray."""
    found = audit(read_corpus(music), minimum_seconds=3.0, cache=cache)
    tracks = split_corpus(found, validation=0.2, test=0.2, seed=0)
    began = tiny().model_copy(update={"provenance": {"corpus": tracks.fingerprint}})
    config = load(_written(began, tmp_path / "config.yaml", without_level=older), {})
    prepared = prepare_resumed(config, tracks, cache=cache, reporter=unseen_display())
    highest = float(prepared.train.mels[torch.arange(len(prepared.train.mels))].max())
    assert (highest == 0) is not older
    given = WorkingSet.of(
        config,
        genres=prepared.genres,
        split=prepared.split,
        cache=cache,
        train=prepared.train,
        validation=prepared.validation,
        weights=prepared.weights,
        device="cpu",
        gpu_shared=False,
    )
    trainer = TorchTrainer(given, node_cache=NodeCache(tmp_path, budget_bytes=0), weights=None)
    card = trainer.card(RECIPE, trial=0, epoch=1)
    assert card["front_end"]["level"] == ("absolute" if older else "track")
    assert load(_written(config, tmp_path / "again.yaml"), {}).level == card["front_end"]["level"]
