"""The end of a search: train the best configurations on train and validation, then use the test set once."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import softmax

from genre_core.corpus.tracks import Corpus
from genre_core.errors import InputError
from genre_core.models.artifact import is_complete, read_card, read_tensors
from genre_core.recipe import Recipe
from genre_core.training.bootstrap import bootstrap
from genre_core.training.metrics import confusion_matrix, scores
from genre_core.training.segments import SegmentArrays
from search.config.schema import SearchConfig
from search.data import prepare
from search.data.music import locate_music
from search.data.reporter import Reporter
from search.engine.ports import Arrays
from search.errors import SearchErrorCode
from search.evaluate import final_worker
from search.evaluate.final_worker import TRAINED_ON, FinalModel, Job
from search.run import shared_blocks
from search.run.commands import command
from search.run.folder import RunFolder
from search.run.lock import driving
from search.run.model_store import write_model
from search.run.ranking import select
from search.run.schemas import FINISH, RUNNING, FinalRow, TestTrackRow
from search.run.split_record import split_record
from search.run.tables import (
    as_indices,
    read_finish,
    read_test_tracks,
    read_test_use,
    read_trials,
    require_run,
    test_used_at,
    write_finish,
    write_test_tracks,
)
from search.tune.cluster import Resources, acquire, needs, require_capacity
from search.tune.search import mirrored
from search.tune.tasks import TaskFailed, each
from search.tune.torch_trainer import WorkingSet
from search.tune.trainable import Actors, store_shards, uploads, weights_files

TOP, SEEDS = 3, 3
"""Default number of configurations, and of seeds for each."""

T = TypeVar("T")

Logits = NDArray[np.float32]
"""Logits of one model, [test tracks, genres]."""


class FinishFailed(Exception):
    """A final model could not be trained or tested; the message names it and the reason."""


def finish(
    config: SearchConfig,
    *,
    folder: Path,
    cache: Path,
    reporter: Reporter,
    top: int | None = None,
    seeds: int | None = None,
    data: Path | str | None = None,
) -> None:
    """Train the final models that are missing, then use the test set. On return, everything is on disk.

    The test set of a search is used only once.

    Args:
        config: configuration of the run, possibly with other resources.
        folder: folder of the run.
        cache: folder of the spectrograms.
        reporter: displays the progress.
        top: number of configurations, the best by validation F1; TOP if None.
        seeds: number of seeds for each, starting after the last one of the search; SEEDS if None.
        data: present path or address of the music, a folder or a manifest; None if it was not moved.

    Raises:
        InputError: there is nothing to finish, or the search was finished with other options.
        FinishFailed: a final model could not be trained or tested.
    """
    require_run(folder)
    if read_finish(folder).empty:
        with driving(folder):
            config, tracks = locate_music(config, folder, data, cache=cache, reporter=reporter)
            models = _final_models(folder, tracks, top or TOP, seeds or SEEDS, reporter)
            with mirrored(config, folder, reporter, resumed=True):
                if test_used_at(folder) is None:
                    _use_test_set(config, models, tracks, folder, cache, reporter)
                if read_finish(folder).empty:
                    write_finish(folder, _scored(folder, tracks.genres))
    elif data is not None:
        with driving(folder):
            locate_music(config, folder, data, cache=cache, reporter=reporter)
    _require_as_recorded(folder, top, seeds)


def _final_models(folder: Path, tracks: Corpus, top: int, seeds: int, reporter: Reporter) -> list[FinalModel]:
    """The models to train, the winner first, chosen by validation F1 only."""
    if not tracks.part("test"):
        raise InputError(
            f"RUN must have a test set, but no track in {RunFolder(folder).corpus} belongs to it; start a new search",
            code=SearchErrorCode.NO_TEST_SET,
        )
    if not (best := _best(folder)):
        raise InputError(
            f"RUN must have a trial with a score, but {folder} has none; see {command('results', folder)}",
            code=SearchErrorCode.NO_SCORED_TRIAL,
        )
    if len(best) < top:
        have = "configuration has" if len(best) == 1 else "configurations have"
        reporter.say(f"--top {top}: only {len(best)} {have} a score; all are used")
    if unfinished := int((read_trials(folder)["state"] == RUNNING).sum()):
        reporter.say(
            f"{unfinished} {'trial is' if unfinished == 1 else 'trials are'} unfinished; only scores so far count. To "
            f"complete the search first, press Ctrl-C and run: {command('resume', folder)}"
        )
    return [
        replace(model, recipe=replace(model.recipe, seed=model.recipe.seed + 1 + n))
        for model in best[:top]
        for n in range(seeds)
    ]


def _best(folder: Path) -> list[FinalModel]:
    """The configurations with a score in the order of the leaderboard, without repetitions.

    Their seed is the last one that any trial of the search used.
    """
    trials = select(read_trials(folder))
    best: dict[Recipe, FinalModel] = {}
    for row in trials[trials["val_f1"].notna()].to_dict("records"):
        settings = {field.name: row[field.name] for field in fields(Recipe)}
        if pd.isna(settings["head_init"]):  # of an earlier version
            settings["head_init"] = Recipe.head_init
        recipe = Recipe(**settings | {"epochs": row["max_epochs"], "seed": int(trials["seed"].max())})
        best.setdefault(recipe, FinalModel(trial=row["trial"], epochs=row["best_epoch"], recipe=recipe))
    return list(best.values())


def _use_test_set(
    config: SearchConfig,
    models: Sequence[FinalModel],
    tracks: Corpus,
    folder: Path,
    cache: Path,
    reporter: Reporter,
) -> None:
    """Train the missing models, then predict the test tracks with all models and record the predictions."""
    require_capacity(config.address, needs(config))
    store = prepare.reopen_store(config, tracks, cache=cache, reporter=reporter)

    def segments(*parts: str) -> SegmentArrays:
        chosen = [track for part in parts for track in tracks.part(part)]
        return prepare.segments(config, chosen, tracks.genres, store)

    missing = [model for model in models if not _is_kept(folder, model)]
    weights = prepare.verify_weights(config, reporter) if missing else {}
    train = segments(*TRAINED_ON) if missing else None
    test = segments("test")
    with acquire(config) as resources:
        actors = Actors(frames=store_shards(test, config, resources), storage=config.storage)
        working_set = WorkingSet.of(
            config,
            genres=tracks.genres,
            split=split_record(tracks),
            cache=cache,
            train=test,
            validation=None,
            weights=weights,
            device=resources.device,
            gpu_shared=resources.gpu_shared,
            gpus=resources.gpus,
        )
        with uploads(test, actors, reporter.say):
            if train:
                _train(
                    config, missing, replace(working_set, train=train), folder, resources, actors, reporter
                )
            job = Job(working_set=working_set, actors=actors)
            logits = _predictions(config, models, job, folder, resources, reporter)
    write_test_tracks(folder, _track_rows(models, tracks, logits))


def _train(
    config: SearchConfig,
    missing: Sequence[FinalModel],
    working_set: WorkingSet,
    folder: Path,
    resources: Resources,
    actors: Actors,
    reporter: Reporter,
) -> None:
    """Train each model; it is on disk before the next one is awaited."""
    job = Job(working_set=working_set, actors=replace(actors, weights=weights_files(config, resources)))
    trained = each(
        final_worker.train, missing, lambda model: (model,), shared=job, config=config, resources=resources
    )
    with reporter.progress("Training on train and validation") as report:
        for done, (model, (tensors, card)) in enumerate(_explained(trained), start=1):
            shutil.rmtree(_folder_of(folder, model), ignore_errors=True)  # of a trial that has changed since
            write_model(_folder_of(folder, model), tensors, card)
            reporter.say(
                f"trial {model.trial:<4} seed {model.recipe.seed:<4} {model.recipe.backbone:<12} "
                f"{model.epochs} {'epoch' if model.epochs == 1 else 'epochs'}  {card['seconds']:.1f} s"
            )
            report(done, len(missing))
    shared_blocks.delete_unused(RunFolder(folder).final_models)


def _predictions(
    config: SearchConfig,
    models: Sequence[FinalModel],
    job: Job,
    folder: Path,
    resources: Resources,
    reporter: Reporter,
) -> dict[FinalModel, Logits]:
    """Predict the test tracks with every model."""
    predicted = each(
        final_worker.predict,
        models,
        lambda model: (model, _tensors(_folder_of(folder, model))),
        shared=job,
        config=config,
        resources=resources,
    )
    logits = {}
    with reporter.progress("Predicting the test set") as report:
        for model, of_tracks in _explained(predicted):
            logits[model] = of_tracks
            report(len(logits), len(models))
    return logits


def _tensors(place: Path) -> Arrays:
    """All tensors of a final model."""
    return read_tensors(place, read_card(place))


def _explained(results: Iterator[tuple[FinalModel, T]]) -> Iterator[tuple[FinalModel, T]]:
    """Pass the results on; the error of a failed task names the model."""
    try:
        yield from results
    except TaskFailed as error:
        model: FinalModel = error.item
        raise FinishFailed(f"trial {model.trial} with seed {model.recipe.seed} failed: {error}") from error


def _folder_of(folder: Path, model: FinalModel) -> Path:
    return RunFolder(folder).final_model(model.trial, model.recipe.seed)


def _is_kept(folder: Path, model: FinalModel) -> bool:
    """Whether the model is already on disk."""
    path = _folder_of(folder, model)
    return is_complete(path) and model.is_of(read_card(path))


def _track_rows(
    models: Sequence[FinalModel], tracks: Corpus, logits: dict[FinalModel, Logits]
) -> list[TestTrackRow]:
    """Rows of the test tracks' table, in the order of the models and of the corpus."""
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
    """Rows of the final models' table, from the recorded predictions."""
    predictions, use = read_test_tracks(folder), read_test_use(folder)
    assert use, "the test set has been used"
    # as recorded at that time, because a trial that was resumed since may differ
    then = {found["trial"]: dict(found) for found in use.configurations}
    trials = read_trials(folder).set_index("trial", drop=False)
    ranks = {trial: rank for rank, trial in enumerate(predictions["trial"].unique(), start=1)}
    rows = []
    for _, own in predictions.groupby(["trial", "seed"], sort=False):
        trial, seed = own.iloc[0][["trial", "seed"]]
        card = read_card(RunFolder(folder).final_model(trial, seed))
        found = then.get(trial) or {k: v for k, v in trials.loc[trial].items() if k in FINISH.names}
        model = {"rank": ranks[trial], "trial": trial, "seed": seed, "epochs": card["epoch"]}
        rows.append(FinalRow(**found | model | {"seconds": card["seconds"]} | _scores(own, genres)))
    return rows


def _scores(predictions: pd.DataFrame, genres: Sequence[str]) -> dict[str, Any]:
    """The scores of a model on the test tracks, with confidence intervals."""
    truth, predicted = as_indices(predictions, genres)
    result = scores(confusion_matrix(truth, predicted[0], len(genres)))
    of_truth = np.stack(predictions["probabilities"].to_list())[np.arange(len(truth)), truth]
    row: dict[str, Any] = {
        "test_loss": float(-np.log(np.maximum(of_truth, np.finfo(np.float64).tiny)).mean()),
        "f1_per_genre": result.f1_per_genre,
        "confusion": result.confusion,
    }
    for name, (low, high) in bootstrap(truth, predicted, len(genres)).items():
        row |= {f"test_{name}": getattr(result, name), f"test_{name}_low": low, f"test_{name}_high": high}
    return row


def _require_as_recorded(folder: Path, top: int | None, seeds: int | None) -> None:
    """Raise InputError if the options differ from those with which the search was finished."""
    recorded = read_finish(folder)
    scored = len(_best(folder))
    for option, asked, recorded_value in (
        ("--top", min(top, scored) if top else None, recorded["trial"].nunique()),
        ("--seeds", seeds, recorded["seed"].nunique()),
    ):
        if asked not in (None, recorded_value):
            raise InputError(
                f"{option} must be {recorded_value}, as when {folder} was finished, but got {asked}; the test set "
                "is used only once, so leave the option out, or start a new search",
                code=SearchErrorCode.FINISHED_DIFFERENTLY,
            )
