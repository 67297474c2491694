"""Temporary folders of a running search: deleted at its end, or by a later search where it was killed."""

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from genre_core.errors import InputError

_LOCK = ".genre-search.lock"
"""In each folder: held by its process until that ends. A number of a process would say nothing here, since
containers that share a temporary folder each count processes for themselves."""
_SCRATCH, _SOCKETS = "genre-search-", "gs-"
_ATTEMPTS, _PAUSE_SECONDS = 20, 0.25
"""Ray's processes write their logs until they have ended, which takes a moment."""
_SHORT = ("/tmp", "/var/tmp", "$XDG_RUNTIME_DIR", "/dev/shm")
"""Where sockets may be, after TMPDIR."""
_LONGEST_SOCKET = "session_2000-01-01_00-00-00_000000_4194304/sockets/plasma_store.10"
"""As Ray names one below its own folder; the system limits the length of a socket's whole path."""


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder in TMPDIR for as long as the context lasts; InputError where none can be made."""
    with _folder(_tmpdir(), _SCRATCH) as folder:
        yield folder


@contextmanager
def socket_folder() -> Iterator[Path]:
    """A folder for Ray's sockets for as long as the context lasts: in TMPDIR, or where paths are shorter.

    Raises:
        InputError: there is no such place.
    """
    bases = dict.fromkeys((_tmpdir(), *map(os.path.expandvars, _SHORT)))
    base = next((base for base in bases if _holds_sockets(base)), None)
    if base is None:
        raise InputError(
            "TMPDIR must be a folder with a short path, for Ray's sockets are in it, but none of "
            f"{', '.join(bases)} can hold them; set TMPDIR to a short path that can be written"
        )
    with _folder(base, _SOCKETS) as folder:
        yield folder


def _tmpdir() -> str:
    try:
        return tempfile.gettempdir()
    except FileNotFoundError as error:
        raise InputError(f"TMPDIR must be a folder that can be written, but {error.strerror}") from error


def _holds_sockets(base: str) -> bool:
    """Whether a socket with a name as long as Ray's longest can be made in a folder there."""
    try:
        with (
            tempfile.TemporaryDirectory(prefix=_SOCKETS, dir=base) as folder,
            socket.socket(socket.AF_UNIX) as probe,
        ):
            path = Path(folder, _LONGEST_SOCKET)
            path.parent.mkdir(parents=True)
            probe.bind(str(path))
    except OSError:
        return False
    return True


@contextmanager
def _folder(base: str, prefix: str) -> Iterator[Path]:
    """A new folder there, after those that killed searches left have been deleted."""
    for path in Path(base).glob(f"{prefix}*"):
        _delete_if_left(path)
    try:
        hidden = Path(tempfile.mkdtemp(prefix=f".{prefix}{os.getpid()}-", dir=base))  # until its lock is held
    except OSError as error:
        raise InputError(
            f"TMPDIR must be a folder that can be written, but {base}: {error.strerror}"
        ) from error
    lock = FileLock(hidden / _LOCK)
    lock.acquire()
    folder = hidden.rename(hidden.with_name(hidden.name[1:]))
    try:
        yield folder
    finally:
        for _ in range(_ATTEMPTS):
            if _deleted(folder):
                break
            time.sleep(_PAUSE_SECONDS)
        lock.release()


def _delete_if_left(folder: Path) -> None:
    """Delete a folder whose process has ended; one that is another user's, or has no lock, is left alone."""
    with suppress(OSError, Timeout):
        if (folder / _LOCK).stat().st_uid == os.getuid():
            with FileLock(folder / _LOCK, timeout=0):
                _deleted(folder)


def _deleted(folder: Path) -> bool:
    """Whether a folder is gone now; where Ray's last processes still write to it, a later search may try again."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(FileNotFoundError):
        (folder / _LOCK).touch()
    return not folder.exists()
