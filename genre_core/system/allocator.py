"""How a process takes memory from the system: kept between steps, given back between fine-tunes."""

import ctypes
from typing import Any

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Parameters of glibc's mallopt(3)."""


def keep_freed_memory() -> None:
    """From now on, freed memory stays with the process until `release_freed_memory`.

    By default glibc returns every large block at once, and the next step pays for each of its pages again:
    with the gradients of AlexNet's and VGG's linear layers that is a third of a step. Elsewhere than on
    glibc this does nothing.
    """
    if mallopt := _libc("mallopt"):
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)


def release_freed_memory() -> None:
    """Return what is free to the system."""
    if malloc_trim := _libc("malloc_trim"):
        malloc_trim(0)


def _libc(name: str) -> Any | None:
    return getattr(ctypes.CDLL(None), name, None)
