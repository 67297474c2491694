"""Files and folders that appear whole or not at all, whatever is interrupted: a process, or the power."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial"
"""How the name of a file ends that is still being written."""

_CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EACCES, errno.EPERM, errno.EBADF)
"""Errors of file systems (network and user-space ones) that do not sync folders; their files are synced."""


@contextmanager
def atomic_file(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a path next to `path` to write to; on leaving without an error it replaces `path`.

    Args:
        path: the file.
        durable: whether the file has to survive a power cut from then on. It costs the disk's time to store it;
            False is for what can be computed or downloaded again.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        yield partial
        if durable:
            sync_file(partial)
        partial.replace(path)
        if durable:
            sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder next to `path` to fill; on leaving without an error it becomes `path`, which may be empty.

    From then on it survives a power cut. One process at a time: what a killed one left of it is deleted.
    """
    partial = path.with_name(f".{path.name}{PARTIAL}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        for folder, _, files in os.walk(partial):
            for file in files:
                sync_file(Path(folder, file))
            sync_folder(Path(folder))
        partial.replace(path)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def make_folder(path: Path) -> None:
    """Create a folder, with the folders above it; those that are new survive a power cut."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Return when the names of the files in a folder are on the disk."""
    try:
        sync_file(folder)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise


def sync_file(path: Path) -> None:
    """Return when a file's content, or a folder's, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
