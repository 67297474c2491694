"""Control of the C allocator: memory is kept between training steps and released between fine-tunes."""

import ctypes
from typing import Any

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Parameters of glibc's mallopt(3)."""


def keep_freed_memory() -> None:
    """Keep freed memory in the process until `release_freed_memory` is called.

    By default, glibc returns every large block to the system at once, and the next step pays for each of its pages
    again: a third of a step for the gradients of the linear layers of AlexNet and VGG. Without glibc, this does
    nothing.
    """
    if mallopt := _libc("mallopt"):
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)


def release_freed_memory() -> None:
    """Return freed memory to the system."""
    if malloc_trim := _libc("malloc_trim"):
        malloc_trim(0)


def _libc(name: str) -> Any | None:
    return getattr(ctypes.CDLL(None), name, None)
