"""Workers of a search: the Tune trainable, which trains an epoch per step, and the data and actors given to it."""

import gc
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune
from ray.actor import ActorHandle

from genre_core.models.pretrained import weights_path
from genre_core.system.disk_cache import NodeCache
from genre_core.system.memory import GIB
from genre_core.system.node_folder import node_folder
from genre_core.system.watchdog import Watchdog
from genre_core.training.frames import FrameFiles
from genre_core.training.segments import SegmentArrays
from search.config.schema import SearchConfig
from search.engine.ports import FrameSource
from search.engine.worker import WorkerSession
from search.tune.actors import RemoteCheckpoints, RemoteFrames, RemoteModels, RemoteWeights, wait_for_all
from search.tune.cluster import Resources
from search.tune.frame_shipping import StoreShards, on_this_node
from search.tune.gpu_ledger import GpuMemoryLedger
from search.tune.precision import emulation
from search.tune.stored_frames import ShardUploads, StoredFrames
from search.tune.torch_trainer import TorchTrainer, WorkingSet
from search.tune.weight_shipping import WeightsFiles
from search.tune.wire_format import assignment_of, result_of

GPU_MEMORY_SHARE = 0.9
"""The share of a GPU's memory that all trials on it may use together."""


@dataclass(frozen=True, kw_only=True)
class Actors:
    """The actors on the head that serve workers; None for those that are not needed."""

    weights: ActorHandle[Any] | None = None
    frames: ActorHandle[Any] | None = None
    storage: str | None = None
    """Address of the storage from which nodes fetch spectrograms; None to fetch them through `frames`."""
    models: ActorHandle[Any] | None = None
    checkpoints: ActorHandle[Any] | None = None
    barrier: ActorHandle[Any] | None = None


class GenreTrial(tune.Trainable):
    """A worker of a search. Its process and data are reused by the next trial."""

    def setup(  # type: ignore[override]  # tune.with_parameters passes the rest
        self, config: dict[str, Any], working_set: WorkingSet, actors: Actors
    ) -> None:
        """Start the session with its first assignment."""
        import torchvision  # noqa: F401  # takes seconds, which must not count as training time

        gc.freeze()  # garbage collection need not look at imported modules
        self._barrier = actors.barrier
        if self._barrier:
            ray.get(self._barrier.arrive.remote(ray.get_runtime_context().get_worker_id()))
        self._session = session(working_set, actors)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin the next assignment in the same process."""
        self._session.begin(assignment_of(new_config))
        return True

    def step(self) -> dict[str, Any]:
        """Train an epoch or wait; returns the report as a Tune result."""
        if self._barrier:
            wait_for_all(self._barrier)
            self._barrier = None
        report = self._session.step()
        return result_of(report, self._session.notices())

    def cleanup(self) -> None:
        """Release the network when the process ends."""
        self._session.release()


def session(working_set: WorkingSet, actors: Actors) -> WorkerSession:
    """Create a session in this process that uses the node's folder and the GPU assigned by Ray."""
    watchdog = Watchdog(working_set.epoch_limit)
    folder = node_folder(working_set.cache)
    trainer = TorchTrainer(
        working_set,
        node_cache=NodeCache(
            folder.path / "shared", budget_bytes=working_set.cache_bytes, waiting=watchdog.waiting
        ),
        weights=RemoteWeights(actors.weights, waiting=watchdog.waiting) if actors.weights else None,
        locate=data_locator(
            folder.path, actors, budget_bytes=working_set.data_cache_bytes, waiting=watchdog.waiting
        ),
        note="; ".join(
            note for note in (folder.note, emulation(working_set.precision, working_set.device)) if note
        )
        or None,
    )
    return WorkerSession(
        trainer,
        node=platform.node(),
        pid=os.getpid(),
        watchdog=watchdog,
        models=RemoteModels(actors.models) if actors.models else None,
        checkpoints=RemoteCheckpoints(actors.checkpoints, sends=working_set.checkpoints)
        if actors.checkpoints
        else None,
        ledger=gpu_ledger(folder.path / "gpus") if working_set.gpu_shared else None,
    )


def data_locator(
    folder: Path,
    actors: Actors,
    *,
    budget_bytes: int,
    waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Callable[[SegmentArrays], SegmentArrays]:
    """A function that finds segments in files of this node, and fetches those files once per node.

    Args:
        folder: of the node.
        actors: of the search.
        budget_bytes: for the files.
        waiting: a context to enter while waiting for the files.
    """
    source: FrameSource | None = None
    if actors.frames:
        if actors.storage is None:
            source = RemoteFrames(actors.frames, waiting=waiting)
        else:
            source = StoredFrames(RemoteFrames(actors.frames), actors.storage, waiting=waiting)
    return partial(
        on_this_node,
        source=source,
        cache=NodeCache(folder / "data", budget_bytes=budget_bytes, waiting=waiting),
    )


def store_shards(parts: SegmentArrays, config: SearchConfig, resources: Resources) -> ActorHandle[Any] | None:
    """Start an actor that reads spectrograms for nodes without the store; None if there is no other node."""
    frames = parts.mels.frames
    needed = config.address is not None or resources.has_other_nodes
    return resources.actor(StoreShards, frames) if needed and isinstance(frames, FrameFiles) else None


@contextmanager
def uploads(parts: SegmentArrays, actors: Actors, say: Callable[[str], None]) -> Iterator[None]:
    """Upload spectrograms for other nodes to the storage, if there is one, and say at the end how many were sent."""
    frames = parts.mels.frames
    if not actors.frames or not isinstance(frames, FrameFiles):
        yield
        return
    head = RemoteFrames(actors.frames)
    with ShardUploads(head, frames, actors.storage, say=say) if actors.storage is not None else nullcontext():
        yield
    sent, fetched = head.traffic()
    if sent or fetched:
        through = f", {fetched / GIB:.3g} GiB of them through the storage" if fetched else ""
        say(f"Spectrograms sent to other nodes: {(sent + fetched) / GIB:.3g} GiB{through}")


def gpu_ledger(ledgers: Path) -> GpuMemoryLedger:
    """The memory ledger of the GPU that Ray assigned to this process."""
    properties = torch.cuda.get_device_properties(0)
    return GpuMemoryLedger(
        ledgers / f"{properties.uuid}.json",
        capacity=int(GPU_MEMORY_SHARE * properties.total_memory),
        pid=os.getpid(),
    )


def weights_files(config: SearchConfig, resources: Resources) -> ActorHandle[Any] | None:
    """Start an actor that reads weights files for nodes without them; None if all weights are random."""
    paths = {backbone: weights_path(backbone, config.weights_of(backbone)) for backbone in config.backbones}
    files = {backbone: path for backbone, path in paths.items() if path}
    return resources.actor(WeightsFiles, files) if files else None
