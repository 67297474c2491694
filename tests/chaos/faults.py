"""What goes wrong in a search: workers or helpers die, nodes go. Each in a thread, at random moments of a seed."""

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
    """Something that went wrong."""

    kind: str
    at: float
    """Seconds since 1970."""


@dataclass(frozen=True, kw_only=True)
class Rhythm:
    """How often something goes wrong."""

    every: tuple[float, float]
    """Seconds between two times, from and to."""
    at_most: int = sys.maxsize
    """Times in all."""


class Plague(threading.Thread):
    """Lets something go wrong again and again until it is stopped, or has been enough."""

    def __init__(
        self,
        strike: Callable[[random.Random], bool],
        *,
        kind: str,
        rhythm: Rhythm,
        seed: int,
        ready: Callable[[], bool],
    ) -> None:
        """Prepare to strike.

        Args:
            strike: does it, and says whether it hit.
            kind: what that is called.
            rhythm: how often.
            seed: of the moments and of the victims.
            ready: whether there is anything to strike at yet.
        """
        super().__init__(daemon=True)
        self._strike, self._kind, self._rhythm, self._ready = strike, kind, rhythm, ready
        self._chance = random.Random(seed)
        self._enough = threading.Event()
        self._error: Exception | None = None
        self.faults: list[Fault] = []

    def run(self) -> None:
        """Strike until stopped."""
        try:
            while not self._ready() and not self._enough.wait(0.1):
                pass
            while len(self.faults) < self._rhythm.at_most and not self._enough.wait(self._pause()):
                at = time.time()
                if self._strike(self._chance):
                    self.faults.append(Fault(kind=self._kind, at=at))
        except Exception as error:  # noqa: BLE001  # whoever stops it is told
            self._error = error

    def stop(self) -> None:
        """Return when it has struck for the last time; raise what went wrong with it."""
        self._enough.set()
        self.join()
        if self._error:
            raise self._error

    def _pause(self) -> float:
        return self._chance.uniform(*self._rhythm.every)


def kill_one(processes: Iterator[psutil.Process], chance: random.Random) -> bool:
    """Kill one of these processes; whether there was one."""
    victims = sorted(processes, key=lambda found: found.pid)
    if not victims:
        return False
    try:
        chance.choice(victims).kill()
    except psutil.NoSuchProcess:
        return False
    return True


class CacheDisk:
    """A disk of its own under a node's cache: somebody else clears it and fills it, and later makes room again."""

    def __init__(self, place: Path) -> None:
        """Args: where it is mounted."""
        self._shared = place / "shared"
        self._ballast = place / "ballast"

    def fill_or_empty(self, _: random.Random) -> bool:
        """Fill the disk if it has room, else make room; whether it was filled."""
        if self._ballast.exists():
            self._ballast.unlink()
            return False
        for file in self._shared.glob("[!.]*"):
            file.unlink(missing_ok=True)
        fill(self._ballast)
        return True


class Machines:
    """A Ray cluster on this machine: a head without cores, and nodes that go and come."""

    def __init__(self) -> None:
        """Without any node yet."""
        from ray.cluster_utils import Cluster

        # Not at exit, for which Ray would take this process's signal handlers: `machines` ends it.
        self._cluster: Any = Cluster(shutdown_at_exit=False)
        self._nodes: list[Any] = []

    def start(self, nodes: int) -> None:
        """The head starts, and nodes of one core each join."""
        self._cluster.add_node(num_cpus=0, include_dashboard=False, object_store_memory=STORE_BYTES)
        for _ in range(nodes):
            self.add()

    @property
    def address(self) -> str:
        """HOST:PORT of the head."""
        return str(self._cluster.address)

    def add(self) -> None:
        """Another node joins."""
        self._nodes.append(self._cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES))

    def replace_one(self, chance: random.Random) -> bool:
        """A node is gone without a word, and another joins."""
        gone = self._nodes.pop(chance.randrange(len(self._nodes)))
        self._cluster.remove_node(gone, allow_graceful=False)
        self.add()
        return True

    def end(self) -> None:
        """All of it."""
        self._cluster.shutdown()


@contextmanager
def machines(nodes: int) -> Iterator[Machines]:
    """A cluster for as long as the context lasts, with Ray's files in a short path of its own."""
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
