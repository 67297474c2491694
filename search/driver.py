"""One driver a run: who holds the lock in its folder may change it; the lock goes with its process, however it ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from genre_core.errors import InputError

_LOCK = ".driver"


@contextmanager
def driving(run: Path) -> Iterator[None]:
    """Be the run's only driver for as long as the context lasts.

    Raises:
        InputError: another process drives it.
    """
    lock = run / _LOCK
    with lock.open("a+") as file:
        if not _locked(file.fileno()):
            file.seek(0)
            raise InputError(
                f"RUN must have one driver, but {file.read() or 'another process'} drives {run}; "
                "wait for its end, or end it"
            )
        file.truncate(0)
        file.write(f"process {os.getpid()} on {os.uname().nodename}")
        file.flush()
        try:
            yield
        finally:
            lock.unlink()


def is_driven(run: Path) -> bool:
    """Whether a process drives this run now."""
    try:
        with (run / _LOCK).open() as file:
            return not _locked(file.fileno())
    except FileNotFoundError:
        return False


def _locked(descriptor: int) -> bool:
    """Take the lock if nobody has it; the system gives it back when the file is closed or the process dies."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
