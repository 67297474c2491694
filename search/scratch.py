"""A search's temporary files: in one folder that goes when the search does; what killed searches left goes too."""

import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from os import getpid
from pathlib import Path

import psutil

_NAME = re.compile(r"genre-search-(\d+)-")
_ATTEMPTS, _PAUSE_SECONDS = 20, 0.25
"""Ray's processes write their logs until they have ended, which takes a moment."""


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for as long as the context lasts; its path is short, for Ray's sockets are in it."""
    here = Path(tempfile.gettempdir())
    for path in here.glob("genre-search-*"):
        if (owner := _NAME.match(path.name)) and not psutil.pid_exists(int(owner[1])):
            shutil.rmtree(path, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"genre-search-{getpid()}-", dir=here))
    try:
        yield folder
    finally:
        for _ in range(_ATTEMPTS):
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                break
            time.sleep(_PAUSE_SECONDS)
