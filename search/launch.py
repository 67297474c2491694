"""Starts a search on a Ray cluster, runs it to its end, and leaves everything in order."""

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, Protocol

import ray
from ray import tune
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from genre_core.corpus import write_corpus
from genre_core.whole_file import whole_file
from search import cluster, prepare, study
from search.config import SearchConfig, to_yaml
from search.models import ModelShelf
from search.prepare import Prepared
from search.pruning import StudyScheduler
from search.recording import Recorder, Row
from search.results import ResultsWriter, require_new
from search.sampling import StudySearcher
from search.start import Arrivals
from search.study import Study
from search.trial import GenreTrial, WorkingSet
from search.versions import versions


class SearchFailed(Exception):
    """Every trial failed; the text is why the first one did."""


class Screen(prepare.Screen, Protocol):
    """Where a search shows itself."""

    def trial(self, row: Row) -> None:
        """A trial's row in the results has changed."""

    def searching(self) -> Any:
        """A context in which trials are shown."""


def run(config: SearchConfig, *, folder: Path, cache: Path, screen: Screen) -> bool:
    """Run a whole search into a new folder; on return every result is on disk.

    Returns:
        Whether it came to its own end: all trials, or the time budget, but not an interruption.

    Raises:
        InputError: the data, the settings or the cluster are not what a search can use.
        SearchFailed: no trial came to anything.
    """
    require_new(folder)
    sampler = study.make_sampler(config.sampler.name, config.sampler.parameters, seed=config.seed)
    pruner = study.make_pruner(config.pruner.name, config.pruner.parameters, epochs=config.training.epochs)
    prepared = prepare.prepare(config, cache=cache, screen=screen)
    data_bytes = prepared.train.mels.nbytes + prepared.validation.mels.nbytes
    with screen.searching(), cluster.connected(config.address, data_bytes=data_bytes):
        workers, gpus = cluster.room(
            cpus_per_trial=config.cpus_per_trial,
            trials_per_gpu=config.trials_per_gpu,
            workers=config.workers,
            growing=config.address is not None,
        )
        if config.precision == "auto":
            config = config.model_copy(update={"precision": "bfloat16" if gpus else "float32"})
        _write_run(config, prepared, folder)
        the_study = Study(folder / "study.journal", name=folder.name, sampler=sampler, pruner=pruner)
        recorder = Recorder(the_study, ResultsWriter(folder), name=folder.name, show=screen.trial)
        searcher = StudySearcher(the_study, config, workers=workers, begin=recorder.begin)
        started = time.monotonic()
        _tune(
            config,
            _trainable(config, prepared, folder, cache, workers, gpus),
            gpus,
            searcher,
            the_study,
            recorder,
        )
        passed = time.monotonic() - started
    interrupted = the_study.ended < config.trials and passed < (config.time_budget or passed + 1)
    recorder.end("interrupted" if interrupted else "time budget reached")
    if not interrupted and (error := the_study.all_failed()):
        raise SearchFailed(error)
    return not interrupted


def _write_run(config: SearchConfig, prepared: Prepared, folder: Path) -> None:
    """The run's folder, with what it will need to be understood later."""
    provenance = {
        "versions": versions(),
        "corpus": prepared.corpus.fingerprint,
        "spectrograms": prepared.spectrograms,
        "genres": list(prepared.corpus.genres),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_corpus(prepared.corpus, folder / "corpus.parquet")
    with whole_file(folder / "config.yaml") as partial:
        partial.write_text(to_yaml(config.model_copy(update={"provenance": provenance})), encoding="utf-8")


def _trainable(
    config: SearchConfig, prepared: Prepared, folder: Path, cache: Path, workers: int, gpus: float
) -> type[tune.Trainable]:
    """What workers run, with its data, which they share in Ray's object store, and the shelf for its models."""
    working_set = WorkingSet(
        corpus=prepared.corpus,
        train=prepared.train,
        validation=prepared.validation,
        front_end=config.front_end,
        segments_per_track=config.segments_per_track,
        cache=cache.absolute(),
        cache_bytes=int(config.feature_cache * 1024**3),
        threads=max(1, int(config.cpus_per_trial)),
        device="cuda" if gpus else "cpu",
        gpu_shared=0 < gpus < 1,
    )
    trainable: type[tune.Trainable] = tune.with_parameters(
        GenreTrial,
        working_set=working_set,
        shelf=_process(ModelShelf, (folder / "models").absolute(), config.keep_models),
        arrivals=_process(Arrivals, min(workers, config.trials)),
    )
    return trainable


def _process(kind: type[Any], *arguments: Any) -> Any:
    """An object in a process of its own on this node."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = ray.remote(num_cpus=0)(kind)
    return actor.options(scheduling_strategy=here).remote(*arguments)


def _tune(
    config: SearchConfig,
    trainable: type[tune.Trainable],
    gpus: float,
    searcher: StudySearcher,
    the_study: Study,
    recorder: Recorder,
) -> None:
    """Ray Tune's loop: from the first trial to the last, the end of the time, or Ctrl-C."""
    scratch = tempfile.mkdtemp(prefix="genre-search-")
    try:
        tune.run(  # not tune.Tuner, which pickles the searcher and the callbacks to be restored by
            trainable,
            name="tune",
            resources_per_trial={"cpu": config.cpus_per_trial, "gpu": gpus},
            search_alg=searcher,
            scheduler=StudyScheduler(the_study),
            callbacks=[recorder],
            num_samples=config.trials,
            time_budget_s=config.time_budget,
            reuse_actors=True,
            storage_path=scratch,
            trial_dirname_creator=lambda trial: trial.trial_id,
            raise_on_failed_trial=False,
            verbose=0,
        )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
