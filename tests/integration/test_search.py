"""A search on a real Ray: faults of trials and helpers, and settings that reach the workers."""

import os
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
import torch
import torchvision
from invariants import check
from processes import below, title
from reporters import unseen_display
from rich.console import Console
from workers import FaultyTrial, PatientBarrier

from genre_core.models.pretrained import imagenet_file
from search.config.schema import SearchConfig
from search.display.progress import Display
from search.run.schemas import TrialRow
from search.run.tables import read_trials
from search.tune import search

pytestmark = pytest.mark.usefixtures("small_ray")

Make = Callable[..., SearchConfig]


def test_both_workers_start_together_and_serve_several_trials_each(run: Path) -> None:
    trials = read_trials(run)
    first, second = trials.sort_values("trial").head(2).to_dict("records")
    assert second["started"] < first["finished"]
    assert trials["pid"].nunique() == 2, "the processes stay for the next trial"
    assert trials["pid"].value_counts().min() >= 2


def test_trials_that_fail_in_different_ways_keep_their_reasons_and_the_search_continues(
    tiny: Make, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "GenreTrial", FaultyTrial)
    monkeypatch.setattr(search, "StartupBarrier", PatientBarrier)
    monkeypatch.setattr("search.engine.node_failures.REST_SECONDS", 0.1)
    config = tiny(
        workers=2, trials=5, training__epochs=1, space__frozen_blocks=5, epoch_limit="0.2s", retries=0
    )
    search.run(config, folder=tmp_path / "r", cache=cache, reporter=unseen_display())
    rows = read_trials(tmp_path / "r").set_index("trial")[["state", "attempt", "error"]].fillna("")
    failed_node, hanging, raising, diverging, sound = rows.sort_index().itertuples(index=False, name=None)
    assert failed_node == ("COMPLETE", 2, "")
    assert hanging[:2] == ("FAIL", 1)
    assert "0.2 s" in hanging[2]
    assert raising == ("FAIL", 1, "RuntimeError: broken on purpose")
    assert diverging[:2] == ("FAIL", 1)
    assert diverging[2].startswith("Diverged: ")
    assert sound == ("COMPLETE", 1, "")


def test_front_end_precision_masking_and_the_drivers_imagenet_weights_reach_the_workers(
    tiny: Make, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "TORCH_HOME", str(tmp_path / "torch")
    )  # of the driver: Ray's workers have started before
    file = imagenet_file("resnet18")
    if (Path.home() / ".cache/torch/hub/checkpoints" / file.name).exists():
        pytest.skip("needs workers without ImageNet weights of their own")
    file.parent.mkdir(parents=True)
    torch.save(torchvision.models.resnet18().state_dict(), file)
    config = tiny(
        trials=1,
        weights="imagenet",
        front_end="mel128x3",
        segment_seconds=1.5,
        precision="bfloat16",
        training__epochs=1,
        training__augment_at="input",
        space__masking=0.2,
        space__frozen_blocks=5,
    )
    search.run(config, folder=tmp_path / "r", cache=cache, reporter=unseen_display())
    row = read_trials(tmp_path / "r").iloc[0]
    assert (row.state, row.weights, row.precision) == ("COMPLETE", "imagenet", "bfloat16")
    assert row.features == "computed", "activations of masked inputs cannot be shared"
    assert (cache / "shared" / f"weights-{file.name}").exists()


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
                assert time.monotonic() < until, f"{helper} was not restarted"
                time.sleep(0.05)
            found[0].kill()
            found[0].wait()


def test_helpers_that_die_are_restarted_without_any_loss_and_end_with_the_search(
    tiny: Make, cache: Path, tmp_path: Path
) -> None:
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "w.pth")
    config = tiny(weights=str(tmp_path / "w.pth"), workers=2, keep_models=2)
    display = Killing(*("ModelStore", "CheckpointStore", "WeightsFiles", "StartupBarrier") * 2)
    search.run(config, folder=tmp_path / "r", cache=cache, reporter=display)
    assert not display.left
    found = check(tmp_path / "r", trials=config.trials, keep_models=2)
    assert (found.failed, found.restarted, found.epochs_repeated) == (0, 0, 0)
    until = time.monotonic() + 100
    while left := _ray_workers() - {"IDLE", "DashboardAgent", "RuntimeEnvAgent"}:
        assert time.monotonic() < until, left
        time.sleep(0.1)


def _ray_workers() -> set[str]:
    """Titles of Ray's worker processes."""
    titles = (title(process).strip() for process in below(os.getpid()))
    return {text.removeprefix("ray::") for text in titles if text.startswith("ray::")}


@pytest.mark.long
def test_a_worker_holds_no_more_memory_after_fifty_trials_than_after_ten(
    tiny: Make, cache: Path, tmp_path: Path
) -> None:
    config = tiny(
        trials=50,
        pruner={"name": "median", "n_startup_trials": 3, "n_warmup_steps": 0},
        space__backbone=["resnet18", "alexnet"],
        space__frozen_blocks=[0, 5],
        training__epochs=2,
        segment_seconds=3.0,
        keep_models=0,
        checkpoint_budget=0,  # a fully trained AlexNet would send half a gigabyte per epoch
    )
    search.run(config, folder=tmp_path / "r", cache=cache, reporter=unseen_display())
    trials = read_trials(tmp_path / "r")
    assert {"COMPLETE", "PRUNED"} <= set(trials["state"])
    assert trials["pid"].nunique() == 1
    before = trials.sort_values("started")["memory_before_bytes"]
    assert before.iloc[-10:].median() < 1.05 * before.iloc[10:20].median()
