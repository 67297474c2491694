"""Small disks that really fill up: tmpfs mounts, if this process may mount file systems."""

import errno
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import SkipTest

CHUNK_BYTES = 2**16
"""Bytes per write when a disk is filled."""


@contextmanager
def small_disk(place: Path, size: int) -> Iterator[Path]:
    """A disk of this many bytes, mounted at a new folder while the context lasts.

    Raises:
        SkipTest: this process may not mount file systems.
    """
    place.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise SkipTest("needs the program mount") from error
    if done.returncode:
        raise SkipTest(f"needs the right to mount a file system: {done.stderr.strip()}")
    try:
        yield place
    finally:
        # lazily, because workers may still map files
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(file: Path) -> None:
    """Write to a file until its disk is full."""
    try:
        with file.open("wb", buffering=0) as opened:
            while opened.write(bytes(CHUNK_BYTES)):
                pass
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
