"""Trials that share a GPU take turns for its memory: each waits until what it is known to need is free."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock

from genre_core.system.atomic import atomic_file


class GpuMemoryLedger:
    """One worker's share of one GPU's memory, in a ledger that all workers on it keep in a file.

    A kind of trial that was measured before asks for what it took then, another for the whole GPU until it
    has been measured. Requests are granted in their order, so that none waits for ever. What a dead process
    held is free.
    """

    def __init__(self, ledger: Path, *, capacity: int, pid: int) -> None:
        """Args: the ledger's file on this node, the bytes that trials may take together, this process."""
        self._ledger = ledger
        self._capacity = capacity
        self._me = [pid, psutil.Process(pid).create_time()]

    def request(self, kind: str, *, alone: bool = False) -> bool:
        """Ask for room for a trial of this kind, or for the whole GPU; whether it is granted at once."""
        with self._open() as book:
            size = self._capacity if alone else book["peaks"].get(kind, self._capacity)
            book["asked"] = [entry for entry in book["asked"] if entry["by"] != self._me]
            book["asked"].append({"by": self._me, "bytes": min(size, self._capacity)})
            return self._granted(book)

    def granted(self) -> bool:
        """Whether the request has been granted by now."""
        with self._open() as book:
            return self._granted(book)

    def measured(self, kind: str, peak: int) -> None:
        """A trial of this kind took so many bytes: hold no more than that from now on, and remember it."""
        with self._open() as book:
            book["peaks"][kind] = max(peak, book["peaks"].get(kind, 0))
            for entry in book["asked"]:
                if entry["by"] == self._me:
                    entry["bytes"] = min(book["peaks"][kind], self._capacity)

    def release(self) -> None:
        """The trial is over."""
        with self._open() as book:
            book["asked"] = [entry for entry in book["asked"] if entry["by"] != self._me]

    def _granted(self, book: dict[str, Any]) -> bool:
        """Whether this process's request fits beside all that were made before it."""
        before = 0
        for entry in book["asked"]:
            if entry["by"] == self._me:
                return before == 0 or before + int(entry["bytes"]) <= self._capacity
            before += entry["bytes"]
        raise AssertionError("nothing was asked for")

    @contextmanager
    def _open(self) -> Iterator[dict[str, Any]]:
        """The ledger, for this process alone, without the requests of the dead."""
        self._ledger.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self._ledger}.lock"):
            text = self._ledger.read_text() if self._ledger.exists() else '{"peaks": {}, "asked": []}'
            book = json.loads(text)
            book["asked"] = [entry for entry in book["asked"] if _lives(*entry["by"])]
            yield book
            with atomic_file(self._ledger, durable=False) as partial:
                partial.write_text(json.dumps(book))


def _lives(pid: int, created: float) -> bool:
    """Whether this very process runs, and not another that was given its number."""
    try:
        return abs(psutil.Process(pid).create_time() - created) < 1.0
    except psutil.NoSuchProcess:
        return False
