"""Files shared by the workers of a node: written once, complete or absent, evicted in LRU order within a budget."""

# diskcache does not replace this: it evicts after a write, so that budget and disk can overflow, reserves no space for
# a file that is being written, and keeps the locks of dead processes.

import fcntl
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from genre_core.system.atomic import PARTIAL

RESERVATION = ".claim"
"""Suffix of a reservation: an empty file, locked by the process that writes the reserved bytes."""
STALE_SECONDS = 600.0
"""Age without a write after which a partial file without a reservation, of an earlier version, is deleted."""
IDLE_SECONDS = 600.0
"""Longest wait for a process that holds a file's lock but writes nothing: it may be suspended."""
LOCK_SECONDS = 60.0
"""Longest wait for a process that lists the folder."""

_RESERVATION_NAME = re.compile(rf"(?P<partial>\..+)\.(?P<size>\d+){re.escape(RESERVATION)}")


@dataclass(frozen=True, kw_only=True)
class _Reservation:
    """Space reserved by a running process."""

    partial: Path
    """The file that it writes."""
    size: int
    """Bytes."""

    @property
    def unwritten(self) -> int:
        """Bytes still to be written."""
        return max(0, self.size - _size(self.partial))


class NodeCache:
    """A folder of files that any number of processes share; each may die or be suspended at any time.

    A process that has mapped a file can use it even after its eviction.
    """

    def __init__(
        self,
        folder: Path,
        *,
        budget_bytes: int,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Set up.

        Args:
            folder: on a disk of this node.
            budget_bytes: maximum size of all its files together; 0 turns the cache off.
            waiting: a context that is entered while this process waits for another one to create a file.
        """
        self.folder = folder
        self.budget_bytes = budget_bytes
        self.waited_seconds = 0.0
        """How long this process has waited for files of other processes."""
        self._waiting = waiting
        self._error: str | None = None

    def find(self, name: str) -> Path | None:
        """Return the path of a file and mark it as used; None if it does not exist."""
        path = self.folder / name
        try:
            os.utime(path)
        except FileNotFoundError:
            return None
        except PermissionError:  # another user's file: its time of use cannot be updated
            return path
        return path

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the exclusive right to create files under a name; other processes wait and find them afterwards.

        Raises:
            OSError: the folder cannot be used, or the lock's holder has been idle for `IDLE_SECONDS`.
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
        """Reserve space and yield a path to write to; the file gets its name if the context exits without an error.

        Yields None if there is no space. Reserved space counts as used, for other processes too.

        Args:
            name: the file's.
            size: its bytes.
            evict: whether the least recently used files may be deleted to make space.

        Raises:
            OSError: the folder cannot be used, or the disk is full despite the reservation.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f".{name}.{os.getpid()}-{uuid.uuid4().hex[:8]}{PARTIAL}"
        reservation = partial.with_name(f"{partial.name}.{size}{RESERVATION}")
        descriptor = self._reserve(reservation, size, evict=evict)
        if descriptor is None:
            yield None
            return
        try:
            yield partial
            partial.replace(self.folder / name)
        finally:
            partial.unlink(missing_ok=True)
            reservation.unlink(missing_ok=True)
            os.close(descriptor)

    def record_error(self, error: Exception) -> None:
        """Remember an error of the folder for `pop_error`."""
        reason = getattr(error, "strerror", None) or str(error)
        self._error = f"{self.folder} cannot be used: {reason}"

    def pop_error(self) -> str | None:
        """Return the latest error since the last call, if any."""
        error, self._error = self._error, None
        return error

    def _reserve(self, path: Path, size: int, *, evict: bool) -> int | None:
        """Create and lock a reservation; return its open file descriptor, or None if there is no space."""
        with FileLock(self.folder / ".room.lock", timeout=LOCK_SECONDS):
            files, reservations = self._files(), self._reservations()
            used = sum(status.st_size for _, status in files) + sum(r.size for r in reservations)
            excess = used + size - self.budget_bytes
            evicted, freed = _oldest(files, excess) if evict else ([], 0)
            free = shutil.disk_usage(self.folder).free - sum(r.unwritten for r in reservations)
            if size > self.budget_bytes or excess > freed:
                return None
            if size > free + freed:
                self._error = f"no space left on the disk of {self.folder}"
                return None
            for file in evicted:
                file.unlink(missing_ok=True)
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            return descriptor

    def _reservations(self) -> list[_Reservation]:
        """List the reservations of running processes and delete those of dead ones; call it under the room lock."""
        found = []
        for path in self.folder.glob(f".*{RESERVATION}"):
            if not (name := _RESERVATION_NAME.fullmatch(path.name)):
                continue
            reservation = _Reservation(partial=path.with_name(name["partial"]), size=int(name["size"]))
            if _is_locked(path):
                found.append(reservation)
            else:
                reservation.partial.unlink(missing_ok=True)
                path.unlink(missing_ok=True)
        self._delete_stale({reservation.partial for reservation in found})
        return found

    def _delete_stale(self, reserved: set[Path]) -> None:
        """Delete old partial files without a reservation."""
        for partial in self.folder.glob(f".*{PARTIAL}"):
            if partial not in reserved and time.time() - _mtime(partial) > STALE_SECONDS:
                partial.unlink(missing_ok=True)

    def _files(self) -> list[tuple[Path, os.stat_result]]:
        """List the files with their status, the least recently used first."""
        found = []
        for path in self.folder.glob("[!.]*"):
            try:
                found.append((path, path.stat()))
            except FileNotFoundError:  # another process has just evicted it
                continue
        return sorted(found, key=lambda file: file[1].st_mtime)

    def _wait_for(self, lock: FileLock) -> None:
        """Acquire a lock; wait as long as its holder may still be working."""
        try:
            lock.acquire(timeout=0)
        except Timeout:
            began = time.monotonic()
            try:
                with self._waiting():
                    self._wait_long(lock)
            finally:
                self.waited_seconds += time.monotonic() - began

    def _wait_long(self, lock: FileLock) -> None:
        began = time.time()
        while True:
            try:
                lock.acquire(timeout=min(1.0, IDLE_SECONDS))
                return
            except Timeout:
                written = max(map(_mtime, self.folder.glob(f".*{PARTIAL}")), default=0.0)
                if time.time() - max(began, written) > IDLE_SECONDS:
                    raise


def _oldest(files: list[tuple[Path, os.stat_result]], size: int) -> tuple[list[Path], int]:
    """Return the first files that take at least `size` bytes together, and their bytes; all if they take less."""
    chosen, taken = [], 0
    for path, status in files:
        if taken >= size:
            break
        chosen.append(path)
        taken += status.st_size
    return chosen, taken


def _is_locked(path: Path) -> bool:
    """Whether a running process, which may be suspended or in another container, holds a file's lock."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    except PermissionError:  # another user's file
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
