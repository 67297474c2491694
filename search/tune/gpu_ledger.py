"""A ledger of GPU memory: trials that share a GPU wait in it until the memory that they need is free."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from filelock import FileLock

from genre_core.system.atomic import atomic_file
from search.engine.gpu_demand import CONTEXT_BYTES, Demand
from search.engine.gpu_queue import GpuQueue, Worker

LOOK_SECONDS = 0.02
"""Interval at which a waiting worker checks whether the file has changed."""
CHECK_SECONDS = 1.0
"""Interval at which it also checks for dead processes, which do not change the file."""


class GpuMemoryLedger:
    """One worker's view of the ledger of a GPU, a file shared by all workers on that GPU; see `GpuQueue`.

    A damaged file is replaced by an empty one: peaks are measured again, and each worker adds its own request again.
    """

    def __init__(
        self,
        ledger: Path,
        *,
        capacity: int,
        pid: int,
        context: int = CONTEXT_BYTES,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Set up.

        Args:
            ledger: the file on this node.
            capacity: bytes that all trials together may use.
            pid: the id of this process.
            context: bytes of the GPU that a process uses without a trial.
            clock: returns seconds.
            sleep: waits for a number of seconds.
        """
        self._ledger = ledger
        self._capacity, self._context = capacity, context
        self._me = Worker(pid, psutil.Process(pid).create_time())
        self._clock, self._sleep = clock, sleep
        self._asked: tuple[Demand, bool] | None = None
        """The current request, and whether it is for the whole GPU."""
        self._has_memory = False

    def request(self, demand: Demand, *, alone: bool = False) -> bool:
        """Request memory for a trial, or the whole GPU; whether it was granted immediately."""
        self._asked = None
        with self._open() as queue:
            self._has_memory = queue.request(self._me, demand, alone=alone)
        self._asked = demand, alone
        return self._has_memory

    def granted(self, *, within: float = 0.0) -> bool:
        """Whether the request is granted within a number of seconds."""
        end, seen, checked = self._clock() + within, None, -CHECK_SECONDS
        while True:
            signature, now = self._signature(), self._clock()
            if signature != seen or now - checked >= CHECK_SECONDS:
                with self._open() as queue:
                    self._has_memory = queue.is_granted(self._me)
                seen, checked = self._signature(), now
            if self._has_memory or now >= end:
                return self._has_memory
            self._sleep(min(LOOK_SECONDS, end - now))

    def measured(self, peak: int) -> None:
        """Record the peak memory of the trial, in bytes, which replaces the size of its request."""
        with self._open() as queue:
            queue.measured(self._me, peak)

    def whole_is_wanted(self) -> bool:
        """Whether another worker waits for the whole GPU."""
        with self._open() as queue:
            return queue.whole_is_wanted

    def release(self, *, holds: int = 0) -> None:
        """Drop the request of a trial that has ended; `holds` bytes of data stay on the GPU for the next one."""
        self._asked = None
        with self._open() as queue:
            queue.release(self._me, holds=holds)

    @contextmanager
    def _open(self) -> Iterator[GpuQueue]:
        """The queue, locked for this process, without dead processes; written back if it has changed."""
        self._ledger.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self._ledger}.lock"):
            text = self._read()
            queue = GpuQueue.of_json(text, capacity=self._capacity, context=self._context)
            queue.keep_alive(_is_alive)
            if self._asked:  # if the file was damaged
                demand, alone = self._asked
                queue.restore(self._me, demand, alone=alone, granted=self._has_memory)
            yield queue
            if (changed := queue.to_json()) != text:
                with atomic_file(self._ledger, durable=False) as partial:
                    partial.write_text(changed)

    def _read(self) -> str:
        """The file's content; empty if it does not exist or is not text."""
        try:
            return self._ledger.read_text()
        except (FileNotFoundError, ValueError):
            return ""

    def _signature(self) -> tuple[int, int] | None:
        """A value that changes when a process replaces the file."""
        try:
            found = self._ledger.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns


def _is_alive(worker: Worker) -> bool:
    """Whether the process is running; another process that reuses its id was created at another time."""
    try:
        return abs(psutil.Process(worker.pid).create_time() - worker.created) < 1.0
    except psutil.NoSuchProcess:
        return False
