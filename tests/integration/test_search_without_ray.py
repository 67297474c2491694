"""A whole search in one process: it repeats exactly, refuses mistakes, and records the files it leaves out."""

import json
import shutil
from collections.abc import Callable
from enum import StrEnum
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fakes import DIVERGED, AnalyticTrainer
from invariants import check
from made_runs import without_setting
from refusals import refused
from reporters import unseen_display
from rich.console import Console
from small_models import models_of
from without_ray import MakeTrainer, analytic, by_torch, searches_in_process

from genre_core.corpus.corpus_table import load_corpus
from genre_core.errors import ErrorCode
from genre_core.training import activation_cache
from search.config.schema import SearchConfig, load
from search.display.progress import Display
from search.errors import SearchErrorCode
from search.run.tables import read_epochs, read_trials
from search.study.journal import own_trials
from search.tune import search as launch
from search.tune.torch_trainer import WorkingSet

Search = Callable[..., pd.DataFrame]


@pytest.fixture
def search(tiny: Callable[..., SearchConfig], cache: Path, tmp_path: Path) -> Search:
    """Run a tiny search with these changes; return its trials. One that trains has a cache of its own, as the networks
    may be small."""

    def run(name: str = "r", trainer: MakeTrainer = analytic, **changes: Any) -> pd.DataFrame:
        display, own = unseen_display(), cache if trainer is analytic else tmp_path / "cache"
        with searches_in_process(trainer):
            launch.run(tiny(**changes), folder=tmp_path / name, cache=own, reporter=display)
        return read_trials(tmp_path / name)

    return run


def test_with_one_worker_a_search_repeats_exactly_with_and_without_shared_activations(
    search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activation_cache, "caching_is_faster", lambda *_, **__: True)
    pruner = {"name": "median", "n_startup_trials": 2, "n_warmup_steps": 0}
    with models_of("small"):
        shared, apart = (
            search(str(gib), by_torch, feature_cache=gib, trials=4, pruner=pruner, seed=5) for gib in (1, 0)
        )
    columns = ["trial", "state", "learning_rate", "momentum", "frozen_blocks", "val_f1", "val_loss"]
    assert shared[columns].to_dict("records") == apart[columns].to_dict("records")
    with_, without = (read_epochs(tmp_path / name)["val_loss"].tolist() for name in ("1", "0"))
    assert with_ == without
    assert set(shared["features"]) == {"shared"}
    assert set(apart["features"]) == {"computed"}
    assert shared["learning_rate"].nunique() == len(shared), "each trial has its own parameters"


def test_a_search_of_both_optimizers_trains_with_each_and_its_lost_study_is_rebuilt(
    search: Search, tmp_path: Path
) -> None:
    enqueue = [{"optimizer": name, "learning_rate": 0.003} for name in ("adamw", "sgd")]
    changes = {"space__optimizer": ["sgd", "adamw"], "space__frozen_blocks": 4, "enqueue": enqueue}
    with models_of("small"):
        trials = search("r", by_torch, trials=2, keep_models=2, **changes).sort_values("trial")
        assert trials["optimizer"].tolist() == ["adamw", "sgd"]
        folder = tmp_path / "r"
        cards = [json.loads(card.read_text()) for card in sorted(folder.glob("models/*/model.json"))]
        assert [card["recipe"]["optimizer"] for card in cards] == ["adamw", "sgd"]
        alone = {**changes, "space__optimizer": "adamw", "enqueue": [{"learning_rate": 0.003}]}
        momentum = float(trials["momentum"].iloc[0])
        search("alone", by_torch, trials=1, space__momentum=momentum, **alone)
        (folder / "study.journal").unlink()
        with searches_in_process(by_torch):
            longer = load(folder / "config.yaml", {"trials": 3})
            launch.resume(longer, folder=folder, cache=tmp_path / "cache", reporter=unseen_display())
    losses = [
        epochs[epochs["trial"] == 0]["train_loss"].tolist()
        for epochs in map(read_epochs, (folder, tmp_path / "alone"))
    ]
    assert losses[0] == losses[1], "AdamW is AdamW whether it was searched or not"
    assert read_trials(folder).sort_values("trial")["optimizer"].tolist()[:2] == ["adamw", "sgd"]
    check(folder, trials=3, keep_models=2)


def test_a_search_whose_every_trial_fails_raises_the_first_reason(search: Search, tmp_path: Path) -> None:
    def diverging(_: WorkingSet) -> AnalyticTrainer:
        trainer = AnalyticTrainer()
        trainer.failures = [DIVERGED, DIVERGED]
        return trainer

    with pytest.raises(launch.SearchFailed, match="Diverged"):
        search(trainer=diverging, trials=2)
    assert read_trials(tmp_path / "r")["state"].tolist() == ["FAIL"] * 2


def test_a_search_ends_when_its_finite_space_is_used_up_and_shows_how_to_continue(
    tiny: Callable[..., SearchConfig], cache: Path, tmp_path: Path
) -> None:
    config = tiny(trials=20, space__learning_rate=[0.003, 0.01], space__momentum=0.9, space__frozen_blocks=5)
    screen = StringIO()
    with searches_in_process():
        display = Display(Console(file=screen, width=200), trials=config.trials)
        assert launch.run(config, folder=tmp_path / "r", cache=cache, reporter=display), (
            "it is not interrupted"
        )
    assert sorted(read_trials(tmp_path / "r")["learning_rate"]) == [0.003, 0.01]
    assert screen.getvalue().count("--repeat-seeds 2") == 1


def test_a_search_of_the_whole_depth_that_an_earlier_version_began_keeps_its_parameters(
    tiny: Callable[..., SearchConfig], cache: Path, tmp_path: Path
) -> None:
    folder, display = tmp_path / "r", unseen_display()
    backbones = ["resnet18", "densenet121"]
    config = tiny(space__frozen_blocks={"as_share": False}, space__backbone=backbones, trials=3)
    with searches_in_process():
        launch.run(config, folder=folder, cache=cache, reporter=display)
        without_setting(folder)
        launch.resume(
            load(folder / "config.yaml", {"trials": 14}), folder=folder, cache=cache, reporter=display
        )
    check(folder, trials=14, keep_models=3)
    sampled = [{name for name in trial.params if "frozen" in name} for trial in own_trials(folder)]
    rows = read_trials(folder).set_index("trial").sort_index()
    assert sampled == [{f"frozen_blocks_{backbone}"} for backbone in rows["backbone"]]
    assert set(rows["backbone"]) == set(backbones)


@pytest.mark.parametrize("given", [{"search": "cost_aware"}, {"sampler": "tpe", "pruner": "median"}], ids=str)
def test_enqueued_configurations_come_first_and_once_though_the_search_is_interrupted_and_its_study_lost(
    given: dict[str, Any], tiny: Callable[..., SearchConfig], cache: Path, tmp_path: Path
) -> None:
    rates = [0.011, 0.012, 0.013, 0.014]
    enqueue = [{"learning_rate": rate, "backbone": "resnet18", "frozen_blocks": 5} for rate in rates]
    config = tiny(trials=3, space__frozen_blocks={"low": 0, "high": "all"}, enqueue=enqueue, **given)
    folder, screen = tmp_path / "r", StringIO()

    def resume(trials: int, reports: int | None = None) -> list[float]:
        display = Display(Console(file=screen, width=200), trials=trials)
        with searches_in_process(reports=reports):
            launch.resume(
                load(folder / "config.yaml", {"trials": trials}), folder=folder, cache=cache, reporter=display
            )
        found: list[float] = read_trials(folder).sort_values("trial")["learning_rate"].tolist()
        return found

    with searches_in_process(reports=2):
        launch.run(config, folder=folder, cache=cache, reporter=Display(Console(file=screen, width=200)))
    assert resume(3) == rates[:3]
    assert f"resume {folder} --trials 4" in screen.getvalue()
    (folder / "study.journal").unlink()
    begun = resume(6, reports=3)
    assert begun[:4] == rates
    begun = resume(6)
    assert begun[:4] == rates
    assert not set(begun[4:]) & set(rates)
    check(folder, trials=6, keep_models=3)


def test_bad_audio_files_are_excluded_and_recorded_with_their_reasons(
    search: Search, music: Path, tmp_path: Path
) -> None:
    spoilt = shutil.copytree(music, tmp_path / "music")
    (spoilt / "manifest.csv").unlink()
    (spoilt / "jazz" / "jazz.00002.wav").write_text("not audio")
    (spoilt / "rock" / "._rock.00000.wav").write_bytes(b"junk")
    shutil.copy(spoilt / "pop" / "pop.00000.wav", spoilt / "pop" / "again.wav")
    search(data=str(spoilt), trials=1, training__epochs=1)
    corpus = load_corpus(tmp_path / "r" / "corpus.parquet")
    reasons = {track.track_id: str(track.excluded_reason) for track in corpus.tracks if track.excluded_reason}
    assert reasons.keys() == {"jazz/jazz.00002.wav", "rock/._rock.00000.wav", "pop/pop.00000.wav"}
    assert reasons["jazz/jazz.00002.wav"].startswith("unreadable")
    assert reasons["pop/pop.00000.wav"] == "duplicate: pop/again.wav"
    assert all(track.split is None for track in corpus.tracks if track.excluded_reason)


@pytest.mark.parametrize(
    ("changes", "code", "values"),
    [
        ({"front_end": "mel256"}, ErrorCode.UNKNOWN_FRONT_END, ("front_end", "mel256", "mel64")),
        ({"segment_seconds": 0.5}, SearchErrorCode.SEGMENT_TOO_SHORT, ("segment_seconds", "0.5", "1.49")),
        (
            {"segment_seconds": 2.0, "space.backbone": "alexnet"},
            SearchErrorCode.SEGMENT_TOO_SHORT,
            ("segment_seconds", "63 frames", "2.93"),
        ),
        ({"weights": "nowhere.pth"}, ErrorCode.WEIGHTS_UNREADABLE, ("weights", "nowhere.pth")),
        ({"data": "nowhere"}, ErrorCode.CORPUS_NOT_FOUND, ("nowhere",)),
        ({"split.test": 0.9}, SearchErrorCode.SETTING_INVALID, ("split.test", "0.9", "0.5")),
        ({"sampler": "tpee"}, SearchErrorCode.SAMPLER_OR_PRUNER_UNKNOWN, ("sampler.name", "tpee", "tpe")),
        (
            {"pruner": {"name": "median", "warmup": 1}},
            SearchErrorCode.PARAMETER_UNKNOWN,
            ("pruner.warmup", "n_warmup_steps"),
        ),
        (
            {"segment_seconds": 3.3},
            SearchErrorCode.TOO_MANY_BAD_FILES,
            ("60 of 60 files", "genre-search data check"),
        ),
    ],
    ids=str,
)
def test_a_mistake_found_during_preparation_is_refused_in_one_line_and_leaves_no_folder(
    changes: dict[str, Any], code: StrEnum, values: tuple[str, ...], search: Search, tmp_path: Path
) -> None:
    with refused(code, *values):
        search(**{key.replace(".", "__"): value for key, value in changes.items()})
    assert not (tmp_path / "r").exists()
