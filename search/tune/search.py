"""A search on Ray Tune, from its settings to its results on disk."""

import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import ray
from ray import tune
from ray.actor import ActorHandle
from ray.exceptions import RayError
from ray.tune.error import TuneError

from genre_core.corpus.corpus_table import write_corpus
from genre_core.system.atomic import atomic_file
from genre_core.system.interruption import announce_interrupts, handler_kept
from genre_core.system.memory import GIB
from search.config.schema import OPTUNA, SearchConfig, to_yaml
from search.data import prepare
from search.data.music import locate_music
from search.data.prepare import Prepared
from search.data.reporter import Reporter as PreparationReporter
from search.engine import ports
from search.engine.coordinator import Coordinator, Limits
from search.engine.costs import Costs
from search.engine.forecast import Plan
from search.engine.ports import Strategy
from search.engine.recorder import Recorder
from search.engine.strategy import CostAwareStrategy, OptunaStrategy
from search.recovery.reconcile import reconcile, unsettled
from search.recovery.reopen import record_extension, restore_study, with_identity
from search.recovery.unclaimed import Unclaimed
from search.run.checkpoints import CheckpointStore, clear_checkpoints
from search.run.commands import command
from search.run.folder import RunFolder, new_folder
from search.run.identity import EXTENDED, FOLDER, RUN_ID, new_identity
from search.run.lock import driving
from search.run.mirror import Mirror, require_usable
from search.run.model_store import ModelStore
from search.run.provenance import versions
from search.run.schemas import EpochRow, TrialRow
from search.run.tables import ResultsWriter, require_new, require_run
from search.study import warm_start
from search.study.journal import recorded_trials
from search.study.opening import open_study, pruner_of, sampler_of, use_policy
from search.study.policy import make_policy
from search.study.study import TIME_BUDGET, WORKER_BUDGET, Study
from search.study.suggest import sample
from search.study.without_repeats import goal, used_up
from search.tune import mlflow, precision, ray_internals
from search.tune.actors import StartupBarrier, ask
from search.tune.adapter import BudgetStopper, CoordinatorScheduler, CoordinatorSearcher
from search.tune.cluster import Resources, acquire, needs, require_capacity
from search.tune.cluster_transform import transform_of
from search.tune.plan import make_plan, remember, with_local_precision
from search.tune.torch_trainer import WorkingSet
from search.tune.trainable import Actors, GenreTrial, store_shards, uploads, weights_files

_MEASURING = "measuring what an epoch costs"


class SearchFailed(Exception):
    """Every trial failed; the message is the error of the first."""


class Reporter(PreparationReporter, ports.Reporter, Protocol):
    """Shows a search to the user, from its preparation to its end."""

    def expect(self, trials: int) -> None:
        """Set the expected number of trials, which is lower because the search space has no more configurations."""

    def plan(self, plan: Plan) -> None:
        """Show the plan of the search."""

    def working(self, title: str) -> AbstractContextManager[None]:
        """A context manager that shows work of unknown length."""

    def phase(self, title: str) -> None:
        """Show the current phase of the search, until its first epoch ends."""

    def epoch(self, row: EpochRow) -> None:
        """Show a finished epoch."""

    def meter(self, seconds: Callable[[], float]) -> None:
        """Set a function that returns the seconds that all workers together have spent so far."""

    def take_up(self, rows: Sequence[TrialRow], curves: Mapping[int, Mapping[int, float]]) -> None:
        """Show the earlier trials of a resumed search, with their F1 by epoch."""

    def searching(self) -> AbstractContextManager[None]:
        """A context manager that shows the trials."""


def run(config: SearchConfig, *, folder: Path, cache: Path, reporter: Reporter) -> bool:
    """Run a search in a new folder; when it returns, every result is on disk.

    The settings, the path of the data, the cluster and the storage are checked before weights are downloaded and
    audio is decoded. If one of them is invalid, no folder is created.

    Args:
        config: of the search.
        folder: of the run; it must not exist, or must be empty.
        cache: for spectrograms and other files that searches share.
        reporter: shows progress.

    Returns:
        True if the search was completed or its time budget is spent; False if it was interrupted.

    Raises:
        InputError: the data, the settings or the cluster cannot be used.
        SearchFailed: every trial failed.
    """
    require_new(folder)
    with new_folder(folder):
        sampler_of(config, asked=0), pruner_of(config)
        earlier = warm_start.read_earlier(config)
        found = prepare.read_data(config)
        _require_usable(config, folder, resumed=False)
        transform = transform_of(config, reporter.say)
        tracks, prepared = prepare.prepare(config, found, cache=cache, reporter=reporter, transform=transform)
        del found  # of a large corpus, a second list of its tracks
        warm_start.require_same_data(config, earlier, tracks)
        with reporter.working(_MEASURING):
            config = with_local_precision(config)
            plan = make_plan(config, prepared, cache=cache)
        reporter.plan(plan)
        with _on_ray(config, reporter) as resources, driving(folder):
            config = precision.decided(config, gpus=resources.gpus, support=precision.gpus_of_cluster)
            require_new(folder)
            config = config.model_copy(update={"provenance": new_identity(folder).provenance})
            with mirrored(config, folder, reporter, resumed=False):
                write_corpus(tracks, RunFolder(folder).corpus)
                del tracks  # a large corpus takes memory that the search can use
                _write_config(config, prepared, folder)
                the_study = open_study(config, folder, name=folder.resolve().name)
                _warm_start(the_study, config, earlier, prepared, reporter)
                return _search(config, prepared, the_study, folder, cache, reporter, resources, plan.costs)


def resume(
    config: SearchConfig,
    *,
    folder: Path,
    cache: Path,
    reporter: Reporter,
    after_finish: bool = False,
    data: Path | str | None = None,
) -> bool:
    """Resume a search. Ended trials are kept; trials that were running continue from their last checkpoint.

    Args:
        config: of the run, perhaps with more trials, another time budget or another cluster.
        folder: of the run.
        cache: see `run`.
        reporter: see `run`.
        after_finish: allow more trials after the test set has been read; config.yaml records it.
        data: path or address of the folder or manifest of the music if it has moved; None if it has not.

    Returns:
        See `run`.

    Raises:
        InputError: see `run`; also if more trials would run although the test set has been read.
        SearchFailed: every trial failed.
    """
    require_run(folder)
    with driving(folder):
        config = with_identity(config, folder, reporter.say)
        the_study = open_study(config, folder, name=restore_study(config, folder, reporter.say))
        if the_study.ended >= (wanted := goal(config, the_study)):
            if data is not None:
                locate_music(config, folder, data, cache=cache, reporter=reporter)
            with mirrored(config, folder, reporter, resumed=True):  # in case the driver died at the very end
                _recorder(config, the_study, folder, reporter).end(None)
                shutil.rmtree(RunFolder(folder).checkpoints, ignore_errors=True)
            more = f"to run more trials, give --trials a number above {the_study.ended}"
            reporter.say(f"{folder} is complete; {more if wanted == config.trials else used_up(config)}")
            return True
        config = record_extension(config, folder, trials=the_study.ended, allowed=after_finish)
        _require_usable(config, folder, resumed=True)
        # the driver may have died before its first trial
        earlier = [] if the_study.asked else warm_start.read_earlier(config)
        config, tracks = locate_music(config, folder, data, cache=cache, reporter=reporter)
        warm_start.require_same_data(config, earlier, tracks)
        transform = transform_of(config, reporter.say)
        prepared = prepare.prepare_resumed(
            config, tracks, cache=cache, reporter=reporter, transform=transform
        )
        del tracks
        rows, left = recorded_trials(folder).values(), wanted - the_study.ended
        with reporter.working(_MEASURING):
            plan = make_plan(config, prepared, cache=cache, rows=rows, trials=left)
        reporter.plan(plan)
        with _on_ray(config, reporter) as resources:
            _write_config(config, prepared, folder)
            with mirrored(config, folder, reporter, resumed=True):
                _warm_start(the_study, config, earlier, prepared, reporter)
                return _search(config, prepared, the_study, folder, cache, reporter, resources, plan.costs)


@contextmanager
def _on_ray(config: SearchConfig, reporter: Reporter) -> Iterator[Resources]:
    """Show the search and yield its resources on Ray."""
    with reporter.searching():
        reporter.phase("starting Ray" if config.address is None else f"connecting to Ray at {config.address}")
        with acquire(config) as resources:
            yield resources


def _search(
    config: SearchConfig,
    prepared: Prepared,
    the_study: Study,
    folder: Path,
    cache: Path,
    reporter: Reporter,
    resources: Resources,
    costs: Costs,
) -> bool:
    """Run the search from the current state of the study; see `run` for the result."""
    wanted = _announced(config, the_study, folder, reporter)
    run = RunFolder(folder)
    recorder = _recorder(config, the_study, folder, reporter, costs)
    strategy = _strategy(config, the_study, costs, progress=lambda: coordinator.progress)
    clear_checkpoints(run.checkpoints, keep=the_study.running)
    limits = _limits(config, resources.workers)
    models = resources.actor(ModelStore, run.models.absolute(), config.keep_models)
    checkpoints = resources.actor(CheckpointStore, run.checkpoints.absolute(), limits.checkpoint_bytes)
    workers = min(resources.workers, wanted - the_study.ended)
    actors = Actors(
        weights=weights_files(config, resources),
        frames=store_shards(prepared.train, config, resources),
        storage=config.storage,
        models=models,
        checkpoints=checkpoints,
        barrier=resources.actor(StartupBarrier, workers),
    )
    coordinator = Coordinator(
        the_study,
        recorder,
        limits=limits,
        goal=lambda: goal(config, the_study),
        draw=lambda trial: sample(trial, config),
        forget=lambda number: checkpoints.drop.remote(number),
        say=reporter.say,
        clock=time.monotonic,
        strategy=strategy,
        unsettled=unsettled(folder, the_study),
    )
    reporter.meter(lambda: coordinator.spent)
    stopper = BudgetStopper(coordinator, spent=lambda: models.close.remote())
    trainable = _trainable(config, prepared, resources, cache=cache, actors=actors)
    if not stopper.stop_all():  # a resumed search may have spent its budget before
        search_id = (config.provenance or {})[RUN_ID]
        callbacks = mlflow.callbacks(config.mlflow, folder.name, search_id=search_id)
        callbacks.append(_Start(actors.barrier, workers, reporter.phase))
        with uploads(prepared.train, actors, reporter.say):
            _tune(config, trainable, resources, coordinator, stopper, callbacks, reporter.say)
    _remember(cache, config, prepared, costs, say=reporter.say)
    if not (stopper.stopped or coordinator.finished or the_study.ended >= goal(config, the_study)):
        coordinator.end(interrupted=True)
        return False
    _end(config, the_study, coordinator, folder, reporter.say)
    ask(checkpoints.end.remote)
    if error := the_study.all_failed():
        raise SearchFailed(error)
    return True


def _announced(config: SearchConfig, the_study: Study, folder: Path, reporter: Reporter) -> int:
    """The number of trials that the search should have; differences from the settings are reported."""
    if (wanted := goal(config, the_study)) < config.trials:
        reporter.expect(wanted)
    if (beyond := the_study.waiting - (wanted - the_study.asked)) > 0:
        reporter.say(
            f"enqueue has {beyond} more configurations than there are trials left; to try them too: "
            f"{command('resume', folder)} --trials {wanted + beyond}"
        )
    return wanted


def _limits(config: SearchConfig, workers: int) -> Limits:
    """The limits of a search with this number of workers."""
    return Limits(
        workers=workers,
        retries=config.retries,
        epoch_limit=config.epoch_limit,
        time_budget=config.time_budget,
        worker_budget=config.worker_budget,
        checkpoint_bytes=int(config.checkpoint_budget * GIB),
    )


def _end(
    config: SearchConfig,
    the_study: Study,
    coordinator: Coordinator,
    folder: Path,
    say: Callable[[str], None],
) -> None:
    """End a search that was not interrupted, and report trials that were stopped early."""
    over = coordinator.finished or the_study.ended >= goal(config, the_study)
    budget = coordinator.spent_budget() or TIME_BUDGET
    stopped = coordinator.end(interrupted=False)
    if not over:
        seconds, option = {
            TIME_BUDGET: (config.time_budget, "--time-budget"),
            WORKER_BUDGET: (config.worker_budget, "--budget"),
        }[budget]
        say(
            f"{budget} of {seconds:g} s spent; running trials that were stopped, keeping their epochs: {stopped}; "
            f"to continue: {command('resume', folder)} {option} TIME"
        )
    if goal(config, the_study) <= the_study.ended < config.trials:
        say(used_up(config))


def _strategy(
    config: SearchConfig, the_study: Study, costs: Costs, *, progress: Callable[[], float]
) -> Strategy:
    """The strategy of a search; a cost-aware one replaces the study's sampler and pruner."""
    if config.search == OPTUNA:
        return OptunaStrategy()
    limited = config.time_budget is not None or config.worker_budget is not None
    policy = make_policy(
        config,
        cost_of=costs.of,
        progress=progress if limited else None,
        asked=the_study.asked + len(the_study.known),
    )
    use_policy(the_study, policy, config)
    return CostAwareStrategy(policy, the_study)


def _remember(
    cache: Path, config: SearchConfig, prepared: Prepared, costs: Costs, *, say: Callable[[str], None]
) -> None:
    """Store the measured costs for the forecasts of other searches; an error is reported, not raised."""
    try:
        remember(cache, config, prepared, costs)
    except OSError as error:
        say(f"the costs of this search were not stored for later forecasts: {error}")


def _recorder(
    config: SearchConfig, the_study: Study, folder: Path, reporter: Reporter, costs: Costs | None = None
) -> Recorder:
    """The recorder of a study, whose tables have been reconciled with it."""
    writer = ResultsWriter(folder)
    recorder = Recorder(
        the_study,
        writer,
        name=RunFolder(folder).name,
        show=reporter.trial,
        show_epoch=reporter.epoch,
        costs=costs,
    )
    unclaimed = Unclaimed(folder)
    rows = reconcile(folder, config, the_study, writer, unclaimed)
    if unclaimed.message:
        reporter.say(unclaimed.message)
    if rows:
        recorder.take_up(rows)
        curves = {trial.number: trial.intermediate_values for trial in the_study.trials}
        reporter.take_up(rows, curves)
    return recorder


def _warm_start(
    the_study: Study,
    config: SearchConfig,
    earlier: Sequence[warm_start.Earlier],
    prepared: Prepared,
    reporter: Reporter,
) -> None:
    """Add the trials of earlier searches to the study before it suggests any."""
    warm_start.teach(the_study, config, earlier, weights=prepared.weights, say=reporter.say)
    if earlier:  # with the same seed, the sampler would repeat the earlier suggestions
        the_study.use(sampler_of(config, asked=len(the_study.known)))


def _require_usable(config: SearchConfig, folder: Path, *, resumed: bool) -> None:
    """Raise InputError if the cluster, the storage or MLflow cannot be used, before any work is done."""
    require_capacity(config.address, needs(config))
    mlflow.require_usable(config.mlflow, folder.name)
    if config.storage is not None:
        require_usable(config.storage, folder.name, resumed=resumed)


def mirrored(
    config: SearchConfig, folder: Path, reporter: PreparationReporter, *, resumed: bool
) -> AbstractContextManager[object]:
    """Mirror the run's folder to the storage inside the context; without a storage, do nothing."""
    if config.storage is None:
        return nullcontext()
    run_id = (config.provenance or {}).get(RUN_ID)
    return Mirror(folder, config.storage, say=reporter.say, resumed=resumed, run_id=run_id)


def _write_config(config: SearchConfig, prepared: Prepared, folder: Path) -> None:
    """Write config.yaml: every setting, and the provenance needed to understand and to resume the run."""
    kept = {k: v for k, v in (config.provenance or {}).items() if k in (RUN_ID, FOLDER, EXTENDED)}
    provenance = kept | {
        "versions": versions(),
        "corpus": prepared.fingerprint,
        "spectrograms": prepared.spectrograms,
        "genres": list(prepared.genres),
        "weights": prepared.weights,
    }
    with atomic_file(RunFolder(folder).config) as partial:
        partial.write_text(to_yaml(config.model_copy(update={"provenance": provenance})), encoding="utf-8")


class _Start(tune.Callback):
    """Shows how many workers have started, and then the computation of features."""

    def __init__(self, barrier: ActorHandle[Any] | None, workers: int, phase: Callable[[str], None]) -> None:
        """Args: the startup barrier, the number of workers, and a function that shows what the search does."""
        self._barrier = barrier
        self._workers = workers
        self._phase = phase
        self._answer: Any | None = None
        phase(self._words(0))

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Ask the barrier, without waiting for its answer."""
        if self._barrier is None:
            return
        try:
            if self._answer is None:
                self._answer = self._barrier.arrived.remote()
            elif ray.wait([self._answer], timeout=0)[0]:
                arrived, self._answer = ray.get(self._answer), None
                self._phase(self._words(arrived))
                self._barrier = self._barrier if arrived < self._workers else None
        except RayError:  # only for display; workers report the error themselves
            self._barrier = None

    def _words(self, arrived: int) -> str:
        if arrived >= self._workers:
            return "computing features, training the first epoch"
        return f"starting workers, {arrived} of {self._workers}"


class _InterruptAnnouncer(tune.Callback):
    """Announces Ctrl-C; a callback, because Tune installs its own SIGINT handler just before it sets up callbacks."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """Args: shows a message to the user."""
        self._say = say

    def setup(self, *_: Any, **__: Any) -> None:
        """Wrap Tune's SIGINT handler."""
        announce_interrupts(self._say)


def _trainable(
    config: SearchConfig, prepared: Prepared, resources: Resources, *, cache: Path, actors: Actors
) -> type[tune.Trainable]:
    """The trainable of the workers, with its data in Ray's object store."""
    trainable: type[tune.Trainable] = tune.with_parameters(
        GenreTrial,
        working_set=WorkingSet.of(
            config,
            genres=prepared.genres,
            split=prepared.split,
            cache=cache,
            train=prepared.train,
            validation=prepared.validation,
            weights=prepared.weights,
            device=resources.device,
            gpu_shared=resources.gpu_shared,
            gpus=resources.gpus,
        ),
        actors=actors,
    )
    return trainable


def _tune(
    config: SearchConfig,
    trainable: type[tune.Trainable],
    resources: Resources,
    coordinator: Coordinator,
    stopper: BudgetStopper,
    callbacks: list[tune.Callback],
    say: Callable[[str], None],
) -> None:
    """Run Tune until all trials have ended, the time budget is spent, or Ctrl-C."""
    try:
        with handler_kept(signal.SIGINT):
            ray_internals.run_trials(
                trainable,
                resources={"cpu": config.cpus_per_trial, "gpu": resources.gpus},
                searcher=CoordinatorSearcher(coordinator),
                scheduler=CoordinatorScheduler(coordinator),
                stopper=stopper,
                callbacks=[*callbacks, _InterruptAnnouncer(say)],
                folder=resources.scratch / "tune",
            )
    except TuneError as error:
        cause = ray_internals.cause_of(error)
        if isinstance(cause, OSError):  # such as a full disk
            raise cause from error
        if explained := mlflow.as_input_error(cause):
            raise explained from error
        raise
