"""Suppression of the messages that libmpg123 writes to standard error.

libmpg123, which libsndfile includes, prints a line for each frame it rejects, and libsndfile cannot turn this off. C
code writes to file descriptor 2, which belongs to the whole process: while a decoder runs, it is redirected to a
temporary file, and everything else that was written is forwarded afterwards.
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
_original, _redirected = -1, -1
"""File descriptors: the real standard error, and the temporary file that replaces it."""


@contextmanager
def quiet_decoder() -> Iterator[None]:
    """Keep libmpg123's lines off standard error; threads may overlap, the last one restores it."""
    _enter()
    try:
        yield
    finally:
        _leave()


def without_noise(output: bytes) -> bytes:
    """Remove libmpg123's lines; their wording is undocumented and has a canary test."""
    return _NOISE.sub(b"", output)


def _enter() -> None:
    global _users, _original, _redirected
    with _lock:
        _users += 1
        if _users > 1:
            return
        try:
            _original = os.dup(_STANDARD_ERROR)
        except OSError:  # the process has no standard error, so there is nothing to keep quiet
            _original = -1
            return
        _redirected = _temporary_file()
        os.dup2(_redirected, _STANDARD_ERROR)


def _leave() -> None:
    global _users
    with _lock:
        _users -= 1
        if _users or _original < 0:
            return
        os.dup2(_original, _STANDARD_ERROR)
        size = os.lseek(_redirected, 0, os.SEEK_CUR)
        if size and (others := without_noise(os.pread(_redirected, size, 0))):
            os.write(_STANDARD_ERROR, others)
        os.close(_redirected)
        os.close(_original)


def _temporary_file() -> int:
    """Open a file without a name, in memory if the system supports that, and return its descriptor."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("decoder-noise")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
