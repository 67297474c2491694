"""Files that the workers of a node make once and share: whole or absent, within a budget, the least used gone first."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from genre_core.whole_file import PARTIAL, whole_file

STALE_SECONDS = 600.0
"""A partial file that nobody has written to for so long was left by a process that died."""


class NodeCache:
    """A folder of files found by name. Any number of processes may use it at once, and any may die.

    Deleting a file leaves it to those who have it mapped already.
    """

    def __init__(self, folder: Path, *, budget_bytes: int) -> None:
        """Args: a folder on a disk of this node, and the bytes that its files may take; 0 keeps nothing."""
        self._folder = folder
        self.budget_bytes = budget_bytes

    def find(self, name: str) -> Path | None:
        """The file of this name, now the last one to be dropped; None where there is none."""
        path = self._folder / name
        try:
            os.utime(path)
        except FileNotFoundError:
            return None
        return path

    @contextmanager
    def making(self, name: str) -> Iterator[None]:
        """One process at a time makes files under this name: the others wait, and then find them."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self._folder / f".{name}.lock"):
            yield

    def has_room(self, size: int) -> bool:
        """Whether so many bytes would fit as things are, with nothing dropped."""
        used = sum(status.st_size for _, status in self._files())
        return used + size <= self.budget_bytes and size <= self._free()

    def make_room(self, size: int) -> bool:
        """Drop the least recently used files until so many bytes fit; whether they do now."""
        if size > self.budget_bytes:
            return False
        files = sorted(self._files(), key=lambda file: file[1].st_mtime)
        used = sum(status.st_size for _, status in files)
        for path, status in files:
            if used + size <= self.budget_bytes:
                break
            path.unlink(missing_ok=True)
            used -= status.st_size
        return size <= self._free()

    @contextmanager
    def new(self, name: str) -> Iterator[Path]:
        """Yield a path to write to; on leaving without an error the file stands under its name."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with whole_file(self._folder / name, durable=False) as partial:
            yield partial

    def _free(self) -> int:
        """Bytes free on the disk."""
        return shutil.disk_usage(self._folder).free if self._folder.exists() else 0

    def _files(self) -> list[tuple[Path, os.stat_result]]:
        """The files and their status; what dead processes left half-written is removed on the way."""
        found = []
        for path in self._folder.glob("*"):
            try:
                status = path.stat()
            except FileNotFoundError:  # another process has just dropped it
                continue
            if path.suffix == PARTIAL and time.time() - status.st_mtime > STALE_SECONDS:
                path.unlink(missing_ok=True)
            elif path.suffix != ".lock":
                found.append((path, status))
        return found
