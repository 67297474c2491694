"""Faults of a search: workers or helpers die, nodes leave. Each is injected by a thread at seeded random times."""

import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
from small_disks import fill

STORE_BYTES = 256 * 1024**2
"""Ray's object store on each node."""
DRIVER, WORKER, HELPER, NODE = "driver killed", "worker killed", "helper killed", "node replaced"
DISK = "cache disk filled"
KINDS = DRIVER, WORKER, HELPER, NODE, DISK


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault that was injected."""

    kind: str
    at: float
    """Seconds since 1970."""


@dataclass(frozen=True, kw_only=True)
class Rhythm:
    """How often a fault is injected."""

    every: tuple[float, float]
    """Shortest and longest interval in seconds."""
    at_most: int = sys.maxsize
    """Total number of faults."""


class Plague(threading.Thread):
    """Injects faults of one kind until it is stopped or has reached its limit."""

    def __init__(
        self,
        strike: Callable[[random.Random], bool],
        *,
        kind: str,
        rhythm: Rhythm,
        seed: int,
        ready: Callable[[], bool],
    ) -> None:
        """Set up without starting.

        Args:
            strike: injects a fault and returns whether there was a target.
            kind: name of the fault.
            rhythm: how often.
            seed: of the times and targets.
            ready: whether there can be a target yet.
        """
        super().__init__(daemon=True)
        self._strike, self._kind, self._rhythm, self._ready = strike, kind, rhythm, ready
        self._chance = random.Random(seed)
        self._enough = threading.Event()
        self._error: Exception | None = None
        self.faults: list[Fault] = []

    def run(self) -> None:
        """Inject faults until stopped."""
        try:
            while not self._ready() and not self._enough.wait(0.1):
                pass
            while len(self.faults) < self._rhythm.at_most and not self._enough.wait(self._pause()):
                at = time.time()
                if self._strike(self._chance):
                    self.faults.append(Fault(kind=self._kind, at=at))
        except Exception as error:  # noqa: BLE001  # raised by stop
            self._error = error

    def stop(self) -> None:
        """Stop after the current fault; raise an error of the thread."""
        self._enough.set()
        self.join()
        if self._error:
            raise self._error

    def _pause(self) -> float:
        return self._chance.uniform(*self._rhythm.every)


def kill_one(processes: Iterator[psutil.Process], chance: random.Random) -> bool:
    """Kill one of these processes; return whether there was one."""
    victims = sorted(processes, key=lambda found: found.pid)
    if not victims:
        return False
    try:
        chance.choice(victims).kill()
    except psutil.NoSuchProcess:
        return False
    return True


class CacheDisk:
    """A separate disk under a node's cache, which is cleared and filled, and later freed again."""

    def __init__(self, place: Path) -> None:
        """Args: the mount point."""
        self._shared = place / "shared"
        self._ballast = place / "ballast"

    def fill_or_empty(self, _: random.Random) -> bool:
        """Fill the disk if it has space, otherwise free it; return whether it was filled."""
        if self._ballast.exists():
            self._ballast.unlink()
            return False
        for file in self._shared.glob("[!.]*"):
            file.unlink(missing_ok=True)
        fill(self._ballast)
        return True


class Machines:
    """A Ray cluster on this machine: a head without cores, and nodes that join and leave."""

    def __init__(self) -> None:
        """Set up without any node."""
        from ray.cluster_utils import Cluster

        # Not at exit, because Ray would replace this process's signal handlers: `machines` shuts it down.
        self._cluster: Any = Cluster(shutdown_at_exit=False)
        self._nodes: list[Any] = []

    def start(self, nodes: int) -> None:
        """Start the head and nodes of one core each."""
        self._cluster.add_node(num_cpus=0, include_dashboard=False, object_store_memory=STORE_BYTES)
        for _ in range(nodes):
            self.add()

    @property
    def address(self) -> str:
        """HOST:PORT of the head."""
        return str(self._cluster.address)

    def add(self) -> None:
        """Add a node."""
        self._nodes.append(self._cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES))

    def replace_one(self, chance: random.Random) -> bool:
        """Remove a node without notice and add another."""
        gone = self._nodes.pop(chance.randrange(len(self._nodes)))
        self._cluster.remove_node(gone, allow_graceful=False)
        self.add()
        return True

    def end(self) -> None:
        """Shut the cluster down."""
        self._cluster.shutdown()


@contextmanager
def machines(nodes: int) -> Iterator[Machines]:
    """A cluster while the context lasts, with Ray's files under a short path of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="gsm", dir="/tmp", ignore_cleanup_errors=True) as temp,
        patch.dict(os.environ, RAY_TMPDIR=temp),
    ):
        cluster = Machines()
        try:
            cluster.start(nodes)
            yield cluster
        finally:
            cluster.end()
