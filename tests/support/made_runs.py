"""Run folders as a search leaves them, made in milliseconds without Ray or training."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import yaml

from genre_core.corpus.corpus_table import load_corpus, write_corpus
from genre_core.corpus.tracks import SPLITS, Corpus, Track
from genre_core.models.artifact import SHARED
from genre_core.recipe import Recipe
from search.config.schema import SearchConfig, load, to_yaml
from search.engine.forecast import Plan
from search.engine.messages import EpochReport, Usage
from search.engine.recorder import Recorder
from search.run.folder import RunFolder
from search.run.identity import new_identity
from search.run.model_store import kept_models, write_model
from search.run.schemas import FINISH, EpochRow, FinalRow, TestTrackRow, TrialRow, new_trial
from search.run.tables import ResultsWriter, read_trials, write_finish, write_test_tracks
from search.study.pruners import make_pruner
from search.study.samplers import make_sampler
from search.study.study import Study
from search.study.suggest import sample
from search.study.without_repeats import without_repeats

RECIPE = Recipe(
    backbone="resnet18", weights="random", frozen_blocks=2, learning_rate=0.01, momentum=0.9, epochs=3
)
SETTINGS: dict[str, Any] = {
    "weights": "random",
    "space.backbone": ["resnet18", "alexnet"],
    "training.epochs": 3,
    "sampler": "random",
    "pruner": "none",
}


class Quiet:
    """A reporter that remembers its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def trial(self, row: TrialRow) -> None:
        """Nothing is shown."""

    def expect(self, trials: int) -> None:
        """Nothing is shown."""

    def plan(self, plan: Plan) -> None:
        """Nothing is shown."""

    def working(self, title: str) -> AbstractContextManager[None]:
        """Nothing is shown."""
        return nullcontext()

    def phase(self, title: str) -> None:
        """Nothing is shown."""

    def epoch(self, row: EpochRow) -> None:
        """Nothing is shown."""

    def meter(self, seconds: Callable[[], float]) -> None:
        """Nothing is shown."""

    def take_up(self, rows: Sequence[TrialRow], curves: Mapping[int, Mapping[int, float]]) -> None:
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
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> Path:
    """A run whose trials have the given learning curves.

    A trial with all three epochs is COMPLETE, with two PRUNED, with one stopped by the time budget, with none FAIL.

    Args:
        folder: the run's folder.
        curves: validation F1 by epoch, for each trial.
        running: whether the last trial is RUNNING, as after a driver was killed.
        settings: changes to SETTINGS by dotted key.
    """
    folder.mkdir(parents=True)
    config = load(None, {**SETTINGS, "trials": len(curves), **settings})
    config = config.model_copy(update={"provenance": new_identity(folder).provenance})
    (folder / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    study = Study(
        folder / "study.journal",
        name=folder.name,
        sampler=without_repeats(make_sampler("random", {}, seed=0), config, asked=0),
        pruner=make_pruner("none", {}, epochs=3),
    )
    recorder = Recorder(study, ResultsWriter(folder), name=folder.name, show=lambda row: None)
    for number, scores in enumerate(curves):
        recipe = sample(study.ask(), config)
        recorder.begin(number, recipe)
        for epoch, f1 in enumerate(scores, 1):
            recorder.epoch(epoch_report(number, scores[:epoch]), took=1.0, first=epoch == 1)
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


def make_reportable(run: Path) -> None:
    """Add to a run of `make_run` what a report needs, and delete its models, whose cards have no predictions.

    Its corpus has two genres, with two tracks in each split, whose files do not exist.
    """
    shutil.rmtree(RunFolder(run).models)
    corpus = Corpus(
        tuple(
            Track(
                track_id=(name := f"{genre}/{split}-{number}.wav"),
                location=str(run / "music" / name),
                genre=genre,
                group=name,
                split=split,
                seconds=3.0,
                content=name,
            )
            for genre in ("drone", "noise")
            for split in SPLITS
            for number in range(2)
        )
    )
    write_corpus(corpus, RunFolder(run).corpus)


def without_setting(run: Path) -> None:
    """Make the config.yaml of a run look as before the setting `as_share` of the frozen depth existed."""
    settings = yaml.safe_load(RunFolder(run).config.read_text(encoding="utf-8"))
    del settings["space"]["frozen_blocks"]["as_share"]
    RunFolder(run).config.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")


def epoch_report(
    trial: int,
    scores: Sequence[float],
    *,
    attempt: int = 1,
    finished: bool = False,
    node: str = "node",
    replayed: bool = False,
) -> EpochReport:
    """The report of a trial's latest epoch, with two genres; an epoch takes a second.

    Args:
        trial: its number.
        scores: its validation F1 by epoch, up to this one.
        attempt: which worker of the trial reports it.
        finished: whether the fine-tune has reached its own end.
        node: the worker's.
        replayed: whether the epoch comes from a checkpoint.
    """
    f1 = scores[-1]
    row = EpochRow(
        trial=trial,
        attempt=attempt,
        epoch=len(scores),
        train_loss=1.0,
        val_loss=1.0,
        val_accuracy=f1,
        val_precision=f1,
        val_recall=f1,
        val_f1=f1,
        f1_per_genre=(f1, f1),
        confusion=((1, 0), (0, 1)),
        learning_rate=0.01,
        seconds=1.0,
        arithmetic_seconds=0.9,
        samples_per_second=100.0,
    )
    usage = Usage(
        trainable_parameters=1000,
        features="none",
        features_seconds=0.0,
        resident=True,
        total_seconds=float(len(scores)),
        memory_before_bytes=1,
        peak_memory_bytes=2,
        device="cpu",
        node=node,
        pid=1,
    )
    best_epoch = int(np.argmax(scores)) + 1
    return EpochReport(row=row, usage=usage, best_epoch=best_epoch, finished=finished, replayed=replayed)


def trial_row(number: int, **values: Any) -> TrialRow:
    """The row of a trial that has just begun, with these values."""
    return replace(new_trial("s", number, RECIPE, started=datetime.now(UTC)), **values)


def final_row(trial: int, seed: int, *, score: float = 0.5, n_genres: int = 2, **values: Any) -> FinalRow:
    """The row of a final model, with these values; its intervals reach 0.125 to both sides of its scores."""
    ends = {"": score, "_low": score - 0.125, "_high": score + 0.125}
    metrics = ("accuracy", "precision", "recall", "f1")
    scores = {f"test_{metric}{end}": value for metric in metrics for end, value in ends.items()}
    row: dict[str, Any] = {
        "study": "s",
        "rank": 1,
        "backbone": "resnet18",
        "frozen_blocks": 3,
        "learning_rate": 0.01,
        "momentum": 0.9,
        "epochs": 2,
        "val_f1": 0.75,
        "test_loss": 1.0,
        "f1_per_genre": (score,) * n_genres,
        "confusion": tuple(map(tuple, np.eye(n_genres, dtype=int).tolist())),
        "seconds": 1.0,
    }
    return FinalRow(**row | scores | {"trial": trial, "seed": seed} | values)


def track_rows(trial: int, seed: int, corpus: Corpus) -> list[TestTrackRow]:
    """Rows of a final model that gets every test track right, without being any surer of one genre."""
    n_genres = len(corpus.genres)
    return [
        TestTrackRow(
            trial=trial,
            seed=seed,
            track_id=track.track_id,
            genre=track.genre,
            predicted=track.genre,
            probabilities=(1 / n_genres,) * n_genres,
        )
        for track in corpus.part("test")
    ]


def make_finish(run: Path, test_f1: Mapping[tuple[int, int], float]) -> Corpus:
    """The tables of a finished run, whose final models all predict the test set correctly.

    Args:
        run: the folder of a run with a corpus and these trials.
        test_f1: (trial, seed) -> test F1, the configurations in order of rank.

    Returns:
        The run's corpus.
    """
    corpus, trials = load_corpus(run / "corpus.parquet"), read_trials(run).set_index("trial", drop=False)
    ranks = {trial: rank for rank, trial in enumerate(dict.fromkeys(trial for trial, _ in test_f1), start=1)}
    shared = [name for name in FINISH.names if name in trials and name not in ("trial", "seed", "seconds")]
    write_test_tracks(run, [row for trial, seed in test_f1 for row in track_rows(trial, seed, corpus)])
    write_finish(
        run,
        [
            final_row(
                trial,
                seed,
                score=f1,
                n_genres=len(corpus.genres),
                rank=ranks[trial],
                **{name: trials.at[trial, name] for name in shared},
            )
            for (trial, seed), f1 in test_f1.items()
        ],
    )
    return corpus


def make_final_model(run: Path, trial: int, seed: int) -> Path:
    """A final model: a copy of a kept one, with a card as `finish` writes it."""
    folder = RunFolder(run).final_model(trial, seed)
    kept = min(kept_models(run))
    shutil.copytree(kept, folder)
    if (kept.parent / SHARED).exists():
        shutil.copytree(kept.parent / SHARED, folder.parent / SHARED, dirs_exist_ok=True)
    card = json.loads((folder / "model.json").read_text())
    final = {name: value for name, value in card.items() if not name.startswith("validation")}
    final |= {
        "trial": trial,
        "recipe": card["recipe"] | {"seed": seed},
        "trained_on": ["train", "validation"],
    }
    (folder / "model.json").write_text(json.dumps(final))
    return folder


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
    from search.tune import search  # with Ray, which takes seconds and which most tests do without

    reporter = Quiet()
    config: SearchConfig = load(folder / "config.yaml", changes)
    assert search.resume(config, folder=folder, cache=cache or folder / "no-cache", reporter=reporter)
    return reporter.lines
