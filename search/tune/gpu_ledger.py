"""A ledger of GPU memory, by which trials that share a GPU wait until the memory they need is free."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock

from genre_core.system.atomic import atomic_file


class GpuMemoryLedger:
    """One worker's view of the ledger of a GPU, a file shared by all workers on that GPU.

    A trial requests the peak memory measured for trials of its kind, or the whole GPU if none has been measured.
    Requests are granted in order, so that none starves. Requests of dead processes are dropped.
    """

    def __init__(self, ledger: Path, *, capacity: int, pid: int) -> None:
        """Args: the file on this node, the bytes that all trials may use together, the id of this process."""
        self._ledger = ledger
        self._capacity = capacity
        self._me = [pid, psutil.Process(pid).create_time()]

    def request(self, kind: str, *, alone: bool = False) -> bool:
        """Request memory for a trial of this kind, or the whole GPU; whether it was granted immediately."""
        with self._open() as book:
            size = self._capacity if alone else book["peaks"].get(kind, self._capacity)
            book["asked"] = [entry for entry in book["asked"] if entry["by"] != self._me]
            book["asked"].append({"by": self._me, "bytes": min(size, self._capacity)})
            return self._granted(book)

    def granted(self) -> bool:
        """Whether the request has been granted."""
        with self._open() as book:
            return self._granted(book)

    def measured(self, kind: str, peak: int) -> None:
        """Record the peak memory of a trial of this kind, in bytes, and reduce the request to it."""
        with self._open() as book:
            book["peaks"][kind] = max(peak, book["peaks"].get(kind, 0))
            for entry in book["asked"]:
                if entry["by"] == self._me:
                    entry["bytes"] = min(book["peaks"][kind], self._capacity)

    def release(self) -> None:
        """Drop the request: the trial has ended."""
        with self._open() as book:
            book["asked"] = [entry for entry in book["asked"] if entry["by"] != self._me]

    def _granted(self, book: dict[str, Any]) -> bool:
        """Whether this process's request fits in addition to all earlier ones."""
        before = 0
        for entry in book["asked"]:
            if entry["by"] == self._me:
                return before == 0 or before + int(entry["bytes"]) <= self._capacity
            before += entry["bytes"]
        raise AssertionError("no request was made")

    @contextmanager
    def _open(self) -> Iterator[dict[str, Any]]:
        """The ledger, locked for this process, without the requests of dead processes."""
        self._ledger.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self._ledger}.lock"):
            book = self._read()
            book["asked"] = [entry for entry in book["asked"] if _is_alive(*entry["by"])]
            yield book
            with atomic_file(self._ledger, durable=False) as partial:
                partial.write_text(json.dumps(book))

    def _read(self) -> dict[str, Any]:
        """The ledger's content; a new one if the file does not exist, or a power failure truncated it."""
        try:
            book: dict[str, Any] = json.loads(self._ledger.read_text())
        except (FileNotFoundError, ValueError):
            return {"peaks": {}, "asked": []}
        return book


def _is_alive(pid: int, created: float) -> bool:
    """Whether the process is running; another process that reuses its id was created at another time."""
    try:
        return abs(psutil.Process(pid).create_time() - created) < 1.0
    except psutil.NoSuchProcess:
        return False
