"""Starts a search on a local or remote Ray cluster, and brings it to an end in order."""

import logging
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import ray
from ray import tune
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from genre_core.corpus import write_corpus
from genre_core.errors import InputError
from genre_core.whole_file import whole_file
from search import prepare, study
from search.config import SearchConfig, to_yaml
from search.models import ModelShelf
from search.prepare import Prepared
from search.pruning import StudyScheduler
from search.recording import Recorder, Row
from search.results import ResultsWriter, require_new
from search.sampling import StudySearcher
from search.study import Study
from search.trial import PACKAGES, GenreTrial, WorkingSet

OBJECT_STORE_BYTES = 2 * 1024**3
"""Of a Ray that is started here: models on their way to the shelf pass through it."""

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the results tables take their place
    "TUNE_GLOBAL_CHECKPOINT_S": str(10**9),  # the study is the state; Tune's own snapshots grow with it
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a worker without a GPU sees none
}


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
    _write_run(config, prepared, folder)
    os.environ.update({key: os.environ.get(key, value) for key, value in _ENVIRONMENT.items()})
    for noisy in ("ray.tune", "optuna"):  # a failed trial's reason is in the results, not on the screen
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    the_study = Study(folder / "study.journal", name=folder.name, sampler=sampler, pruner=pruner)
    writer = ResultsWriter(folder)
    recorder = Recorder(the_study, writer, name=folder.name, show=screen.trial)
    started = time.monotonic()
    with screen.searching(), _ray(config):
        _tune(config, prepared, folder, the_study, recorder)
    over = config.time_budget is not None and time.monotonic() - started >= config.time_budget
    interrupted = bool(the_study.running) and not over
    _end_running(the_study, recorder, "interrupted" if interrupted else "time budget reached")
    writer.flush()
    if not interrupted and (error := the_study.all_failed()):
        raise SearchFailed(error)
    return not interrupted


def _write_run(config: SearchConfig, prepared: Prepared, folder: Path) -> None:
    """The run's folder, with what it will need to be understood later."""
    provenance = {
        "versions": {package: version(package) for package in PACKAGES},
        "corpus": prepared.corpus.fingerprint,
        "spectrograms": prepared.store.folder.name,
        "genres": list(prepared.corpus.genres),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_corpus(prepared.corpus, folder / "corpus.parquet")
    with whole_file(folder / "config.yaml") as partial:
        partial.write_text(to_yaml(config.model_copy(update={"provenance": provenance})), encoding="utf-8")


def _tune(
    config: SearchConfig, prepared: Prepared, folder: Path, the_study: Study, recorder: Recorder
) -> None:
    """Ray Tune's loop: from the first trial to the last, the end of the time, or Ctrl-C."""
    gpus = _gpus_per_trial(config)
    workers = config.workers or _room_for(config.cpus_per_trial, gpus)
    searcher = StudySearcher(the_study, config, workers=workers, begin=recorder.begin)
    trainable = tune.with_parameters(
        GenreTrial, working_set=_working_set(config, prepared, folder, gpus), shelf=_shelf(config, folder)
    )
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


def _working_set(config: SearchConfig, prepared: Prepared, folder: Path, gpus: float) -> WorkingSet:
    return WorkingSet(
        corpus=(folder / "corpus.parquet").absolute(),
        store=prepared.store.folder.absolute(),
        front_end=config.front_end,
        segment_frames=prepared.segment_frames,
        segments_per_track=config.segments_per_track,
        feature_bytes=int(config.feature_gib * 1024**3),
        threads=max(1, int(config.cpus_per_trial)),
        device="cuda" if gpus else "cpu",
    )


def _shelf(config: SearchConfig, folder: Path) -> "ActorHandle[ModelShelf]":
    """A process on this node that keeps the best models."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = ray.remote(num_cpus=0)(ModelShelf)
    handle: ActorHandle[ModelShelf] = actor.options(scheduling_strategy=here).remote(
        folder.absolute() / "models", config.keep_models
    )
    return handle


def _gpus_per_trial(config: SearchConfig) -> float:
    available = _cluster_resources().get("GPU", 0.0)
    gpus = (1.0 if available else 0.0) if config.gpus_per_trial is None else config.gpus_per_trial
    if gpus > available:
        raise InputError(f"--gpus-per-trial must be at most the cluster's {available:g}, but got {gpus:g}")
    return gpus


def _room_for(cpus: float, gpus: float) -> int:
    """Trials at a time that the cluster holds."""
    resources = _cluster_resources()
    by_cpu = int(resources.get("CPU", 0.0) / cpus)
    workers = min(by_cpu, int(resources["GPU"] / gpus)) if gpus else by_cpu
    if workers < 1:
        raise InputError(
            f"--cpus-per-trial must be at most the cluster's {resources.get('CPU', 0):g}, but got {cpus:g}"
        )
    return workers


def _cluster_resources() -> dict[str, float]:
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return resources


@contextmanager
def _ray(config: SearchConfig) -> Iterator[None]:
    """A Ray to run on: the one at the address, or one of our own that ends with the search.

    A Ray that this process is connected to already is used as it is, and left so.
    """
    if ray.is_initialized():
        yield
        return
    try:
        _connect(config)
        with _termination_as_interrupt():
            yield
    finally:
        ray.shutdown()


def _connect(config: SearchConfig) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if config.address is None:
        ray.init(include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **quiet)
        return
    try:
        ray.init(address=config.address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"--address must be a running Ray cluster, but got {config.address}: {reason}"
        ) from error


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """A polite kill ends the search as Ctrl-C does."""
    earlier = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)


def _end_running(the_study: Study, recorder: Recorder, reason: str) -> None:
    """What was still running when the search ended came to nothing."""
    for number in the_study.running:
        the_study.fail(number, reason)
        recorder.put_failed(number)
