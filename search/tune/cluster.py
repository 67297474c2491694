"""The Ray cluster of a search, local or remote: how many trials fit on it, and helper actors on the head."""

import logging
import os
import socket
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import ray
import torch
from ray.actor import ActorHandle
from ray.exceptions import AuthenticationError, RayError, RpcError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from genre_core.errors import InputError
from genre_core.system.interruption import termination_as_interrupt
from genre_core.system.memory import GIB
from search.config.schema import SearchConfig
from search.errors import SearchErrorCode
from search.tune import ray_internals
from search.tune.scratch import scratch, socket_folder

OBJECT_STORE_BYTES = 2 * GIB
"""Size of a local Ray's object store: models and checkpoints pass through it, but no spectrograms."""

AUTO_TRIALS_PER_GPU = 4
"""Default maximum number of trials that share a GPU: each needs about half a GiB for its CUDA context."""

ANSWER_SECONDS = 5.0
"""Maximum time for the head node of a cluster to answer."""

RESOURCE_PARTS = 10_000
"""Ray counts resources in units of 1 / RESOURCE_PARTS."""

REASON_CHARACTERS = 300
"""Maximum length of a Ray error in a message."""

HELPER_RETRIES = 10
"""Number of times that a call of a helper actor is repeated if the actor dies."""

_HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_HTTP2_FRAME_BYTES, _HTTP2_SETTINGS = 9, b"\x04"
"""The start of an HTTP/2 connection (RFC 9113, 3.4): both sides send settings. gRPC, and so Ray's head, uses HTTP/2."""

_GROWING = "; if the cluster adds larger nodes on demand, also give --workers"

_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}


@dataclass(frozen=True, kw_only=True)
class Needs:
    """The resources that a search requests."""

    cpus_per_trial: float
    trials_per_gpu: int | Literal["auto"]
    """Number of trials that share a GPU; `auto` means at most AUTO_TRIALS_PER_GPU if the cluster has GPUs."""
    workers: int | None
    """Maximum number of trials at a time; None for as many as fit."""
    growing: bool
    """Whether the cluster may add nodes on demand, so that `workers` is not reduced to what fits now."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """The resources of a search on a connected cluster, and its helper actors."""

    workers: int
    """Trials at a time."""
    gpus: float
    """GPUs for each trial."""
    scratch: Path
    """A folder for temporary files."""
    _actors: list[ActorHandle[Any]] = field(default_factory=list, init=False)

    @property
    def device(self) -> str:
        """`cuda` or `cpu`."""
        return "cuda" if self.gpus else "cpu"

    @property
    def has_other_nodes(self) -> bool:
        """Whether the cluster currently has other nodes than this one."""
        return len(ray.nodes()) > 1  # type: ignore[no-untyped-call]

    @property
    def gpu_shared(self) -> bool:
        """Whether several trials share a GPU."""
        return 0 < self.gpus < 1

    def actor(self, kind: type[Any], *arguments: Any) -> ActorHandle[Any]:
        """Start an actor on this node; it ends with `terminate_actors`.

        If its process dies, Ray restarts it with the same arguments and repeats the interrupted call. The state of
        these classes is therefore on disk, and their methods can be repeated.
        """
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        remote: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=HELPER_RETRIES)(kind)
        self._actors.append(remote.options(scheduling_strategy=here).remote(*arguments))
        return self._actors[-1]

    def terminate_actors(self) -> None:
        """End the actors, which would otherwise live as long as Ray, because Tune keeps references to them."""
        for actor in self._actors:
            ray_internals.terminate(actor)


def needs(config: SearchConfig) -> Needs:
    """The resources that a config requests."""
    return Needs(
        cpus_per_trial=config.cpus_per_trial,
        trials_per_gpu=config.trials_per_gpu,
        workers=config.workers,
        growing=config.address is not None,
    )


@contextmanager
def acquire(config: SearchConfig) -> Iterator[Resources]:
    """Connect to Ray and yield the resources of a search.

    Raises:
        InputError: see `connected` and `capacity`.
    """
    with scratch() as temporary, connected(config.address, folder=temporary):
        workers, gpus = capacity(needs(config))
        resources = Resources(workers=workers, gpus=gpus, scratch=temporary)
        try:
            yield resources
        finally:
            resources.terminate_actors()


@contextmanager
def connected(address: str | None, *, folder: Path) -> Iterator[None]:
    """Connect to Ray inside the context; SIGTERM is handled like Ctrl-C.

    If this process is already connected to Ray, that connection is used and kept.

    Args:
        address: of a running cluster; None starts a local Ray that ends with the context.
        folder: where a local Ray spills objects that do not fit into memory.

    Raises:
        InputError: no cluster answers at the address, or no folder can hold the sockets of a local Ray.
    """
    _configure_process()
    if ray.is_initialized():
        yield
        return
    context = _local_ray(folder) if address is None else _remote_ray(address)
    with termination_as_interrupt(), context:
        yield


def require_capacity(address: str | None, needs: Needs) -> None:
    """Raise InputError, within seconds, if no cluster answers at the address or no trial fits on it.

    A local Ray may find fewer resources than are counted here, but not more.
    """
    if ray.is_initialized():
        capacity(needs)
    elif address is None:
        fit([this_machine()], needs)
    else:
        _configure_process()
        with _remote_ray(address):
            capacity(needs)


def this_machine() -> dict[str, float]:
    """The resources that a local Ray would have."""
    return {"CPU": ray_internals.local_cpus(), "GPU": float(torch.cuda.device_count())}


def require_reachable(address: str) -> None:
    """Raise InputError, within seconds, if no cluster answers at the address."""
    _configure_process()
    with _remote_ray(address):
        pass


def capacity(needs: Needs) -> tuple[int, float]:
    """Trials at a time and GPUs for each on the connected cluster; InputError if no trial fits."""
    return fit([node["Resources"] for node in ray_internals.alive_nodes()], needs)


def fit(nodes: Sequence[Mapping[str, float]], needs: Needs) -> tuple[int, float]:
    """Trials at a time and GPUs for each on nodes with these resources.

    Raises:
        InputError: no trial fits.
    """
    all_gpus = sum(node.get("GPU", 0.0) for node in nodes)
    auto = needs.trials_per_gpu == "auto"
    if auto and needs.growing and needs.workers is not None and not all_gpus:
        raise InputError(
            "--trials-per-gpu must be a number if --workers is given and the cluster has no GPU yet, but got auto; "
            "give 1 or more if GPUs will be added, 0 to train on CPUs, or leave out --workers to use the nodes that "
            "are running",
            code=SearchErrorCode.TRIALS_PER_GPU_INVALID,
        )
    sharing = (
        (AUTO_TRIALS_PER_GPU if all_gpus else 0) if needs.trials_per_gpu == "auto" else needs.trials_per_gpu
    )
    gpus = 1 / sharing if sharing else 0.0
    if needs.growing and needs.workers is not None:
        return needs.workers, gpus
    if sharing and not all_gpus:
        raise InputError(
            f"--trials-per-gpu must be 0 if the cluster has no GPU, but got {needs.trials_per_gpu}; give 0 or leave it "
            "out",
            code=SearchErrorCode.TRIALS_PER_GPU_INVALID,
        )
    usable = [node for node in nodes if node.get("GPU", 0.0) or not sharing]
    fitting = sum(_trials_on(node, needs.cpus_per_trial, sharing) for node in usable)
    if not fitting:
        most = max((node.get("CPU", 0.0) for node in usable), default=0.0)
        raise InputError(
            f"cpus_per_trial must be at most {most:g}, the cores of the largest node{' with a GPU' * bool(sharing)}, "
            f"but got {needs.cpus_per_trial:g}{_GROWING * needs.growing}",
            code=SearchErrorCode.CPUS_PER_TRIAL_TOO_MANY,
        )
    return min(needs.workers or fitting, fitting), gpus


def _trials_on(node: Mapping[str, float], cpus: float, sharing: int) -> int:
    """How many trials fit on one node; a trial cannot span two."""
    by_cores = int(_parts(node.get("CPU", 0.0)) // _parts(cpus))
    return min(by_cores, int(node.get("GPU", 0.0)) * sharing) if sharing else by_cores


def _parts(resource: float) -> int:
    """An amount of a resource in Ray's integer units, so that 0.1 fits three times into 0.3."""
    return round(resource * RESOURCE_PARTS)


def _configure_process() -> None:
    ray_internals.set_environment()
    for name in ("ray.tune", "optuna"):  # errors of trials are recorded in the tables, not printed
        logging.getLogger(name).setLevel(logging.CRITICAL)


@contextmanager
def _local_ray(folder: Path) -> Iterator[None]:
    """Start a local Ray that ends with the context."""
    with socket_folder() as sockets:
        try:
            ray_internals.init_local(
                sockets=sockets,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                object_spilling_directory=str(folder),
                **_QUIET,
            )
            yield
        finally:
            ray.shutdown()


@contextmanager
def _remote_ray(address: str) -> Iterator[None]:
    """Connect to the Ray cluster at an address inside the context."""
    with _address_checked(address), _standard_error_muted():
        head = head_of(address)
    try:
        with _address_checked(address), _standard_error_muted():
            ray_internals.init_cluster(head, **_QUIET)
        yield
    finally:
        ray.shutdown()


@contextmanager
def _address_checked(address: str) -> Iterator[None]:
    """Raise errors inside the context as an InputError about the address."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, RayError) as error:
        raise InputError(
            f"--address must be `auto` or the HOST:PORT of a running Ray cluster, but got {address}: {_reason(error)}",
            code=SearchErrorCode.CLUSTER_UNREACHABLE,
        ) from error


def head_of(address: str) -> str:
    """The HOST:PORT of the Ray head that answers at an address.

    Raises:
        OSError, ValueError, RayError: none answers within seconds; Ray itself would keep retrying.
    """
    if "://" in address:
        raise ValueError(
            "a search runs on the cluster itself; give the HOST:PORT of the head, or use `ray job submit`"
        )
    head = ray_internals.resolve_address(address)
    if head is None:
        raise ValueError("RAY_ADDRESS is empty")
    host, _, port = head.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS) as connection:
        if os.environ.get("RAY_USE_TLS", "0").lower() not in ("1", "true"):
            connection.sendall(_HTTP2_GREETING)
            if connection.recv(_HTTP2_FRAME_BYTES)[3:4] != _HTTP2_SETTINGS:
                raise ValueError("the server at this address is not a Ray head")
    ray_internals.check_head(head)
    return head


def _reason(error: Exception) -> str:
    if isinstance(error, AuthenticationError):
        return "the cluster requires a token; set RAY_AUTH_MODE=token and the token, see cluster.yaml"
    if isinstance(error, RpcError):
        return f"the server at this address is not a Ray head ({error})"
    return textwrap.shorten(str(error), REASON_CHARACTERS, placeholder=" …")


@contextmanager
def _standard_error_muted() -> Iterator[None]:
    """Discard the standard error of native code inside the context."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
