"""Utilization of this machine: its CPU or GPUs, and their memory."""

import shutil
import subprocess
import time
from collections.abc import Callable

import psutil

from genre_core.system import memory
from genre_core.system.memory import GIB

_MIB_PER_GIB = 1024
EVERY_SECONDS = 5.0
"""Interval between two measurements."""
_LONGEST_SECONDS = 2.0
"""Timeout of nvidia-smi, which hangs if the driver does."""
_QUERY = (
    "nvidia-smi",
    "--query-gpu=utilization.gpu,memory.used,memory.total",
    "--format=csv,noheader,nounits",
)


class MachineUse:
    """Measures the use of this machine at intervals."""

    def __init__(
        self,
        *,
        gpus: Callable[[], str | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Set up.

        Args:
            gpus: returns the output of nvidia-smi, or None without a GPU [default: runs it].
            clock: returns seconds.
        """
        self._gpus = gpus or _ask_gpus
        self._clock = clock
        self._next = clock()
        self._shown = ("", "")
        psutil.cpu_percent()  # the next call measures since this one

    def parts(self) -> tuple[str, str]:
        """Use of the GPUs, or of the CPU if there are none, and of their memory, such as `CPU 97%` and `3.2/16 GiB`."""
        if self._clock() >= self._next:
            self._next = self._clock() + EVERY_SECONDS
            self._shown = self._measured()
        return self._shown

    def _measured(self) -> tuple[str, str]:
        if (text := self._gpus()) is not None and (found := gpu_use(text)) is not None:
            return found
        self._gpus = lambda: None
        free, total = memory.free_and_total()
        return f"CPU {psutil.cpu_percent():.0f}%", _memory((total - free) / GIB, total / GIB)


def gpu_use(text: str) -> tuple[str, str] | None:
    """Mean use of all GPUs and their memory from the output of nvidia-smi; None if it has no such numbers."""
    try:
        rows = [[float(cell) for cell in line.split(",")] for line in text.splitlines() if line.strip()]
        use, used, total = (list(column) for column in zip(*rows, strict=True))
    except ValueError:  # "[N/A]", as for a GPU that is divided, or an error message
        return None
    named = "GPU" if len(use) == 1 else f"{len(use)} GPUs"
    return f"{named} {sum(use) / len(use):.0f}%", _memory(sum(used) / _MIB_PER_GIB, sum(total) / _MIB_PER_GIB)


def _ask_gpus() -> str | None:
    if shutil.which(_QUERY[0]) is None:
        return None
    try:
        done = subprocess.run(_QUERY, capture_output=True, text=True, timeout=_LONGEST_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _memory(used: float, total: float) -> str:
    return f"{used:.1f}/{total:.0f} GiB"
