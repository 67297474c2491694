"""The driver's lock: at most one process at a time changes a run's folder."""

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

LOCK, _HOLDER = ".driver", ".driver.json"
"""The lock, which stays in the folder for good, and who holds it, which is written after it was taken."""
_CLOCK_STEP_SECONDS = 1.0
"""psutil derives a process's start from the clock, which may be adjusted meanwhile."""


@dataclass(frozen=True, kw_only=True)
class _Holder:
    """A process that drives a run."""

    pid: int
    started: float
    """Seconds since 1970, as psutil has it: tells the process from a later one of the same number."""
    host: str
    lock: int
    """Inode of the lock file: a copy of the folder has another."""

    @property
    def lives(self) -> bool:
        """Whether it still runs; of another host's processes nothing is known, so they are taken to."""
        if self.host != os.uname().nodename:
            return True
        try:
            return abs(psutil.Process(self.pid).create_time() - self.started) < _CLOCK_STEP_SECONDS
        except psutil.NoSuchProcess:
            return False


@contextmanager
def driving(run: Path) -> Iterator[None]:
    """Be the run's only driver for as long as the context lasts; however the process ends, the lock ends with it.

    Raises:
        InputError: another process drives it.
    """
    lock = FileLock(run / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        holder = _holder(run)
        who = f"process {holder.pid} on {holder.host}" if holder else "another process"
        raise InputError(
            f"RUN must have one driver, but {who} drives {run}; wait for it to finish, or stop it"
        ) from error
    try:
        with atomic_file(run / _HOLDER) as partial:
            partial.write_text(json.dumps(asdict(_ourselves(run))), encoding="utf-8")
        yield
    finally:
        (run / _HOLDER).unlink(missing_ok=True)
        lock.release()


def is_driven(run: Path) -> bool:
    """Whether a process drives this run now: looks, and never takes the lock."""
    holder = _holder(run)
    return holder is not None and holder.lives


def _ourselves(run: Path) -> _Holder:
    pid = os.getpid()
    return _Holder(
        pid=pid,
        started=psutil.Process(pid).create_time(),
        host=os.uname().nodename,
        lock=(run / LOCK).stat().st_ino,
    )


def _holder(run: Path) -> _Holder | None:
    """Who took this folder's lock last and has not given it back."""
    try:
        holder = _Holder(**json.loads((run / _HOLDER).read_text(encoding="utf-8")))
        return holder if holder.lock == (run / LOCK).stat().st_ino else None
    except (FileNotFoundError, ValueError, TypeError):  # never driven, or copied by halves
        return None
