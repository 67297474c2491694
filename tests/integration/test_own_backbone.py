"""A search of a user's own backbone with its own front end, from settings to a prediction of the best model."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from documented import CNN10, files, importable
from reporters import unseen_display
from without_ray import by_torch, searches_in_process

from genre_core.predict import Model
from search.config.schema import SearchConfig, load
from search.export.export import export
from search.report.page import write_report
from search.run.tables import read_trials
from search.tune import search as launch


def test_a_search_of_an_own_backbone_ends_in_a_model_that_predicts(
    tiny: Callable[..., SearchConfig], music: Path, cache: Path, tmp_path: Path
) -> None:
    modules, run = tmp_path / "modules", tmp_path / "run"
    modules.mkdir()
    small = {"segment_seconds": 0.33, "segments_per_track": 1, "trials": 2, "training__epochs": 1}
    searched = {"space__backbone": CNN10, "space__frozen_blocks": [3, 4], "front_end": "mel64-32k"}
    with importable(modules, files("python")):
        with searches_in_process(by_torch):
            launch.run(tiny(**searched, **small), folder=run, cache=cache, reporter=unseen_display())
        trials = read_trials(run)
        assert trials["state"].tolist() == ["COMPLETE"] * 2
        assert set(trials["backbone"]) == {CNN10}
        assert trials["n_blocks"].tolist() == [4, 4]
        assert load(run / "config.yaml", {}).backbones == (CNN10,)
        write_report(run, tmp_path / "report.html", cache=cache)
        assert CNN10 in (tmp_path / "report.html").read_text()
        export(run, tmp_path / "exported", trial=None, onnx=False)
        card = json.loads((tmp_path / "exported" / "model.json").read_text())
        assert (card["recipe"]["backbone"], card["front_end"]["sample_rate"]) == (CNN10, 32_000)
        song = sorted(music.rglob("*.wav"))[0]
        prediction = Model.load(tmp_path / "exported").predict(song)
    assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-5)
