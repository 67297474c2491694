"""The Ray to run on: the one at an address, or one of our own; and how many trials it has room for."""

import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import ray

from genre_core.errors import InputError

OBJECT_STORE_BYTES = 2 * 1024**3
"""Of a Ray that is started here: models and checkpoints on their way to their shelves pass through it."""

AUTO_TRIALS_PER_GPU = 4
"""How many at most: each is a process whose CUDA context takes about half a GiB of the GPU."""

ANSWER_SECONDS = 5.0
"""How long a cluster's head may take to answer."""

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a worker without a GPU sees none
    "RAY_TRAIN_COUNT_PREEMPTION_AS_FAILURE": "1",  # else Tune itself would give such a trial out again
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the results tables take their place
    "TUNE_GLOBAL_CHECKPOINT_S": str(10**9),  # the study is the state; Tune's own snapshots grow with it
    "TUNE_MAX_PENDING_TRIALS_PG": str(10**9),  # else workers start one by one; the searcher keeps count
}


@contextmanager
def connected(address: str | None, *, data_bytes: int, folder: Path) -> Iterator[None]:
    """Ray for as long as the context lasts; a polite kill ends it as Ctrl-C does.

    A Ray that this process is connected to already is used as it is, and left so.

    Args:
        address: of a running cluster; None starts a Ray on this machine that ends with the context.
        data_bytes: what its object store must hold beside models on their way.
        folder: for the temporary files of a Ray that is started here.

    Raises:
        InputError: there is no cluster at the address.
    """
    os.environ.update({key: os.environ.get(key, value) for key, value in _ENVIRONMENT.items()})
    for noisy in ("ray.tune", "optuna"):  # a failed trial's reason is in the results, not on the screen
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    if ray.is_initialized():
        yield
        return
    try:
        _connect(address, OBJECT_STORE_BYTES + data_bytes, folder)
        with termination_as_interrupt():
            yield
    finally:
        ray.shutdown()


def room(
    *, cpus_per_trial: float, trials_per_gpu: int | Literal["auto"], workers: int | None, growing: bool
) -> tuple[int, float]:
    """Trials at a time, and GPUs for each.

    Args:
        cpus_per_trial: cores that each trial takes.
        trials_per_gpu: how many share one; `auto` for at most AUTO_TRIALS_PER_GPU where the cluster has GPUs.
        workers: trials at a time, at most.
        growing: the cluster may add nodes for what is asked of it, so `workers` is taken as given.

    Raises:
        InputError: the cluster has not room for one trial.
    """
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    cores, all_gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    sharing = (AUTO_TRIALS_PER_GPU if all_gpus else 0) if trials_per_gpu == "auto" else trials_per_gpu
    gpus = 1 / sharing if sharing else 0.0
    if growing and workers is not None:
        return workers, gpus
    if gpus > all_gpus:
        raise InputError(
            f"--trials-per-gpu must be 0 where the cluster has no GPU, but got {trials_per_gpu}; or leave it out"
        )
    if cpus_per_trial > cores:
        raise InputError(
            f"--cpus-per-trial must be at most the cluster's {cores:g}, but got {cpus_per_trial:g}"
        )
    fitting = min(int(cores / cpus_per_trial), int(all_gpus / gpus) if gpus else sys.maxsize)
    return min(workers or fitting, fitting), gpus


def _connect(address: str | None, object_store_bytes: int, folder: Path) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        # "local": without an address Ray would join a cluster that happens to run on this machine
        ray.init(
            "local",
            include_dashboard=False,
            object_store_memory=object_store_bytes,
            _temp_dir=str(folder),
            **quiet,
        )
        return
    try:
        if address != "auto":
            _require_listening(address)
        ray.init(address=address, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"--address must be `auto` or the HOST:PORT of a running Ray cluster, but got {address}: {reason}"
        ) from error


def _require_listening(address: str) -> None:
    """Raise OSError or ValueError where nothing answers: Ray itself would go on trying for ever."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()


@contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """SIGTERM does what Ctrl-C does for as long as the context lasts."""

    def interrupt(*_: object) -> None:
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as for what a script starts with &
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)

    earlier = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)
