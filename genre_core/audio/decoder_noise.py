"""Standard error without what a decoder's C code prints there.

libmpg123, inside libsndfile, prints a line for each frame that it dislikes, in sound files too; libsndfile has
no setting against it. C code writes to file descriptor 2, which belongs to the whole process: it is redirected
to a temporary file, and what others wrote meanwhile is passed on afterwards.
"""

import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_STANDARD_ERROR = 2
_NOISE = re.compile(
    rb"^\n?(?:\[src/libmpg123/|Note: "
    rb"|Warning: (?:Xing|Big change|Encountered more data|Real sample count|FLAC stream))[^\n]*\n?",
    re.MULTILINE,
)

_lock = threading.Lock()
_users = 0
_original, _caught = -1, -1
"""File descriptors: standard error as it was, and the temporary file in its place."""


@contextmanager
def quiet_decoder() -> Iterator[None]:
    """Keep libmpg123's lines off standard error. Threads may overlap: the last one out restores it."""
    _enter()
    try:
        yield
    finally:
        _leave()


def _enter() -> None:
    global _users, _original, _caught
    with _lock:
        _users += 1
        if _users > 1:
            return
        try:
            _original = os.dup(_STANDARD_ERROR)
        except OSError:  # the process has no standard error, so nothing can appear there
            _original = -1
            return
        _caught = _temporary_file()
        os.dup2(_caught, _STANDARD_ERROR)


def _leave() -> None:
    global _users
    with _lock:
        _users -= 1
        if _users or _original < 0:
            return
        os.dup2(_original, _STANDARD_ERROR)
        size = os.lseek(_caught, 0, os.SEEK_CUR)
        if size and (others := _NOISE.sub(b"", os.pread(_caught, size, 0))):
            os.write(_STANDARD_ERROR, others)
        os.close(_caught)
        os.close(_original)


def _temporary_file() -> int:
    """Descriptor of a file without a name, in memory where the system offers that."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("decoder-noise")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
