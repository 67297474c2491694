"""Run folders with made-up results, written in milliseconds without Ray or training."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genre_core.corpus.tracks import Corpus, load_corpus
from genre_core.recipe import Recipe
from search.config.schema import SearchConfig, load, to_yaml
from search.engine.recorder import Recorder
from search.run.identity import new_identity
from search.run.model_store import final_model, kept_models, write_model
from search.run.tables import FINISH, ResultsWriter, read_trials, write_finish, write_test_tracks
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
_INTERVAL = {"": 0.0, "_low": -0.1, "_high": 0.1}
"""Distances of a score and of the ends of its interval from the score."""


class Quiet:
    """A reporter that records its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def trial(self, row: Any) -> None:
        """Ignored."""

    def expect(self, trials: int) -> None:
        """Ignored."""

    def take_up(self, rows: Any) -> None:
        """Ignored."""

    def progress(self, title: str) -> Any:
        raise AssertionError(f"nothing must be computed, but got {title}")

    def searching(self) -> Any:
        raise AssertionError("no trial must run")


def make_run(
    folder: Path,
    curves: Sequence[Sequence[float]] = ((0.2, 0.5, 0.4), (0.3, 0.1), (0.6, 0.7, 0.8)),
    *,
    running: bool = False,
) -> Path:
    """A run whose trials have the given learning curves.

    A trial with three epochs is COMPLETE, with two PRUNED, with one cut off by the time budget, with none FAIL.

    Args:
        folder: the run's folder.
        curves: validation F1 by epoch, for each trial.
        running: whether the last trial is RUNNING, as after a driver was killed.
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
    """A worker's report of an epoch of a trial with the given learning curve."""
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
    """A kept model with one tensor and the fields of its card that the model store reads."""
    place = folder / "models" / f"trial-{trial:05d}-epoch-{epoch:03d}"
    card = {"trial": trial, "epoch": epoch, "validation": {"f1": f1}}
    write_model(place, {"head.bias": np.zeros(2, np.float32)}, card)
    for earlier in place.parent.glob(f"trial-{trial:05d}-*"):
        if earlier != place:
            for file in earlier.iterdir():
                file.unlink()
            earlier.rmdir()
    return place


def make_finish(run: Path, test_f1: Mapping[tuple[int, int], float]) -> Corpus:
    """The tables of a finished run, whose final models all predict the test set correctly.

    Every test score of a final model is the given F1, with an interval of 0.1 on both sides.

    Args:
        run: the folder of a run with a corpus and these trials.
        test_f1: (trial, seed) -> test F1, the configurations in order of rank.

    Returns:
        The run's corpus.
    """
    corpus, trials = load_corpus(run / "corpus.parquet"), read_trials(run).set_index("trial", drop=False)
    n_genres = len(corpus.genres)
    ranks = {trial: rank for rank, trial in enumerate(dict.fromkeys(trial for trial, _ in test_f1), start=1)}
    shared = [name for name in FINISH.names if name in trials and name not in ("seed", "seconds")]
    scores = ("accuracy", "precision", "recall", "f1")
    rows: list[dict[str, Any]] = [
        {name: trials.at[trial, name] for name in shared}
        | {"rank": ranks[trial], "seed": seed, "test_loss": 1.0, "seconds": 1.0}
        | {f"test_{name}{end}": f1 + off for name in scores for end, off in _INTERVAL.items()}
        | {"f1_per_genre": [f1] * n_genres, "confusion": np.eye(n_genres, dtype=int).tolist()}
        for (trial, seed), f1 in test_f1.items()
    ]
    predictions = [
        {"trial": trial, "seed": seed, "track_id": track.track_id, "genre": track.genre}
        | {"predicted": track.genre, "probabilities": [1 / n_genres] * n_genres}
        for trial, seed in test_f1
        for track in corpus.part("test")
    ]
    write_test_tracks(run, predictions)
    write_finish(run, rows)
    return corpus


def make_final_model(run: Path, trial: int, seed: int) -> Path:
    """A final model: a copy of a kept one, with a card as `finish` writes it."""
    folder = final_model(run, trial, seed)
    shutil.copytree(min(kept_models(run)), folder)
    card = json.loads((folder / "model.json").read_text())
    final = {name: value for name, value in card.items() if not name.startswith("validation")}
    final |= {
        "trial": trial,
        "recipe": card["recipe"] | {"seed": seed},
        "trained_on": ["train", "validation"],
    }
    (folder / "model.json").write_text(json.dumps(final))
    return folder


def resume(folder: Path, *, cache: Path | None = None, **changes: Any) -> list[str]:
    """Resume a run without remaining trials, in this process; returns the reported lines."""
    screen = Quiet()
    config: SearchConfig = load(folder / "config.yaml", changes)
    assert search.resume(config, folder=folder, cache=cache or folder / "no-cache", screen=screen)
    return screen.lines
