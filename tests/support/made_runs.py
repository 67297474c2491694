"""Run folders as a search leaves them, made in milliseconds without Ray or training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genre_core.recipe import Recipe
from search.config.schema import SearchConfig, load, to_yaml
from search.engine.recorder import Recorder
from search.run.identity import new_identity
from search.run.model_store import write_model
from search.run.tables import ResultsWriter
from search.study.pruners import make_pruner
from search.study.samplers import make_sampler
from search.study.study import Study
from search.study.suggest import sample
from search.tune import search

SETTINGS: dict[str, Any] = {
    "weights": "random",
    "space.backbone": ["resnet18", "alexnet"],
    "training.epochs": 3,
    "sampler": "random",
    "pruner": "none",
}


class Quiet:
    """A screen that remembers its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def trial(self, row: Any) -> None:
        """Nothing is shown."""

    def expect(self, trials: int) -> None:
        """Nothing is shown."""

    def take_up(self, rows: Any) -> None:
        """Nothing is shown."""

    def progress(self, title: str) -> Any:
        raise AssertionError(f"nothing is to be computed, but got {title}")

    def searching(self) -> Any:
        raise AssertionError("nothing is to be searched")


def make_run(
    folder: Path,
    curves: Sequence[Sequence[float]] = ((0.2, 0.5, 0.4), (0.3, 0.1), (0.6, 0.7, 0.8)),
    *,
    running: bool = False,
) -> Path:
    """A run whose trials have these validation F1 by epoch.

    With three a trial is COMPLETE, with two PRUNED, with one cut off by the time budget, without any FAIL.

    Args:
        folder: of the run.
        curves: of each trial.
        running: whether the last trial is RUNNING, as a killed driver leaves it.
    """
    folder.mkdir(parents=True)
    config = load(None, SETTINGS | {"trials": len(curves)})
    config = config.model_copy(update={"provenance": new_identity(folder).provenance})
    (folder / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    study = Study(
        folder / "study.journal",
        name=folder.name,
        sampler=make_sampler("random", {}, seed=0),
        pruner=make_pruner("none", {}, epochs=3),
    )
    recorder = Recorder(study, ResultsWriter(folder), name=folder.name, show=lambda row: None)
    for number, scores in enumerate(curves):
        recipe = sample(study.ask(), config)
        recorder.begin(number, recipe)
        for epoch, f1 in enumerate(scores, 1):
            recorder.epoch(number, epoch_result(epoch, scores))
            study.report(number, epoch=epoch, f1=f1)
            if f1 == max(scores[:epoch]):
                make_model(folder, number, epoch, f1, recipe)
        if running and number == len(curves) - 1:
            continue
        if not scores:
            study.fail(number, "Diverged: its loss is not finite")
        elif len(scores) == config.training.epochs:
            study.complete(number)
        elif len(scores) == 1:
            study.stop(number, "time budget")
        else:
            study.prune(number)
        recorder.changed(number)
    recorder.end(None)
    return folder


def epoch_result(epoch: int, scores: Sequence[float]) -> dict[str, Any]:
    """What a worker reports of an epoch of a trial with these F1."""
    same = dict.fromkeys(("val_accuracy", "val_precision", "val_recall", "val_f1"), scores[epoch - 1])
    return same | {
        "epoch": epoch,
        "best_epoch": int(np.argmax(scores[:epoch])) + 1,
        "train_loss": 1.0,
        "val_loss": 1.0,
        "f1_per_genre": [scores[epoch - 1]] * 2,
        "confusion": [[1, 0], [0, 1]],
        "learning_rate": 0.01,
        "seconds": 1.0,
        "arithmetic_seconds": 0.9,
        "samples_per_second": 100.0,
        "trainable_parameters": 1000,
        "features": "none",
        "features_seconds": 0.0,
        "resident": True,
        "total_seconds": float(epoch),
        "memory_before_bytes": 1,
        "peak_memory_bytes": 2,
        "device": "cpu",
        "hostname": "node",
        "pid": 1,
    }


def make_model(folder: Path, trial: int, epoch: int, f1: float, recipe: Recipe) -> Path:
    """A kept model, with a tensor and the part of its card that stores read."""
    place = folder / "models" / f"trial-{trial:05d}-epoch-{epoch:03d}"
    card = {"trial": trial, "epoch": epoch, "validation": {"f1": f1}}
    write_model(place, {"head.bias": np.zeros(2, np.float32)}, card)
    for earlier in place.parent.glob(f"trial-{trial:05d}-*"):
        if earlier != place:
            for file in earlier.iterdir():
                file.unlink()
            earlier.rmdir()
    return place


def resume(folder: Path, *, cache: Path | None = None, **changes: Any) -> list[str]:
    """Resume a run that has no trials left to run, in this process; what was said."""
    screen = Quiet()
    config: SearchConfig = load(folder / "config.yaml", changes)
    assert search.resume(config, folder=folder, cache=cache or folder / "no-cache", screen=screen)
    return screen.lines
