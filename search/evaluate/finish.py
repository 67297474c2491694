"""Finishes a search: its best configurations trained on train and validation, and then the test part read, once."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors.numpy import load_file
from scipy.special import softmax

from genre_core.corpus.tracks import Corpus
from genre_core.errors import InputError
from genre_core.models.artifact import WEIGHTS, is_complete, read_card
from genre_core.recipe import Recipe
from genre_core.training.bootstrap import bootstrap
from genre_core.training.metrics import confusion_matrix, scores
from genre_core.training.segments import SegmentArrays
from search.config.schema import SearchConfig
from search.data import prepare
from search.data.music import its_music
from search.data.reporter import Reporter
from search.evaluate import final_worker
from search.evaluate.final_worker import TRAINED_ON, FinalModel, PredictionJob, TrainingJob
from search.run.commands import command
from search.run.folder import RunFolder
from search.run.lock import driving
from search.run.model_store import write_model
from search.run.ranking import select
from search.run.schemas import FINISH, FinalRow, TestTrackRow
from search.run.tables import (
    as_indices,
    read_finish,
    read_test_look,
    read_test_tracks,
    read_trials,
    require_run,
    when_test_was_read,
    write_finish,
    write_test_tracks,
)
from search.tune import workers
from search.tune.place import Place, placed, require_room
from search.tune.search import copied
from search.tune.tasks import TaskFailed, each
from search.tune.torch_trainer import WorkingSet
from search.tune.trainable import Actors
from search.tune.workers import weights_files

TOP, SEEDS = 3, 3
"""Configurations, and seeds for each, where nothing else is asked for."""

Logits = NDArray[np.float32]
"""Of one model, [test tracks, genres]."""


class FinishFailed(Exception):
    """A final model cannot be had; the text says which, and why."""


def finish(
    config: SearchConfig,
    *,
    folder: Path,
    cache: Path,
    reporter: Reporter,
    top: int | None = None,
    seeds: int | None = None,
    data: Path | None = None,
) -> None:
    """Train the final models that are not there yet; when all are, read the test part. On return all is on disk.

    A search is finished once: where its test part has been read, it is not read again.

    Args:
        config: the run's own, perhaps with another place to run.
        folder: the run's.
        cache: where its spectrograms are.
        reporter: where to tell what is done.
        top: the best so many configurations by validation F1; TOP where it is None.
        seeds: so many seeds for each, from the search's last + 1 on; SEEDS where it is None.
        data: where the music is now, a folder or a manifest; None where it has not moved.

    Raises:
        InputError: there is nothing to finish, or it was finished otherwise than is asked for now.
        FinishFailed: a final model came to nothing.
    """
    require_run(folder)
    if read_finish(folder).empty:
        with driving(folder):
            config, tracks = its_music(config, folder, data, cache=cache, reporter=reporter)
            models = _final_models(folder, tracks, top or TOP, seeds or SEEDS, reporter)
            with copied(config, folder, reporter, resumed=True):
                if when_test_was_read(folder) is None:
                    _read_test_part(config, models, tracks, folder, cache, reporter)
                if read_finish(folder).empty:
                    write_finish(folder, _scored(folder, tracks.genres))
    _require_as_recorded(folder, top, seeds)


def _final_models(folder: Path, tracks: Corpus, top: int, seeds: int, reporter: Reporter) -> list[FinalModel]:
    """What is to be trained, the winner first: chosen by validation alone, before the test part is read."""
    if not tracks.part("test"):
        raise InputError(
            f"RUN must have a test part, but no track of {RunFolder(folder).corpus} is in it; begin a new search"
        )
    if not (best := _best(folder)):
        raise InputError(
            f"RUN must have a trial with a score, but {folder} has none; see {command('results', folder)}"
        )
    if len(best) < top:
        reporter.say(
            f"--top {top} is more than there are; configurations with a score, all taken: {len(best)}"
        )
    return [
        replace(model, recipe=replace(model.recipe, seed=model.recipe.seed + 1 + n))
        for model in best[:top]
        for n in range(seeds)
    ]


def _best(folder: Path) -> list[FinalModel]:
    """The search's configurations that have a score, as the leaderboard ranks them; one tried twice is one.

    Their seed is the last that the search tried any with.
    """
    trials = select(read_trials(folder))
    best: dict[Recipe, FinalModel] = {}
    for row in trials[trials["val_f1"].notna()].to_dict("records"):
        settings = {field.name: row[field.name] for field in fields(Recipe)}
        recipe = Recipe(**settings | {"epochs": row["max_epochs"], "seed": int(trials["seed"].max())})
        best.setdefault(recipe, FinalModel(trial=row["trial"], epochs=row["best_epoch"], recipe=recipe))
    return list(best.values())


def _read_test_part(
    config: SearchConfig,
    models: Sequence[FinalModel],
    tracks: Corpus,
    folder: Path,
    cache: Path,
    reporter: Reporter,
) -> None:
    """Train what is missing; when all models are on disk, have them predict the test part, and write that down."""
    require_room(config)
    store = prepare.reopen_store(config, tracks, cache=cache, reporter=reporter)

    def segments(*parts: str) -> SegmentArrays:
        chosen = [track for part in parts for track in tracks.part(part)]
        return prepare.segments(config, chosen, tracks.genres, store)

    missing = [model for model in models if not _is_kept(folder, model)]
    weights = prepare.verify_weights(config, reporter) if missing else {}
    train = segments(*TRAINED_ON) if missing else None
    with placed(config, train.mels.nbytes if train else 0) as place:
        if train:
            working_set = workers.working_set(
                config, tracks, place, cache=cache, train=train, validation=None, weights=weights
            )
            _train(config, missing, working_set, folder, place, reporter)
        logits = _predictions(config, models, segments("test"), folder, place, reporter)
    write_test_tracks(folder, _track_rows(models, tracks, logits))


def _train(
    config: SearchConfig,
    missing: Sequence[FinalModel],
    working_set: WorkingSet,
    folder: Path,
    place: Place,
    reporter: Reporter,
) -> None:
    """Train each model; it is on disk before the next one is waited for."""
    job = TrainingJob(working_set=working_set, actors=Actors(weights=weights_files(config, place)))
    trained = each(
        final_worker.train, missing, lambda model: (model,), shared=job, config=config, place=place
    )
    with reporter.progress("Training on train and validation") as report:
        for done, (model, (tensors, card)) in enumerate(_explained(trained), start=1):
            shutil.rmtree(_home(folder, model), ignore_errors=True)  # of a trial that was resumed since
            write_model(_home(folder, model), tensors, card)
            reporter.say(
                f"trial {model.trial:<4} seed {model.recipe.seed:<4} {model.recipe.backbone:<12} "
                f"{model.epochs} epochs  {card['seconds']:.1f} s"
            )
            report(done, len(missing))


def _predictions(
    config: SearchConfig,
    models: Sequence[FinalModel],
    test: SegmentArrays,
    folder: Path,
    place: Place,
    reporter: Reporter,
) -> dict[FinalModel, Logits]:
    """What every model predicts for the test part."""
    job = PredictionJob(test=test, device=place.device, threads=max(1, int(config.cpus_per_trial)))
    predicted = each(
        final_worker.predict,
        models,
        lambda model: (load_file(_home(folder, model) / WEIGHTS), model.recipe),
        shared=job,
        config=config,
        place=place,
    )
    logits = {}
    with reporter.progress("Reading the test part") as report:
        for model, of_tracks in _explained(predicted):
            logits[model] = of_tracks
            report(len(logits), len(models))
    return logits


def _explained(results: Iterator[tuple[FinalModel, Any]]) -> Iterator[tuple[FinalModel, Any]]:
    """The same results; a task that failed is named."""
    try:
        yield from results
    except TaskFailed as error:
        model: FinalModel = error.item
        raise FinishFailed(f"trial {model.trial} with seed {model.recipe.seed} failed: {error}") from error


def _home(folder: Path, model: FinalModel) -> Path:
    return RunFolder(folder).final_model(model.trial, model.recipe.seed)


def _is_kept(folder: Path, model: FinalModel) -> bool:
    """Whether the model is on disk already."""
    home = _home(folder, model)
    return is_complete(home) and model.is_of(read_card(home))


def _track_rows(
    models: Sequence[FinalModel], tracks: Corpus, logits: dict[FinalModel, Logits]
) -> list[TestTrackRow]:
    """Rows of the test tracks' table, in the models' order and in the split's."""
    return [
        TestTrackRow(
            trial=model.trial,
            seed=model.recipe.seed,
            track_id=track.track_id,
            genre=track.genre,
            predicted=tracks.genres[int(row.argmax())],
            probabilities=tuple(row.tolist()),
        )
        for model in models
        for track, row in zip(
            tracks.part("test"), softmax(logits[model].astype(np.float64), axis=1), strict=True
        )
    ]


def _scored(folder: Path, genres: Sequence[str]) -> list[FinalRow]:
    """Rows of the final models' table, from what was written of the test part: it need not be read again."""
    said, look = read_test_tracks(folder), read_test_look(folder)
    assert look, "the test part has been read"
    # as they were then: a trial that was resumed since may differ
    then = {found["trial"]: dict(found) for found in look.configurations}
    trials = read_trials(folder).set_index("trial", drop=False)
    ranks = {trial: rank for rank, trial in enumerate(said["trial"].unique(), start=1)}
    rows = []
    for _, own in said.groupby(["trial", "seed"], sort=False):
        trial, seed = own.iloc[0][["trial", "seed"]]
        card = read_card(RunFolder(folder).final_model(trial, seed))
        found = then.get(trial) or {k: v for k, v in trials.loc[trial].items() if k in FINISH.names}
        model = {"rank": ranks[trial], "trial": trial, "seed": seed, "epochs": card["epoch"]}
        rows.append(FinalRow(**found | model | {"seconds": card["seconds"]} | _scores(own, genres)))
    return rows


def _scores(said: pd.DataFrame, genres: Sequence[str]) -> dict[str, Any]:
    """A model's scores on the test tracks, each with its interval."""
    truth, predicted = as_indices(said, genres)
    result = scores(confusion_matrix(truth, predicted[0], len(genres)))
    of_truth = np.stack(said["probabilities"].to_list())[np.arange(len(truth)), truth]
    row: dict[str, Any] = {
        "test_loss": float(-np.log(np.maximum(of_truth, np.finfo(np.float64).tiny)).mean()),
        "f1_per_genre": result.f1_per_genre,
        "confusion": result.confusion,
    }
    for name, (low, high) in bootstrap(truth, predicted, len(genres)).items():
        row |= {f"test_{name}": getattr(result, name), f"test_{name}_low": low, f"test_{name}_high": high}
    return row


def _require_as_recorded(folder: Path, top: int | None, seeds: int | None) -> None:
    """Raise InputError where other models are asked for than the test part was read with."""
    recorded = read_finish(folder)
    scored = len(_best(folder))
    for option, asked, there in (
        ("--top", min(top, scored) if top else None, recorded["trial"].nunique()),
        ("--seeds", seeds, recorded["seed"].nunique()),
    ):
        if asked not in (None, there):
            raise InputError(
                f"{option} must be {there}, as when the test part of {folder} was read, but got {asked}; it is read "
                "once, and another look needs another search"
            )
