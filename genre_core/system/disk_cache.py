"""Files that the workers of a node make once and share: whole or absent, within a budget, the least used gone first."""

import fcntl
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from genre_core.system.atomic import PARTIAL

CLAIM = ".claim"
"""How the name of a claim ends: an empty file, locked by the process that writes the claimed bytes."""
STALE_SECONDS = 600.0
"""A partial file that no claim explains, of an earlier version, is deleted when nobody wrote to it for so long."""
PATIENCE_SECONDS = 600.0
"""Longest wait for a process that makes a file while nothing is written in the folder: it may be suspended."""
LOCK_SECONDS = 60.0
"""Longest wait for a process that only looks what the folder holds."""

_CLAIM_NAME = re.compile(rf"(?P<partial>\..+)\.(?P<size>\d+){re.escape(CLAIM)}")


@dataclass(frozen=True, kw_only=True)
class _Claim:
    """Bytes that a living process has been promised."""

    partial: Path
    """Where it writes them."""
    size: int

    @property
    def unwritten(self) -> int:
        """Bytes still to be written."""
        return max(0, self.size - _size(self.partial))


class NodeCache:
    """A folder of files found by name. Any number of processes may use it at once, and any may die or sleep.

    Deleting a file leaves it to those who have it mapped already.
    """

    def __init__(self, folder: Path, *, budget_bytes: int) -> None:
        """Args: a folder on a disk of this node, and the bytes that its files may take; 0 keeps nothing."""
        self.folder = folder
        self.budget_bytes = budget_bytes
        self._error: str | None = None

    def find(self, name: str) -> Path | None:
        """The file of this name, now the last one to be dropped; None where there is none."""
        path = self.folder / name
        try:
            os.utime(path)
        except FileNotFoundError:
            return None
        except PermissionError:  # another user's: it is found, but stays where it is in the order of dropping
            return path
        return path

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """One process at a time makes files under this name: the others wait, and then find them.

        Raises:
            OSError: the folder cannot be used, or the process that makes them has been idle for `PATIENCE_SECONDS`.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / f".{name}.lock")
        self._wait_for(lock)
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def reserve(self, name: str, size: int, *, evict: bool = True) -> Iterator[Path | None]:
        """Yield a path to write so many bytes to; on leaving without an error the file stands under its name.

        Yields None where there is no room. Room that was given counts as used, so that it is given only once.

        Args:
            name: of the file.
            size: bytes that it will take.
            evict: whether the least recently used files may go for it.

        Raises:
            OSError: the folder cannot be used, or its disk is full after all.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f".{name}.{os.getpid()}-{uuid.uuid4().hex[:8]}{PARTIAL}"
        claim = partial.with_name(f"{partial.name}.{size}{CLAIM}")
        descriptor = self._claim(claim, size, evict=evict)
        if descriptor is None:
            yield None
            return
        try:
            yield partial
            partial.replace(self.folder / name)
        finally:
            partial.unlink(missing_ok=True)
            claim.unlink(missing_ok=True)
            os.close(descriptor)

    def record_error(self, error: Exception) -> None:
        """Note that the folder could not be used, for whoever asks `pop_error`."""
        reason = getattr(error, "strerror", None) or str(error)
        self._error = f"{self.folder} cannot be used: {reason}"

    def pop_error(self) -> str | None:
        """Why the folder could not be used since this was asked for the last time; None where it could."""
        trouble, self._error = self._error, None
        return trouble

    def _claim(self, claim: Path, size: int, *, evict: bool) -> int | None:
        """The descriptor of a claim to so many bytes, open and locked; None where there is no room."""
        with FileLock(self.folder / ".room.lock", timeout=LOCK_SECONDS):
            files, claims = self._files(), self._claims()
            over = sum(s.st_size for _, s in files) + sum(c.size for c in claims) + size - self.budget_bytes
            dropped, freed = _oldest(files, over) if evict else ([], 0)
            free = shutil.disk_usage(self.folder).free - sum(c.unwritten for c in claims)
            if size > self.budget_bytes or over > freed:
                return None
            if size > free + freed:
                self._error = f"the disk of {self.folder} is full"
                return None
            for path in dropped:
                path.unlink(missing_ok=True)
            descriptor = os.open(claim, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            return descriptor

    def _claims(self) -> list[_Claim]:
        """The claims of living processes; what dead ones left is deleted. Only for who has the room's lock."""
        found = []
        for path in self.folder.glob(f".*{CLAIM}"):
            if not (name := _CLAIM_NAME.fullmatch(path.name)):
                continue
            claim = _Claim(partial=path.with_name(name["partial"]), size=int(name["size"]))
            if _is_locked(path):
                found.append(claim)
            else:
                claim.partial.unlink(missing_ok=True)
                path.unlink(missing_ok=True)
        self._drop_unexplained({claim.partial for claim in found})
        return found

    def _drop_unexplained(self, explained: set[Path]) -> None:
        """Delete partial files that belong to no claim and that nobody writes to."""
        for partial in self.folder.glob(f".*{PARTIAL}"):
            if partial not in explained and time.time() - _mtime(partial) > STALE_SECONDS:
                partial.unlink(missing_ok=True)

    def _files(self) -> list[tuple[Path, os.stat_result]]:
        """The files and their status, the least recently used first."""
        found = []
        for path in self.folder.glob("[!.]*"):
            try:
                found.append((path, path.stat()))
            except FileNotFoundError:  # another process has just dropped it
                continue
        return sorted(found, key=lambda file: file[1].st_mtime)

    def _wait_for(self, lock: FileLock) -> None:
        """Acquire a lock, for as long as who holds it may be at work."""
        began = time.time()
        while True:
            try:
                lock.acquire(timeout=min(1.0, PATIENCE_SECONDS))
                return
            except Timeout:
                written = max(map(_mtime, self.folder.glob(f".*{PARTIAL}")), default=0.0)
                if time.time() - max(began, written) > PATIENCE_SECONDS:
                    raise


def _oldest(files: list[tuple[Path, os.stat_result]], size: int) -> tuple[list[Path], int]:
    """The first files that together take so many bytes, or all, and what they take."""
    chosen, taken = [], 0
    for path, status in files:
        if taken >= size:
            break
        chosen.append(path)
        taken += status.st_size
    return chosen, taken


def _is_locked(path: Path) -> bool:
    """Whether a living process, suspended or in another container or not, holds this file's lock."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    except PermissionError:  # another user's
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
