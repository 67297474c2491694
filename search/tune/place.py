"""Where the trials of a search run: a cluster with room for them, and the helper processes on the head."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.config.schema import SearchConfig
from search.tune import connect
from search.tune.scratch import scratch

HELPER_RETRIES = 10
"""How often a call is repeated whose helper process died before it or during it."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where trials run."""

    workers: int
    """Trials at a time."""
    gpus: float
    """For each."""
    scratch: Path
    """A folder for what is temporary."""
    _processes: list[ActorHandle[Any]] = field(default_factory=list, init=False)

    @property
    def device(self) -> str:
        """`cuda` or `cpu`."""
        return "cuda" if self.gpus else "cpu"

    def process(self, kind: type[Any], *arguments: Any) -> ActorHandle[Any]:
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


def require_room(config: SearchConfig) -> None:
    """Raise InputError, soon, where trials could not run as the settings ask."""
    connect.require_room(config.address, _needs(config))


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
