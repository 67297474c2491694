"""Ray Tune's trainable: a worker process with a session of the engine, which does an epoch per step."""

import gc
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune
from ray.actor import ActorHandle

from genre_core.system.disk_cache import NodeCache
from genre_core.system.watchdog import Watchdog
from search.engine.worker import WorkerSession
from search.tune.actors import RemoteCheckpoints, RemoteModels, RemoteWeights
from search.tune.barrier import wait_for_all
from search.tune.gpu_ledger import GpuMemoryLedger
from search.tune.node_folder import node_folder
from search.tune.torch_trainer import TorchTrainer, WorkingSet
from search.tune.wire import assignment_of, result_of

GPU_MEMORY_SHARE = 0.9
"""Of a GPU's memory, the share that trials on it may take together."""


@dataclass(frozen=True, kw_only=True)
class Actors:
    """The processes on the head that serve workers; None for those that the search does without."""

    weights: ActorHandle[Any] | None = None
    models: ActorHandle[Any] | None = None
    checkpoints: ActorHandle[Any] | None = None
    barrier: ActorHandle[Any] | None = None


class GenreTrial(tune.Trainable):
    """A worker of a search. The process and its data stay for the next trial."""

    def setup(  # type: ignore[override]  # Ray passes the rest: tune.with_parameters
        self, config: dict[str, Any], working_set: WorkingSet, actors: Actors
    ) -> None:
        """Start the session with its first assignment."""
        import torchvision  # noqa: F401  # takes seconds, which belong to no trial

        gc.freeze()  # what was imported stays: a collection need not look at it
        self._barrier = actors.barrier
        if self._barrier:
            ray.get(self._barrier.arrive.remote(ray.get_runtime_context().get_worker_id()))
        self._session = session(working_set, actors)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next assignment in the same process."""
        self._session.begin(assignment_of(new_config))
        return True

    def step(self) -> dict[str, Any]:
        """The session's next report."""
        if self._barrier:
            wait_for_all(self._barrier)
            self._barrier = None
        report = self._session.step()
        return result_of(report, self._session.notices())

    def cleanup(self) -> None:
        """Release the network when the process ends."""
        self._session.release()


def session(working_set: WorkingSet, actors: Actors) -> WorkerSession:
    """A session in this process, on the node's folder and the GPU that Ray gave it."""
    watchdog = Watchdog(working_set.epoch_limit)
    folder = node_folder(working_set.cache)
    trainer = TorchTrainer(
        working_set,
        node_cache=NodeCache(
            folder.path / "shared", budget_bytes=working_set.cache_bytes, waiting=watchdog.waiting
        ),
        weights=RemoteWeights(actors.weights, waiting=watchdog.waiting) if actors.weights else None,
        note=folder.note,
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


def gpu_ledger(ledgers: Path) -> GpuMemoryLedger:
    """The ledger of the GPU that Ray gave this process."""
    properties = torch.cuda.get_device_properties(0)
    return GpuMemoryLedger(
        ledgers / f"{properties.uuid}.json",
        capacity=int(GPU_MEMORY_SHARE * properties.total_memory),
        pid=os.getpid(),
    )
