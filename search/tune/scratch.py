"""Temporary folders of a running search, deleted at its end, or by a later search if it was killed."""

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
from search.errors import SearchErrorCode
from search.tune.ray_internals import LONGEST_SOCKET

_LOCK = ".genre-search.lock"
"""The lock file in each folder, held until its process ends. A process id would not identify the process, because
containers that share a temporary folder have their own process ids."""
_SCRATCH, _SOCKETS = "genre-search-", "gs-"
_ATTEMPTS, _PAUSE_SECONDS = 20, 0.25
"""Attempts to delete a folder: Ray's processes write logs until they end, which takes a moment."""
_SHORT = ("/tmp", "/var/tmp", "$XDG_RUNTIME_DIR", "/dev/shm")
"""Folders to try for sockets if the path of TMPDIR is too long: the system limits the length of a socket's path."""


@contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder in TMPDIR that is deleted on exit; InputError if it cannot be created."""
    with _folder(_tmpdir(), _SCRATCH) as folder:
        yield folder


@contextmanager
def socket_folder() -> Iterator[Path]:
    """A temporary folder for Ray's sockets, in TMPDIR or in a folder with a shorter path.

    Raises:
        InputError: no folder can hold the sockets.
    """
    bases = dict.fromkeys((_tmpdir(), *map(os.path.expandvars, _SHORT)))
    base = next((base for base in bases if _holds_sockets(base)), None)
    if base is None:
        raise InputError(
            "TMPDIR must be a folder with a short path, because it holds Ray's sockets, but none of "
            f"{', '.join(bases)} can hold them; set TMPDIR to a writable folder with a short path",
            code=SearchErrorCode.TMPDIR_PATH_TOO_LONG,
        )
    with _folder(base, _SOCKETS) as folder:
        yield folder


def _tmpdir() -> str:
    try:
        return tempfile.gettempdir()
    except FileNotFoundError as error:
        raise InputError(
            f"TMPDIR must be a writable folder, but {error.strerror}; set TMPDIR to one",
            code=SearchErrorCode.TMPDIR_UNUSABLE,
        ) from error


def _holds_sockets(base: str) -> bool:
    """Whether a socket with the longest path that Ray uses can be created in a subfolder of this folder."""
    try:
        with (
            tempfile.TemporaryDirectory(prefix=_SOCKETS, dir=base) as folder,
            socket.socket(socket.AF_UNIX) as probe,
        ):
            path = Path(folder, LONGEST_SOCKET)
            path.parent.mkdir(parents=True)
            probe.bind(str(path))
    except OSError:
        return False
    return True


@contextmanager
def _folder(base: str, prefix: str) -> Iterator[Path]:
    """A new temporary folder; folders left by killed searches are deleted first."""
    for path in Path(base).glob(f"{prefix}*"):
        _delete_if_abandoned(path)
    try:
        hidden = Path(tempfile.mkdtemp(prefix=f".{prefix}{os.getpid()}-", dir=base))  # until it is locked
    except OSError as error:
        raise InputError(
            f"TMPDIR must be a writable folder, but got {base}: {error.strerror}; set TMPDIR to one",
            code=SearchErrorCode.TMPDIR_UNUSABLE,
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


def _delete_if_abandoned(folder: Path) -> None:
    """Delete a folder whose process has ended, unless it belongs to another user or has no lock file."""
    with suppress(OSError, Timeout):
        if (folder / _LOCK).stat().st_uid == os.getuid():
            with FileLock(folder / _LOCK, timeout=0):
                _deleted(folder)


def _deleted(folder: Path) -> bool:
    """Delete a folder; False if Ray's last processes still write to it, so that a later search may try again."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(FileNotFoundError):
        (folder / _LOCK).touch()
    return not folder.exists()
