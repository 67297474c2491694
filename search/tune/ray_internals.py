"""Everything that relies on private or undocumented parts of Ray, one function or constant each.

Where Ray has a public API for the same purpose, it is used instead. tests/tune/test_ray_internals.py fails with
instructions when a Ray upgrade changes one of these parts.
"""

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle, tune
from ray._private import services
from ray._private.utils import get_num_cpus
from ray._raylet import GcsClient  # type: ignore[attr-defined]  # compiled
from ray.actor import ActorHandle
from ray.tune.error import TuneError
from ray.tune.experiment import Trial
from ray.tune.progress_reporter import CLIReporter
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from genre_core.system.interruption import handler_kept

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the progress display replaces Tune's
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a process that was given no GPU sees none
    "RAY_TRAIN_COUNT_PREEMPTION_AS_FAILURE": "1",  # otherwise Tune itself would restart a preempted trial
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the result tables replace them
    "TUNE_GLOBAL_CHECKPOINT_S": str(10**9),  # the study holds the state; Tune's own snapshots grow with it
    "TUNE_MAX_PENDING_TRIALS_PG": str(
        10**9
    ),  # otherwise workers start one by one; the searcher limits trials
}
"""Ray's environment variables, most of them undocumented, and their values in a search."""

LONGEST_SOCKET = "session_2000-01-01_00-00-00_000000_4194304/sockets/plasma_store.10"
"""The longest path of a socket below the folder given to `init_local`."""


def set_environment() -> None:
    """Set the environment variables of Ray that the user has not set."""
    os.environ.update({key: os.environ.get(key, value) for key, value in ENVIRONMENT.items()})


def init_local(*, sockets: Path, **options: Any) -> None:
    """Start a Ray on this machine whose sockets and logs are below a folder; its default, /tmp/ray, is shared."""
    # without an address, Ray would join a cluster that happens to run on this machine
    with handler_kept(signal.SIGTERM):
        ray.init("local", _temp_dir=str(sockets), **options)


def init_cluster(address: str, **options: Any) -> None:
    """Connect to the Ray cluster whose head is at HOST:PORT."""
    with handler_kept(signal.SIGTERM):
        ray.init(address=address, **options)


def resolve_address(address: str) -> str | None:
    """The HOST:PORT of the head that ray.init would connect to; None if RAY_ADDRESS is empty."""
    head: str | None = services.canonicalize_bootstrap_address(address)
    return head


def check_head(address: str) -> None:
    """Raise RayError unless a Ray head answers at HOST:PORT; ray.init itself would retry for a long time."""
    GcsClient(address=address)


def terminate(actor: ActorHandle[Any]) -> None:
    """End an actor's process after its pending calls; `ray.kill` would drop them."""
    actor.__ray_terminate__.options(max_task_retries=0).remote()


def was_restarted() -> bool:
    """Whether this process is an actor that Ray has restarted."""
    if not ray.is_initialized() or (context := ray.get_runtime_context()).get_actor_id() is None:
        return False
    return bool(context.was_current_actor_reconstructed)


def run_trials(
    trainable: type[tune.Trainable],
    *,
    resources: dict[str, float],
    searcher: Searcher,
    scheduler: TrialScheduler,
    stopper: tune.Stopper,
    callbacks: Sequence[tune.Callback],
    folder: Path,
) -> None:
    """Run Tune until the searcher is finished, the stopper stops it, or Ctrl-C.

    `tune.run` is superseded by `tune.Tuner`, but that would pickle the searcher and the callbacks, which hold an open
    study.

    Args:
        trainable: the class to run.
        resources: of each trial, "cpu" and "gpu".
        searcher: suggests trials, without a limit on their number.
        scheduler: decides after each result.
        stopper: may end the search.
        callbacks: set up after Tune has installed its SIGINT handler.
        folder: for Tune's own files.

    Raises:
        TuneError: a callback, the searcher or the scheduler raised; see `cause_of`.
    """
    tune.run(
        trainable,
        name="tune",
        resources_per_trial=resources,
        search_alg=searcher,
        scheduler=scheduler,
        callbacks=list(callbacks),
        num_samples=-1,
        stop=stopper,
        reuse_actors=True,
        storage_path=str(folder),
        trial_dirname_creator=lambda trial: trial.trial_id,
        raise_on_failed_trial=False,
        verbose=0,
        progress_reporter=CLIReporter(),  # silent; the one for notebooks would clear the output of the cell
    )


def alive_nodes() -> list[dict[str, Any]]:
    """The nodes of the connected cluster, each with `NodeID` and `Resources`; Ray's function has no types."""
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def local_cpus() -> float:
    """Number of cores that a local Ray takes: those of the machine, or the quota of a container."""
    return float(get_num_cpus(override_docker_cpu_warning=True))


def finished() -> str:
    """The value that `Searcher.suggest` returns after the last trial."""
    return Searcher.FINISHED


def cause_of(error: TuneError) -> BaseException | None:
    """The exception raised by a callback, the searcher or the scheduler; Tune's own error keeps only its text."""
    return error.__context__


def trial_error(trial: Trial) -> Exception:
    """The exception that ended a Tune trial.

    It is read from the local file: `Trial.get_pickled_error` reads the copy in storage, which is written later.
    """
    error: Exception = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
    return error


def trial_traceback(trial: Trial) -> str:
    """The text of the exceptions that ended a Tune trial, the latest last; "" if there is none. See `trial_error`."""
    file = trial.error_file
    return Path(file).read_text(encoding="utf-8") if file else ""
