"""The Ray to run on: the one at an address, or one of our own; and how many trials it has room for."""

import logging
import os
import signal
import socket
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ray
import torch
from ray._private import services
from ray._raylet import GcsClient  # type: ignore[attr-defined]  # compiled
from ray.exceptions import AuthenticationError, RayError, RpcError

from genre_core.errors import InputError
from search.tune.interruption import termination_as_interrupt
from search.tune.scratch import socket_folder

OBJECT_STORE_BYTES = 2 * 1024**3
"""Of a Ray that is started here: models and checkpoints on their way to their shelves pass through it."""

AUTO_TRIALS_PER_GPU = 4
"""How many at most: each is a process whose CUDA context takes about half a GiB of the GPU."""

ANSWER_SECONDS = 5.0
"""How long a cluster's head may take to answer."""

RESOURCE_PARTS = 10_000
"""Ray counts resources in such parts of one."""

REASON_CHARACTERS = 300
"""Of an error that Ray explains at length."""

_HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_HTTP2_FRAME_BYTES, _HTTP2_SETTINGS = 9, b"\x04"
"""How an HTTP/2 connection begins (RFC 9113, 3.4), which gRPC and so Ray's head use: with settings from both sides."""

_GROWING = "; give --workers too where larger nodes are added on demand"

_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a worker without a GPU sees none
    "RAY_TRAIN_COUNT_PREEMPTION_AS_FAILURE": "1",  # else Tune itself would give such a trial out again
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the results tables take their place
    "TUNE_GLOBAL_CHECKPOINT_S": str(10**9),  # the study is the state; Tune's own snapshots grow with it
    "TUNE_MAX_PENDING_TRIALS_PG": str(10**9),  # else workers start one by one; the searcher keeps count
}


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What trials ask of a cluster."""

    cpus_per_trial: float
    trials_per_gpu: int | Literal["auto"]
    """How many share one; `auto` for at most AUTO_TRIALS_PER_GPU where the cluster has GPUs."""
    workers: int | None
    """Trials at a time, at most."""
    growing: bool
    """The cluster may add nodes for what is asked of it, so `workers` is taken as given."""


@contextmanager
def connected(address: str | None, *, data_bytes: int, folder: Path) -> Iterator[None]:
    """Ray for as long as the context lasts; a polite kill ends it as Ctrl-C does.

    A Ray that this process is connected to already is used as it is, and left so.

    Args:
        address: of a running cluster; None starts a Ray on this machine that ends with the context.
        data_bytes: what its object store must hold beside models on their way.
        folder: where a Ray that is started here puts what does not fit into memory.

    Raises:
        InputError: there is no cluster at the address, or no place for the sockets of one here.
    """
    _set_environment()
    if ray.is_initialized():
        yield
        return
    bytes_in_all = OBJECT_STORE_BYTES + data_bytes
    reached = _started(bytes_in_all, folder) if address is None else _joined(address)
    with termination_as_interrupt(), reached:
        yield


def require_room(address: str | None, needs: Needs) -> None:
    """Raise InputError, within seconds, where there is no cluster at the address, or no room for one trial.

    Of this machine, Ray itself may find less than is counted here, but not more.
    """
    if ray.is_initialized():
        room(needs)
    elif address is None:
        fit([{"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}], needs)
    else:
        _set_environment()
        with _joined(address):
            room(needs)


def room(needs: Needs) -> tuple[int, float]:
    """Trials at a time, and GPUs for each; InputError where the cluster has not room for one trial."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return fit([node["Resources"] for node in nodes if node["Alive"]], needs)


def fit(nodes: Sequence[Mapping[str, float]], needs: Needs) -> tuple[int, float]:
    """Trials at a time, and GPUs for each, where nodes have these resources.

    Raises:
        InputError: there is not room for one trial.
    """
    all_gpus = sum(node.get("GPU", 0.0) for node in nodes)
    auto = needs.trials_per_gpu == "auto"
    if auto and needs.growing and needs.workers is not None and not all_gpus:
        raise InputError(
            "--trials-per-gpu must be a number where --workers are to come and the cluster has no GPU yet, but got "
            "auto; give 1 or more for GPUs that are to come, 0 for CPUs, or leave out --workers to take what there is"
        )
    sharing = (
        (AUTO_TRIALS_PER_GPU if all_gpus else 0) if needs.trials_per_gpu == "auto" else needs.trials_per_gpu
    )
    gpus = 1 / sharing if sharing else 0.0
    if needs.growing and needs.workers is not None:
        return needs.workers, gpus
    if sharing and not all_gpus:
        raise InputError(
            f"--trials-per-gpu must be 0 where the cluster has no GPU, but got {needs.trials_per_gpu}; or leave it out"
        )
    usable = [node for node in nodes if node.get("GPU", 0.0) or not sharing]
    fitting = sum(_trials_on(node, needs.cpus_per_trial, sharing) for node in usable)
    if not fitting:
        most = max((node.get("CPU", 0.0) for node in usable), default=0.0)
        raise InputError(
            f"--cpus-per-trial must be at most {most:g}, the cores of the largest node{' with a GPU' * bool(sharing)}, "
            f"but got {needs.cpus_per_trial:g}{_GROWING * needs.growing}"
        )
    return min(needs.workers or fitting, fitting), gpus


def _trials_on(node: Mapping[str, float], cpus: float, sharing: int) -> int:
    """How many trials one node holds: none is spread over two."""
    by_cores = int(_parts(node.get("CPU", 0.0)) // _parts(cpus))
    return min(by_cores, int(node.get("GPU", 0.0)) * sharing) if sharing else by_cores


def _parts(resource: float) -> int:
    """A resource as Ray counts it, so that 0.3 holds 0.1 three times."""
    return round(resource * RESOURCE_PARTS)


def _set_environment() -> None:
    os.environ.update({key: os.environ.get(key, value) for key, value in _ENVIRONMENT.items()})
    for noisy in ("ray.tune", "optuna"):  # a failed trial's reason is in the results, not on the screen
        logging.getLogger(noisy).setLevel(logging.CRITICAL)


@contextmanager
def _started(object_store_bytes: int, folder: Path) -> Iterator[None]:
    """A Ray on this machine."""
    with socket_folder() as sockets:
        try:
            with _signals_kept():
                ray.init(
                    "local",  # without an address Ray would join a cluster that happens to run on this machine
                    include_dashboard=False,
                    object_store_memory=object_store_bytes,
                    object_spilling_directory=str(folder),
                    _temp_dir=str(sockets),
                    **_QUIET,
                )
            yield
        finally:
            ray.shutdown()


@contextmanager
def _joined(address: str) -> Iterator[None]:
    """The Ray at an address."""
    with _address_explained(address), _standard_error_muted():
        head = head_of(address)
    try:
        with _address_explained(address), _signals_kept(), _standard_error_muted():
            ray.init(address=head, **_QUIET)
        yield
    finally:
        ray.shutdown()


@contextmanager
def _address_explained(address: str) -> Iterator[None]:
    """Raise what is wrong with the address as an InputError."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, RayError) as error:
        raise InputError(
            f"--address must be `auto` or the HOST:PORT of a running Ray cluster, but got {address}: {_reason(error)}"
        ) from error


def head_of(address: str) -> str:
    """The HOST:PORT of the head that answers at an address.

    Raises:
        OSError, ValueError, RayError: none does, which is known within seconds: Ray itself would try again and again.
    """
    if "://" in address:
        raise ValueError(
            "a search runs on the cluster itself; give the head's HOST:PORT, or use `ray job submit`"
        )
    head = services.canonicalize_bootstrap_address(address)
    if head is None:
        raise ValueError("RAY_ADDRESS names no cluster")
    host, _, port = head.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS) as connection:
        if os.environ.get("RAY_USE_TLS", "0").lower() not in ("1", "true"):
            connection.sendall(_HTTP2_GREETING)
            if connection.recv(_HTTP2_FRAME_BYTES)[3:4] != _HTTP2_SETTINGS:
                raise ValueError("what answers there is not Ray")
    GcsClient(address=head)
    return head


def _reason(error: Exception) -> str:
    if isinstance(error, AuthenticationError):
        return "the cluster requires a token; set RAY_AUTH_MODE=token and the token, see cluster.yaml"
    if isinstance(error, RpcError):
        return f"what answers there is not the head of a Ray cluster ({error})"
    return textwrap.shorten(str(error), REASON_CHARACTERS, placeholder=" …")


@contextmanager
def _standard_error_muted() -> Iterator[None]:
    """No output of this process's native code on standard error for as long as the context lasts."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Take SIGTERM's handler back from ray.init, which puts its own there."""
    earlier = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)
