"""Starts a search on a Ray cluster, runs it to its end, and leaves everything in order."""

import logging
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import ray
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from ray import tune
from ray.tune.error import TuneError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from genre_core.audio.mel import front_end
from genre_core.corpus.tracks import Corpus, load_corpus, write_corpus
from genre_core.errors import InputError
from genre_core.models.pretrained import weights_path
from genre_core.system.atomic import atomic_file, make_folder
from genre_core.training.segments import SegmentArrays
from search.config.schema import SearchConfig, to_yaml
from search.data import prepare
from search.data.prepare import Prepared
from search.data.reporter import Reporter
from search.engine.recorder import Recorder
from search.recovery.rebuild import rebuild
from search.recovery.reconcile import reconcile
from search.recovery.unclaimed import Unclaimed
from search.run.checkpoints import CheckpointShelf, start_over
from search.run.identity import EXTENDED, FOLDER, RUN_ID, identify, new_identity, set_data
from search.run.lock import LOCK, driving
from search.run.mirror import Mirror, require_usable
from search.run.model_store import ModelShelf
from search.run.provenance import versions
from search.run.tables import ResultsWriter, Row, require_new, require_run, when_test_was_read
from search.study import warm_start
from search.study.journal import JOURNAL, own_study, repair_journal, unshare_journal
from search.study.pruners import make_pruner
from search.study.samplers import make_sampler
from search.study.study import TIME_BUDGET, Study
from search.study.without_repeats import goal, used_up, without_repeats
from search.tune import connect, mlflow
from search.tune.barrier import Arrivals
from search.tune.interruption import announce_interrupts, interrupt_handler_kept
from search.tune.scheduler import StudyScheduler
from search.tune.scratch import scratch
from search.tune.searcher import StudySearcher
from search.tune.time_budget import TimeBudget
from search.tune.trainable import GenreTrial, WorkingSet
from search.tune.weight_shipping import WeightsFiles

GIB = 1024**3
HELPER_RETRIES = 10
"""How often a call is repeated whose helper process died of it, or during it."""


class SearchFailed(Exception):
    """Every trial failed; the text is why the first one did."""


class Screen(Reporter, Protocol):
    """Where a search shows itself."""

    def trial(self, row: Row) -> None:
        """A trial's row in the results has changed."""

    def expect(self, trials: int) -> None:
        """The search space has fewer configurations than trials were asked for: it comes to so many trials."""

    def take_up(self, rows: Sequence[Row]) -> None:
        """The search goes on from these rows."""

    def searching(self) -> Any:
        """A context in which trials are shown."""


def run(config: SearchConfig, *, folder: Path, cache: Path, screen: Screen) -> bool:
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
    with _new_folder(folder):
        _sampler(config, asked=0), _pruner(config)
        earlier = warm_start.read_earlier(config)
        found = prepare.read_data(config)
        _require_reachable(config, folder, resumed=False)
        told = mlflow.callbacks(config.mlflow, folder.name)
        prepared = prepare.prepare(config, found, cache=cache, reporter=screen)
        warm_start.require_same_data(config, earlier, prepared.corpus)
        with screen.searching(), placed(config, _bytes(prepared)) as place, driving(folder):
            if config.precision == "auto":
                config = config.model_copy(update={"precision": "bfloat16" if place.gpus else "float32"})
            require_new(folder)
            config = config.model_copy(update={"provenance": new_identity(folder).provenance})
            with copied(config, folder, screen, resumed=False):
                write_corpus(prepared.corpus, folder / "corpus.parquet")
                _write_config(config, prepared, folder)
                the_study = _open_study(config, folder, name=folder.resolve().name)
                _teach(the_study, config, earlier, prepared, screen)
                return _search(config, prepared, the_study, folder, cache, screen, place, told)


def resume(
    config: SearchConfig,
    *,
    folder: Path,
    cache: Path,
    screen: Screen,
    after_finish: bool = False,
    data: Path | None = None,
) -> bool:
    """Go on with a search, as `run`: what has ended stays, what was running goes on from its last checkpoint.

    Args:
        config: the run's own, perhaps with more trials, another time budget or another place to run.
        folder: the run's.
        cache: see `run`.
        screen: see `run`.
        after_finish: run trials also where the test part has been read, which config.yaml then says.
        data: where the music is now, a folder or a manifest; None where it has not moved.

    Raises:
        InputError: see `run`; or the test part has been read and trials would follow.
    """
    require_run(folder)
    with driving(folder):
        config = _identified(config, folder, screen)
        the_study = _open_study(config, folder, name=_restored_study(config, folder, screen))
        if the_study.ended >= (wanted := goal(config, the_study)):
            with copied(config, folder, screen, resumed=True):  # it may have died at its very end
                _recorder(config, the_study, folder, screen).end(None)
                shutil.rmtree(folder / "checkpoints", ignore_errors=True)
            more = f"to go on, give --trials more than {config.trials}"
            screen.say(f"{folder} is at its end; {more if wanted == config.trials else used_up(config)}")
            return True
        config = _after_finish(config, folder, trials=the_study.ended, allowed=after_finish)
        _require_reachable(config, folder, resumed=True)
        told = mlflow.callbacks(config.mlflow, folder.name)
        # the driver may have died before its first trial
        earlier = [] if the_study.asked else warm_start.read_earlier(config)
        config, tracks = its_music(config, folder, data, cache=cache, screen=screen)
        warm_start.require_same_data(config, earlier, tracks)
        prepared = prepare.prepare_resumed(config, tracks, cache=cache, reporter=screen)
        with screen.searching(), placed(config, _bytes(prepared)) as place:
            _write_config(config, prepared, folder)
            with copied(config, folder, screen, resumed=True):
                _teach(the_study, config, earlier, prepared, screen)
                return _search(config, prepared, the_study, folder, cache, screen, place, told)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where trials run."""

    workers: int
    """Trials at a time."""
    gpus: float
    """For each."""
    scratch: Path
    """A folder for what is temporary."""
    _processes: list[Any] = field(default_factory=list, init=False)

    @property
    def device(self) -> str:
        """`cuda` or `cpu`."""
        return "cuda" if self.gpus else "cpu"

    def process(self, kind: type[Any], *arguments: Any) -> Any:
        """An object in a process of its own on this node, for as long as the place is held.

        Where the process dies, another one is started with the same arguments, and the call that it was busy with is
        repeated: what the object has to remember is on the disk, and a repeated call does no harm.
        """
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=HELPER_RETRIES)(kind)
        self._processes.append(actor.options(scheduling_strategy=here).remote(*arguments))
        return self._processes[-1]

    def leave(self) -> None:
        """End these processes: by itself Ray would keep them until it ends, for what Tune was given holds them."""
        for process in self._processes:
            process.__ray_terminate__.options(max_task_retries=0).remote()


def _search(
    config: SearchConfig,
    prepared: Prepared,
    the_study: Study,
    folder: Path,
    cache: Path,
    screen: Screen,
    place: Place,
    told: list[tune.Callback],
) -> bool:
    """From whatever the study says to the search's end, with those who want to be told of each trial."""
    recorder = _recorder(config, the_study, folder, screen)
    if (wanted := goal(config, the_study)) < config.trials:
        screen.expect(wanted)
    searcher = StudySearcher(the_study, config, workers=place.workers, begin=recorder.begin)
    start_over(folder / "checkpoints", the_study.running)
    checkpoints = place.process(
        CheckpointShelf, (folder / "checkpoints").absolute(), int(config.checkpoint_budget * GIB)
    )
    scheduler = StudyScheduler(
        the_study,
        recorder,
        retries=config.retries,
        epoch_limit=config.epoch_limit,
        workers=place.workers,
        go_on=searcher.go_on,
        forget=lambda number: checkpoints.drop.remote(number),
        say=screen.say,
    )
    shelf = place.process(ModelShelf, (folder / "models").absolute(), config.keep_models)
    trainable = _trainable(
        config,
        prepared,
        place,
        cache=cache,
        shelf=shelf,
        checkpoints=checkpoints,
        arrivals=place.process(Arrivals, min(place.workers, wanted - the_study.ended)),
    )
    budget = TimeBudget(config.time_budget, ended=lambda: shelf.close.remote())
    _tune(config, trainable, place, searcher, scheduler, told, budget, screen.say)
    interrupted = the_study.ended < goal(config, the_study) and not budget.over
    _end(recorder, the_study, screen, interrupted=interrupted)
    if not interrupted:
        if goal(config, the_study) <= the_study.ended < config.trials:
            screen.say(used_up(config))
        ray.get(checkpoints.end.remote())
        if error := the_study.all_failed():
            raise SearchFailed(error)
    return not interrupted


def _end(recorder: Recorder, the_study: Study, screen: Screen, *, interrupted: bool) -> None:
    """Leave the trials that still run to a resume, or where the time was over, record that it cut them off."""
    still = len(the_study.running)
    recorder.end(None if interrupted else TIME_BUDGET)
    if still and not interrupted:
        screen.say(f"time budget reached; running trials that were cut off and keep their epochs: {still}")


def _teach(
    the_study: Study,
    config: SearchConfig,
    earlier: Sequence[warm_start.Earlier],
    prepared: Prepared,
    screen: Screen,
) -> None:
    """Tell the study what earlier searches tried, before it is asked for anything."""
    warm_start.teach(the_study, config, earlier, weights=prepared.weights, say=screen.say)
    if earlier:  # of the same seed, it would draw the same again
        the_study.use(_sampler(config, asked=len(the_study.known)))


def _recorder(config: SearchConfig, the_study: Study, folder: Path, screen: Screen) -> Recorder:
    """The tables in line with the study, and who keeps them so."""
    writer = ResultsWriter(folder)
    recorder = Recorder(the_study, writer, name=folder.resolve().name, show=screen.trial)
    unclaimed = Unclaimed(folder)
    rows = reconcile(folder, config, the_study, writer, unclaimed)
    if unclaimed.message:
        screen.say(unclaimed.message)
    if rows:
        recorder.take_up(rows)
        screen.take_up(rows)
    return recorder


def _identified(config: SearchConfig, folder: Path, screen: Screen) -> SearchConfig:
    """The configuration with the run's identity, which its config.yaml has too when this returns."""
    identity = identify(folder)
    if identity.copy_of:
        screen.say(f"{folder} is a copy of {identity.copy_of}: from now on they are two runs")
    return config.model_copy(update={"provenance": (config.provenance or {}) | identity.provenance})


def _after_finish(config: SearchConfig, folder: Path, *, trials: int, allowed: bool) -> SearchConfig:
    """The configuration, which records that trials follow a look at the test part where they do."""
    if (at := when_test_was_read(folder)) is None:
        return config
    if not allowed:
        raise InputError(
            f"a search must not be extended after its test part was read, but that of {folder} was read on "
            f"{at:%Y-%m-%d %H:%M} UTC; start a new search with --warm-start {shlex.quote(str(folder))}, "
            "or give --after-finish, which the results will say"
        )
    provenance = config.provenance or {}
    extension = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "trials": trials}
    extensions = [*provenance.get(EXTENDED, []), extension]
    return config.model_copy(update={"provenance": provenance | {EXTENDED: extensions}})


def its_music(
    config: SearchConfig, folder: Path, data: Path | None, *, cache: Path, screen: Reporter
) -> tuple[SearchConfig, Corpus]:
    """A run's corpus; where its music has moved, at its new place, which the run's folder then names.

    Args:
        config: the run's own.
        folder: the run's.
        data: where the music is now, a folder or a manifest; None where it has not moved.
        cache: see `run`.
        screen: see `run`.

    Raises:
        InputError: the music there is not what the search began with.
    """
    tracks = load_corpus(folder / "corpus.parquet")
    if data is None:
        return config, tracks
    config = config.model_copy(update={"data": str(data.expanduser().resolve())})
    tracks = prepare.relocate(tracks, config, cache=cache, reporter=screen)
    write_corpus(tracks, folder / "corpus.parquet")
    set_data(folder, config.data)
    return config, tracks


def _restored_study(config: SearchConfig, folder: Path, screen: Screen) -> str:
    """The name of a run's study; its journal is the run's alone and whole, and rebuilt where it was lost."""
    logging.getLogger("optuna").setLevel(logging.WARNING)
    journal = folder / JOURNAL
    unshare_journal(journal)
    repair_journal(journal)
    own, others = own_study(folder) if journal.exists() else (None, [])
    if others:
        names = ", ".join(map(repr, others))
        screen.say(f"{journal} holds other studies too, which are not used and stay as they are: {names}")
    name = own or folder.resolve().name
    if own is None and (trials := rebuild(folder, config, name=name)):
        screen.say(f"{journal} was lost: rebuilt from the results tables, with {trials} trials")
    return name


def _open_study(config: SearchConfig, folder: Path, *, name: str) -> Study:
    """The study of this name in a run's journal; a new one where it has none."""
    logging.getLogger("optuna").setLevel(logging.WARNING)  # that a study is there already is no news
    opened = Study(folder / JOURNAL, name=name, sampler=_sampler(config, asked=0), pruner=_pruner(config))
    opened.claim((config.provenance or {})[RUN_ID])
    if there := opened.asked + len(opened.known):
        opened.use(_sampler(config, asked=there))
    return opened


def _sampler(config: SearchConfig, *, asked: int) -> BaseSampler:
    sampler = make_sampler(config.sampler.name, config.sampler.parameters, seed=config.seed, asked=asked)
    return without_repeats(sampler, config, asked=asked)


def _pruner(config: SearchConfig) -> BasePruner:
    return make_pruner(config.pruner.name, config.pruner.parameters, epochs=config.training.epochs)


@contextmanager
def _new_folder(folder: Path) -> Iterator[None]:
    """The folder of a new run; it and its parents are removed again where the start fails before its settings exist."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        _make(folder)
        yield
    except BaseException:
        if made and _names(folder) == [LOCK]:
            (folder / LOCK).unlink()
        for path in made:
            if _names(path) == []:
                path.rmdir()
        raise


def _make(folder: Path) -> None:
    try:
        make_folder(folder)
    except OSError as error:
        raise InputError(
            f"--runs must be where a folder can be made, but {folder} cannot: {error.strerror}; name another place"
        ) from error


def _names(folder: Path) -> list[str] | None:
    """What a folder holds; None where there is no such folder."""
    return [path.name for path in folder.iterdir()] if folder.is_dir() else None


def require_room(config: SearchConfig) -> None:
    """Raise InputError, soon, where trials could not run as the settings ask."""
    connect.require_room(config.address, _needs(config))


def _require_reachable(config: SearchConfig, folder: Path, *, resumed: bool) -> None:
    """Raise InputError, soon, where the cluster or the storage would refuse the search later."""
    require_room(config)
    if config.storage is not None:
        require_usable(config.storage, folder.name, resumed=resumed)


def _needs(config: SearchConfig) -> connect.Needs:
    return connect.Needs(
        cpus_per_trial=config.cpus_per_trial,
        trials_per_gpu=config.trials_per_gpu,
        workers=config.workers,
        growing=config.address is not None,
    )


@contextmanager
def placed(config: SearchConfig, data_bytes: int) -> Iterator[Place]:
    """A cluster with room for trials and for so much data, for as long as the context lasts."""
    with (
        scratch() as temporary,
        connect.connected(config.address, data_bytes=data_bytes, folder=temporary),
    ):
        workers, gpus = connect.room(_needs(config))
        place = Place(workers=workers, gpus=gpus, scratch=temporary)
        try:
            yield place
        finally:
            place.leave()


def _bytes(prepared: Prepared) -> int:
    return prepared.train.mels.nbytes + prepared.validation.mels.nbytes


def copied(
    config: SearchConfig, folder: Path, screen: Reporter, *, resumed: bool
) -> AbstractContextManager[object]:
    """A copy of the run's folder follows it for as long as the context lasts, if one is wanted."""
    if config.storage is None:
        return nullcontext()
    run_id = (config.provenance or {}).get(RUN_ID)
    return Mirror(folder, config.storage, say=screen.say, resumed=resumed, run_id=run_id)


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
    with atomic_file(folder / "config.yaml") as partial:
        partial.write_text(to_yaml(config.model_copy(update={"provenance": provenance})), encoding="utf-8")


def _trainable(
    config: SearchConfig,
    prepared: Prepared,
    place: Place,
    *,
    cache: Path,
    shelf: Any,
    checkpoints: Any,
    arrivals: Any,
) -> type[tune.Trainable]:
    """What workers run, with its data, which they share in Ray's object store, and the processes they talk to."""
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
        weights_files=weights_files(config, place),
        shelf=shelf,
        checkpoints=checkpoints,
        arrivals=arrivals,
    )
    return trainable


def working_set(
    config: SearchConfig,
    tracks: Corpus,
    place: Place,
    *,
    cache: Path,
    train: SegmentArrays,
    validation: SegmentArrays | None,
    weights: Mapping[str, str],
) -> WorkingSet:
    """What workers are given: these segments, and the run's settings for all trials."""
    return WorkingSet(
        corpus=tracks,
        train=train,
        validation=validation,
        front_end=front_end(config.front_end, level=config.level),
        segments_per_track=config.segments_per_track,
        weights=weights,
        cache=cache.absolute(),
        cache_bytes=int(config.feature_cache * GIB),
        threads=max(1, int(config.cpus_per_trial)),
        device=place.device,
        gpu_shared=0 < place.gpus < 1,
        epoch_limit=config.epoch_limit,
        checkpoints=config.checkpoint_budget > 0,
    )


def weights_files(config: SearchConfig, place: Place) -> Any:
    """Who reads weights for nodes that lack their file; None where all weights are random."""
    places = {backbone: weights_path(backbone, config.weights_of(backbone)) for backbone in config.backbones}
    paths = {backbone: path for backbone, path in places.items() if path}
    return place.process(WeightsFiles, paths) if paths else None


class _AnnouncesInterrupts(tune.Callback):
    """Has Ctrl-C announced, which Tune has taken for itself when it sets callbacks up."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """Args: where to announce it."""
        self._say = say

    def setup(self, *_: Any, **__: Any) -> None:
        """The search begins."""
        announce_interrupts(self._say)


def _tune(
    config: SearchConfig,
    trainable: type[tune.Trainable],
    place: Place,
    searcher: StudySearcher,
    scheduler: StudyScheduler,
    callbacks: list[tune.Callback],
    budget: TimeBudget,
    say: Callable[[str], None],
) -> None:
    """Ray Tune's loop: from the first trial to the last, the end of the time, or Ctrl-C."""
    try:
        with interrupt_handler_kept():
            tune.run(  # not tune.Tuner, which pickles the searcher and the callbacks to be restored by
                trainable,
                name="tune",
                resources_per_trial={"cpu": config.cpus_per_trial, "gpu": place.gpus},
                search_alg=searcher,
                scheduler=scheduler,
                callbacks=[*callbacks, _AnnouncesInterrupts(say)],
                num_samples=-1,  # the searcher says when it is over: a trial that lost its worker is given out again
                stop=budget,
                reuse_actors=True,
                storage_path=str(place.scratch / "tune"),
                trial_dirname_creator=lambda trial: trial.trial_id,
                raise_on_failed_trial=False,
                verbose=0,
            )
    except TuneError as error:
        if isinstance(error.__context__, OSError):  # of ours, such as a full disk; Tune keeps its text only
            raise error.__context__ from error
        if told := mlflow.explained(error.__context__):
            raise told from error
        raise
