"""Freed memory stays in the process until it is released."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import psutil, torch
from genre_core.system import allocator
def resident(): return psutil.Process().memory_info().rss / 2**20
allocator.keep_freed_memory()
before = resident()
block = torch.ones(100 * 2**20 // 4)
del block
kept = resident()
allocator.release_freed_memory()
print(kept - before, resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_freed_memory_is_kept_until_it_is_released() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    kept, released = map(float, done.stdout.split())
    assert kept > 90
    assert released < 10
