"""A search over a real Ray: repeatable, one process for all trials of a worker, honest about what fails."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import torchvision
from invariants import check
from processes import below, title
from ray import tune
from ray.tune.experiment import Trial
from rich.console import Console
from workers import FailingNodeTrial, PatientBarrier, SteadyTrial

from genre_core.corpus.tracks import load_corpus
from genre_core.errors import InputError
from genre_core.models.pretrained import imagenet_file
from search.cli.progress import Display
from search.config.schema import SearchConfig
from search.run.schemas import TrialRow
from search.run.tables import read_epochs, read_trials
from search.tune import mlflow
from search.tune import search as launch

pytestmark = pytest.mark.usefixtures("small_ray")

Search = Callable[..., pd.DataFrame]


class WithEvent(Display):
    """A display that lets something happen between the preparation and the first trial."""

    def __init__(self, event: Callable[[], object], trials: int) -> None:
        super().__init__(Console(file=StringIO()), trials=trials)
        self._event = event

    @contextmanager
    def searching(self) -> Iterator[None]:
        self._event()
        yield


@pytest.fixture
def search(tiny: Callable[..., SearchConfig], cache: Path, tmp_path: Path) -> Search:
    """Runs a tiny search with these changes, and gives its trials."""

    def run(name: str = "r", event: Callable[[], object] = lambda: None, **changes: Any) -> pd.DataFrame:
        config = tiny(**changes)
        launch.run(config, folder=tmp_path / name, cache=cache, reporter=WithEvent(event, config.trials))
        return read_trials(tmp_path / name)

    return run


def test_with_one_worker_a_search_repeats_exactly_with_and_without_shared_features(
    search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "GenreTrial", SteadyTrial)
    pruner = {"name": "median", "n_startup_trials": 2, "n_warmup_steps": 0}
    shared, apart = (search(str(gib), feature_cache=gib, trials=4, pruner=pruner, seed=5) for gib in (1, 0))
    columns = ["trial", "state", "learning_rate", "momentum", "frozen_blocks", "val_f1", "val_loss"]
    assert shared[columns].to_dict("records") == apart[columns].to_dict("records")
    with_, without = (read_epochs(tmp_path / name)["val_loss"].tolist() for name in ("1", "0"))
    assert with_ == without
    assert set(shared["features"]) == {"shared"}
    assert set(apart["features"]) == {"computed"}
    assert shared["learning_rate"].nunique() == len(shared), "each trial has its own parameters"
    assert shared["pid"].nunique() == 1, "one process serves them all"


@pytest.mark.long
def test_after_fifty_trials_the_worker_holds_no_more_memory_than_after_ten(search: Search) -> None:
    pruner = {"name": "median", "n_startup_trials": 3, "n_warmup_steps": 0}
    trials = search(
        trials=50,
        pruner=pruner,
        space__backbone=["resnet18", "alexnet"],
        space__frozen_blocks=[0, 5],
        training__epochs=2,
        segment_seconds=3.0,
        keep_models=0,
        checkpoint_budget=0,  # a fully trained AlexNet would send half a gigabyte an epoch
    )
    assert {"COMPLETE", "PRUNED"} <= set(trials["state"])
    assert trials["pid"].nunique() == 1
    before = trials.sort_values("started")["memory_before_bytes"]
    assert before.iloc[-10:].median() < 1.05 * before.iloc[10:20].median()


def test_three_windows_fill_the_three_channels_and_masking_at_the_input_shares_nothing(
    search: Search,
) -> None:
    trials = search(
        front_end="mel128x3", segment_seconds=1.5, training__augment_at="input", space__masking=0.2, trials=1
    )
    assert trials["state"].tolist() == ["COMPLETE"]
    assert trials["features"].tolist() == ["computed"]


def test_bfloat16_trains_and_is_recorded(search: Search) -> None:
    trials = search(precision="bfloat16", space__frozen_blocks=5, training__epochs=1, trials=1)
    assert trials["precision"].tolist() == ["bfloat16"]
    assert trials["state"].tolist() == ["COMPLETE"]


class Starts(tune.Callback):
    """Notes with each worker's start how many trials have been given out."""

    def __init__(self) -> None:
        self.given_out: list[int] = []

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        self.given_out.append(len(trials))


def test_trials_that_are_shorter_than_a_workers_start_still_run_on_all_workers(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = Starts()
    monkeypatch.setattr(mlflow, "callbacks", lambda *_: [starts])
    monkeypatch.setattr(launch, "GenreTrial", SteadyTrial)
    monkeypatch.setattr(launch, "StartupBarrier", PatientBarrier)
    trials = search(workers=2, trials=12, training__epochs=1, space__frozen_blocks=5)
    assert trials["pid"].nunique() == 2
    assert trials["pid"].value_counts().min() >= 2, "a worker that has started serves more than its first"
    assert starts.given_out[0] == 2, "workers start at the same time, not one after the other"


def test_a_diverging_trial_fails_with_its_reason_and_the_search_continues_until_its_space_is_used_up(
    tiny: Callable[..., SearchConfig], cache: Path, tmp_path: Path
) -> None:
    config = tiny(
        space__learning_rate=[0.01, 1e30], space__momentum=0.9, space__frozen_blocks=5, training__epochs=2
    )
    screen = StringIO()
    display = Display(Console(file=screen, width=200), trials=config.trials)
    assert launch.run(config, folder=tmp_path / "r", cache=cache, reporter=display), "it came to its own end"
    trials = read_trials(tmp_path / "r").sort_values("learning_rate")
    assert trials[["learning_rate", "state"]].values.tolist() == [[0.01, "COMPLETE"], [1e30, "FAIL"]]
    kept, diverged = trials["error"].fillna("")
    assert (kept, diverged.startswith("Diverged: diverged in epoch 1")) == ("", True)
    assert screen.getvalue().count("--repeat-seeds 2") == 1


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file of weights."""
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "w.pth")
    return tmp_path / "w.pth"


def test_a_worker_that_raises_fails_its_trial_with_the_reason_and_a_search_without_another(
    search: Search, weights: Path, tmp_path: Path
) -> None:
    with pytest.raises(launch.SearchFailed, match="weights must be a state dict"):
        search(weights=str(weights), trials=1, event=weights.unlink)
    trials = read_trials(tmp_path / "r")
    assert trials["state"].tolist() == ["FAIL"]
    assert "w.pth cannot be read" in trials["error"].iloc[0]


def test_a_trial_whose_node_fails_is_given_out_again_and_the_search_goes_on(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "GenreTrial", FailingNodeTrial)
    monkeypatch.setattr(launch, "StartupBarrier", PatientBarrier)
    trials = search(workers=2, trials=3, training__epochs=1, space__frozen_blocks=5).sort_values("trial")
    assert trials["state"].tolist() == ["COMPLETE"] * 3
    assert trials["attempt"].tolist() == [2, 1, 1]


def test_the_drivers_imagenet_weights_reach_workers_that_have_none(
    search: Search, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))  # the driver's: Ray's workers were born before
    file = imagenet_file("resnet18")
    if (Path.home() / ".cache/torch/hub/checkpoints" / file.name).exists():
        pytest.skip("needs workers without ImageNet weights of their own")
    file.parent.mkdir(parents=True)
    torch.save(torchvision.models.resnet18().state_dict(), file)
    trials = search(weights="imagenet", trials=1, training__epochs=1)
    assert trials["state"].tolist() == ["COMPLETE"]
    assert trials["weights"].tolist() == ["imagenet"]
    assert (cache / "shared" / f"weights-{file.name}").exists()


def test_in_a_ray_that_goes_on_a_search_leaves_no_process(search: Search, weights: Path) -> None:
    search(weights=str(weights), trials=1, training__epochs=1)
    _require_no_process()


class Killing(Display):
    """A display that kills one of the search's helper processes after each of the first epochs."""

    def __init__(self, *helpers: str) -> None:
        super().__init__(Console(file=StringIO()))
        self.left = list(helpers)

    def trial(self, row: TrialRow) -> None:
        super().trial(row)
        if row.epochs and self.left:
            helper, until = f"ray::{self.left.pop(0)}", time.monotonic() + 100
            while not (found := [p for p in below(os.getpid()) if title(p).startswith(helper)]):
                assert time.monotonic() < until, f"{helper} was not started again"
                time.sleep(0.05)
            found[0].kill()
            found[0].wait()


def test_helpers_that_die_between_epochs_are_replaced_and_cost_nothing(
    tiny: Callable[..., SearchConfig], weights: Path, cache: Path, tmp_path: Path
) -> None:
    run, config = tmp_path / "r", tiny(weights=str(weights), workers=2, keep_models=2)
    screen = Killing(*("ModelStore", "CheckpointStore", "WeightsFiles", "StartupBarrier") * 2)
    launch.run(config, folder=run, cache=cache, reporter=screen)
    assert not screen.left
    found = check(run, trials=config.trials, keep_models=2)
    assert (found.failed, found.restarted, found.epochs_repeated) == (0, 0, 0)
    _require_no_process()


def _require_no_process() -> None:
    until = time.monotonic() + 100
    while left := _rays_workers() - {"IDLE", "DashboardAgent", "RuntimeEnvAgent"}:
        assert time.monotonic() < until, left
        time.sleep(0.1)


def _rays_workers() -> set[str]:
    """What Ray calls its processes that do something, or wait to."""
    titles = (title(process).strip() for process in below(os.getpid()))
    return {text.removeprefix("ray::") for text in titles if text.startswith("ray::")}


def test_bad_files_are_left_out_named_and_recorded(search: Search, music: Path, tmp_path: Path) -> None:
    spoilt = tmp_path / "music"
    shutil.copytree(music, spoilt)
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
    ("changes", "words"),
    [
        ({"front_end": "mel256"}, "front_end must be one of"),
        ({"segment_seconds": 0.5}, "segment_seconds must give 32 frames, but 0.5 gives 10 with mel64"),
        ({"segment_seconds": 2.0, "space.backbone": "alexnet"}, "segment_seconds must give 63 frames"),
        ({"weights": "nowhere.pth"}, "weights must be a state dict"),
        ({"data": "nowhere"}, "nowhere is neither"),
        ({"split.test": 0.9}, "split.test: input should be less than 0.5"),
        ({"sampler": "tpee"}, "sampler.name must be one of"),
        ({"pruner": {"name": "median", "warmup": 1}}, "pruner median takes"),
        ({"trials_per_gpu": 2}, "--trials-per-gpu must be 0 where the cluster has no GPU, but got 2"),
        (
            {"cpus_per_trial": 64, "workers": None},
            "--cpus-per-trial must be at most 2, the cores of the largest node, but got 64",
        ),
        ({"segment_seconds": 3.3}, "100% are: 60 of 60 files left out: 60 shorter than a segment"),
    ],
    ids=lambda case: str(case)[:40],
)
def test_a_mistake_that_shows_only_in_use_is_refused_in_one_line(
    changes: dict[str, Any], words: str, search: Search, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        search(**{key.replace(".", "__"): value for key, value in changes.items()})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "r").exists(), "a refused search takes no name"
