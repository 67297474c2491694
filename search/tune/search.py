"""A search on Ray Tune: from its settings to its results on disk."""

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

from ray import tune
from ray.tune.error import TuneError

from genre_core.corpus.tracks import write_corpus
from genre_core.system.atomic import atomic_file
from search.config.schema import SearchConfig, to_yaml
from search.data import prepare
from search.data.music import locate_music
from search.data.prepare import Prepared
from search.data.reporter import Reporter as PreparationReporter
from search.engine import ports
from search.engine.coordinator import Coordinator, Limits
from search.engine.recorder import Recorder
from search.recovery.reconcile import reconcile
from search.recovery.reopen import record_extension, restore_study, with_identity
from search.recovery.unclaimed import Unclaimed
from search.run.checkpoints import CheckpointStore, clear_checkpoints
from search.run.folder import RunFolder, new_folder
from search.run.identity import EXTENDED, FOLDER, RUN_ID, new_identity
from search.run.lock import driving
from search.run.mirror import Mirror, require_usable
from search.run.model_store import ModelStore
from search.run.provenance import versions
from search.run.schemas import TrialRow
from search.run.tables import ResultsWriter, require_new, require_run
from search.study import warm_start
from search.study.opening import open_study, pruner_of, sampler_of
from search.study.study import Study
from search.study.suggest import sample
from search.study.without_repeats import goal, used_up
from search.tune import mlflow
from search.tune.actors import ask
from search.tune.barrier import StartupBarrier
from search.tune.interruption import announce_interrupts, interrupt_handler_kept
from search.tune.place import Place, placed, require_room
from search.tune.scheduler import CoordinatorScheduler
from search.tune.searcher import CoordinatorSearcher
from search.tune.time_budget import BudgetStopper
from search.tune.trainable import Actors, GenreTrial
from search.tune.workers import GIB, weights_files, working_set


class SearchFailed(Exception):
    """Every trial failed; the text is why the first one did."""


class Reporter(PreparationReporter, ports.Reporter, Protocol):
    """Shows a search to the user, from its preparation to its end."""

    def expect(self, trials: int) -> None:
        """The search space has fewer configurations than trials were asked for: there will be so many trials."""

    def take_up(self, rows: Sequence[TrialRow]) -> None:
        """The search resumes from these trials."""

    def searching(self) -> AbstractContextManager[None]:
        """A context in which trials are shown."""


def run(config: SearchConfig, *, folder: Path, cache: Path, reporter: Reporter) -> bool:
    """Run a whole search into a new folder; on return every result is on disk.

    What is cheap is checked first: the settings, the data's path, the cluster and the storage, before weights are
    downloaded and audio is decoded. A start that is refused leaves no folder.

    Returns:
        Whether it came to its own end: all trials, or the time budget, but not an interruption.

    Raises:
        InputError: the data, the settings or the cluster are not what a search can use.
        SearchFailed: no trial came to anything.
    """
    require_new(folder)
    with new_folder(folder):
        sampler_of(config, asked=0), pruner_of(config)
        earlier = warm_start.read_earlier(config)
        found = prepare.read_data(config)
        _require_reachable(config, folder, resumed=False)
        callbacks = mlflow.callbacks(config.mlflow, folder.name)
        prepared = prepare.prepare(config, found, cache=cache, reporter=reporter)
        warm_start.require_same_data(config, earlier, prepared.corpus)
        with reporter.searching(), placed(config, _bytes(prepared)) as place, driving(folder):
            if config.precision == "auto":
                config = config.model_copy(update={"precision": "bfloat16" if place.gpus else "float32"})
            require_new(folder)
            config = config.model_copy(update={"provenance": new_identity(folder).provenance})
            with copied(config, folder, reporter, resumed=False):
                write_corpus(prepared.corpus, RunFolder(folder).corpus)
                _write_config(config, prepared, folder)
                the_study = open_study(config, folder, name=folder.resolve().name)
                _teach(the_study, config, earlier, prepared, reporter)
                return _search(config, prepared, the_study, folder, cache, reporter, place, callbacks)


def resume(
    config: SearchConfig,
    *,
    folder: Path,
    cache: Path,
    reporter: Reporter,
    after_finish: bool = False,
    data: Path | None = None,
) -> bool:
    """Go on with a search, as `run`: what has ended stays, what was running goes on from its last checkpoint.

    Args:
        config: the run's own, perhaps with more trials, another time budget or another place to run.
        folder: the run's.
        cache: see `run`.
        reporter: see `run`.
        after_finish: run trials also where the test part has been read, which config.yaml then says.
        data: where the music is now, a folder or a manifest; None where it has not moved.

    Raises:
        InputError: see `run`; or the test part has been read and trials would follow.
    """
    require_run(folder)
    with driving(folder):
        config = with_identity(config, folder, reporter.say)
        the_study = open_study(config, folder, name=restore_study(config, folder, reporter.say))
        if the_study.ended >= (wanted := goal(config, the_study)):
            with copied(config, folder, reporter, resumed=True):  # it may have died at its very end
                _recorder(config, the_study, folder, reporter).end(None)
                shutil.rmtree(RunFolder(folder).checkpoints, ignore_errors=True)
            more = f"to go on, give --trials more than {config.trials}"
            reporter.say(f"{folder} is at its end; {more if wanted == config.trials else used_up(config)}")
            return True
        config = record_extension(config, folder, trials=the_study.ended, allowed=after_finish)
        _require_reachable(config, folder, resumed=True)
        callbacks = mlflow.callbacks(config.mlflow, folder.name)
        # the driver may have died before its first trial
        earlier = [] if the_study.asked else warm_start.read_earlier(config)
        config, tracks = locate_music(config, folder, data, cache=cache, reporter=reporter)
        warm_start.require_same_data(config, earlier, tracks)
        prepared = prepare.prepare_resumed(config, tracks, cache=cache, reporter=reporter)
        with reporter.searching(), placed(config, _bytes(prepared)) as place:
            _write_config(config, prepared, folder)
            with copied(config, folder, reporter, resumed=True):
                _teach(the_study, config, earlier, prepared, reporter)
                return _search(config, prepared, the_study, folder, cache, reporter, place, callbacks)


def _search(
    config: SearchConfig,
    prepared: Prepared,
    the_study: Study,
    folder: Path,
    cache: Path,
    reporter: Reporter,
    place: Place,
    callbacks: list[tune.Callback],
) -> bool:
    """Run the search from the study's present state to its end; whether it was not interrupted."""
    if (wanted := goal(config, the_study)) < config.trials:
        reporter.expect(wanted)
    run = RunFolder(folder)
    recorder = _recorder(config, the_study, folder, reporter)
    clear_checkpoints(run.checkpoints, keep=the_study.running)
    checkpoints = place.process(
        CheckpointStore, run.checkpoints.absolute(), int(config.checkpoint_budget * GIB)
    )
    models = place.process(ModelStore, run.models.absolute(), config.keep_models)
    coordinator = Coordinator(
        the_study,
        recorder,
        limits=Limits(
            workers=place.workers,
            retries=config.retries,
            epoch_limit=config.epoch_limit,
            time_budget=config.time_budget,
        ),
        goal=lambda: goal(config, the_study),
        draw=lambda trial: sample(trial, config),
        forget=lambda number: checkpoints.drop.remote(number),
        say=reporter.say,
        clock=time.monotonic,
    )
    actors = Actors(
        weights=weights_files(config, place),
        models=models,
        checkpoints=checkpoints,
        barrier=place.process(StartupBarrier, min(place.workers, wanted - the_study.ended)),
    )
    stopper = BudgetStopper(coordinator, spent=lambda: models.close.remote())
    trainable = _trainable(config, prepared, place, cache=cache, actors=actors)
    _tune(config, trainable, place, coordinator, stopper, callbacks, reporter.say)
    interrupted = the_study.ended < goal(config, the_study) and not stopper.stopped
    if stopped := coordinator.end(interrupted=interrupted):
        reporter.say(
            f"time budget reached; running trials that were stopped and keep their epochs: {stopped}"
        )
    if not interrupted:
        if goal(config, the_study) <= the_study.ended < config.trials:
            reporter.say(used_up(config))
        ask(checkpoints.end.remote)
        if error := the_study.all_failed():
            raise SearchFailed(error)
    return not interrupted


def _recorder(config: SearchConfig, the_study: Study, folder: Path, reporter: Reporter) -> Recorder:
    """The tables, reconciled with the study, and what keeps them so."""
    writer = ResultsWriter(folder)
    recorder = Recorder(the_study, writer, name=RunFolder(folder).name, show=reporter.trial)
    unclaimed = Unclaimed(folder)
    rows = reconcile(folder, config, the_study, writer, unclaimed)
    if unclaimed.message:
        reporter.say(unclaimed.message)
    if rows:
        recorder.take_up(rows)
        reporter.take_up(rows)
    return recorder


def _teach(
    the_study: Study,
    config: SearchConfig,
    earlier: Sequence[warm_start.Earlier],
    prepared: Prepared,
    reporter: Reporter,
) -> None:
    """Tell the study what earlier searches tried, before it is asked for anything."""
    warm_start.teach(the_study, config, earlier, weights=prepared.weights, say=reporter.say)
    if earlier:  # of the same seed, it would draw the same again
        the_study.use(sampler_of(config, asked=len(the_study.known)))


def _require_reachable(config: SearchConfig, folder: Path, *, resumed: bool) -> None:
    """Raise InputError, soon, where the cluster or the storage would refuse the search later."""
    require_room(config)
    if config.storage is not None:
        require_usable(config.storage, folder.name, resumed=resumed)


def _bytes(prepared: Prepared) -> int:
    return prepared.train.mels.nbytes + prepared.validation.mels.nbytes


def copied(
    config: SearchConfig, folder: Path, reporter: PreparationReporter, *, resumed: bool
) -> AbstractContextManager[object]:
    """A copy of the run's folder follows it for as long as the context lasts, if one is wanted."""
    if config.storage is None:
        return nullcontext()
    run_id = (config.provenance or {}).get(RUN_ID)
    return Mirror(folder, config.storage, say=reporter.say, resumed=resumed, run_id=run_id)


def _write_config(config: SearchConfig, prepared: Prepared, folder: Path) -> None:
    """Every setting, with what will be needed to understand the run later, and to resume it."""
    kept = {k: v for k, v in (config.provenance or {}).items() if k in (RUN_ID, FOLDER, EXTENDED)}
    provenance = kept | {
        "versions": versions(),
        "corpus": prepared.corpus.fingerprint,
        "spectrograms": prepared.spectrograms,
        "genres": list(prepared.corpus.genres),
        "weights": prepared.weights,
    }
    with atomic_file(RunFolder(folder).config) as partial:
        partial.write_text(to_yaml(config.model_copy(update={"provenance": provenance})), encoding="utf-8")


class _AnnouncesInterrupts(tune.Callback):
    """Has Ctrl-C announced, which Tune has taken for itself when it sets callbacks up."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """Args: where to announce it."""
        self._say = say

    def setup(self, *_: Any, **__: Any) -> None:
        """The search begins."""
        announce_interrupts(self._say)


def _trainable(
    config: SearchConfig, prepared: Prepared, place: Place, *, cache: Path, actors: Actors
) -> type[tune.Trainable]:
    """What Ray's workers run, with its data, which they share in Ray's object store."""
    trainable: type[tune.Trainable] = tune.with_parameters(
        GenreTrial,
        working_set=working_set(
            config,
            prepared.corpus,
            place,
            cache=cache,
            train=prepared.train,
            validation=prepared.validation,
            weights=prepared.weights,
        ),
        actors=actors,
    )
    return trainable


def _tune(
    config: SearchConfig,
    trainable: type[tune.Trainable],
    place: Place,
    coordinator: Coordinator,
    stopper: BudgetStopper,
    callbacks: list[tune.Callback],
    say: Callable[[str], None],
) -> None:
    """Ray Tune's loop: from the first trial to the last, the end of the time budget, or Ctrl-C."""
    try:
        with interrupt_handler_kept():
            tune.run(  # not tune.Tuner, which pickles the searcher and the callbacks: they hold an open study
                trainable,
                name="tune",
                resources_per_trial={"cpu": config.cpus_per_trial, "gpu": place.gpus},
                search_alg=CoordinatorSearcher(coordinator),
                scheduler=CoordinatorScheduler(coordinator),
                callbacks=[*callbacks, _AnnouncesInterrupts(say)],
                num_samples=-1,  # the coordinator says when it is over: a trial that lost its worker runs again
                stop=stopper,
                reuse_actors=True,
                storage_path=str(place.scratch / "tune"),
                trial_dirname_creator=lambda trial: trial.trial_id,
                raise_on_failed_trial=False,
                verbose=0,
            )
    except TuneError as error:
        if isinstance(error.__context__, OSError):  # of ours, such as a full disk; Tune keeps its text only
            raise error.__context__ from error
        if explained := mlflow.explained(error.__context__):
            raise explained from error
        raise
