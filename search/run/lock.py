"""The driver's lock: only one process at a time may change a run's folder."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from genre_core.errors import InputError
from genre_core.system.atomic import atomic_file
from search.errors import SearchErrorCode
from search.run.folder import RunFolder

_CLOCK_STEP_SECONDS = 1.0
"""Tolerance for start times: psutil derives them from the system clock, which may be adjusted."""


@dataclass(frozen=True, kw_only=True)
class _Holder:
    """The process that drives a run."""

    pid: int
    started: float
    """Start of the process in seconds since 1970, which distinguishes it from a later one with the same PID."""
    host: str
    lock: int
    """Inode of the lock file, which differs in a copy of the folder."""

    @property
    def is_alive(self) -> bool:
        """Whether the process still runs; assumed for a process of another host."""
        if self.host != os.uname().nodename:
            return True
        try:
            return abs(psutil.Process(self.pid).create_time() - self.started) < _CLOCK_STEP_SECONDS
        except psutil.NoSuchProcess:
            return False


@contextmanager
def driving(run: Path) -> Iterator[None]:
    """Hold the driver's lock while the context lasts; the lock is released however the process ends.

    Raises:
        InputError: another process holds it.
    """
    lock = FileLock(RunFolder(run).lock, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        holder = _holder(run)
        who = f"process {holder.pid} on {holder.host}" if holder else "another process"
        raise InputError(
            f"RUN must have one driver, but {who} already drives {run}; wait for it to finish, or stop it",
            code=SearchErrorCode.RUN_IS_DRIVEN,
        ) from error
    try:
        with atomic_file(RunFolder(run).lock_holder) as partial:
            partial.write_text(json.dumps(asdict(_this_process(run))), encoding="utf-8")
        yield
    finally:
        RunFolder(run).lock_holder.unlink(missing_ok=True)
        lock.release()


def is_driven(run: Path) -> bool:
    """Whether a process drives this run now; does not take the lock."""
    holder = _holder(run)
    return holder is not None and holder.is_alive


def _this_process(run: Path) -> _Holder:
    pid = os.getpid()
    return _Holder(
        pid=pid,
        started=psutil.Process(pid).create_time(),
        host=os.uname().nodename,
        lock=RunFolder(run).lock.stat().st_ino,
    )


def _holder(run: Path) -> _Holder | None:
    """The process that took the folder's lock and has not released it."""
    try:
        holder = _Holder(**json.loads(RunFolder(run).lock_holder.read_text(encoding="utf-8")))
        return holder if holder.lock == RunFolder(run).lock.stat().st_ino else None
    except (FileNotFoundError, ValueError, TypeError):  # never driven, or an incomplete copy
        return None
