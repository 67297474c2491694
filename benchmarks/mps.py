"""The daemon of CUDA's Multi-Process Service, with which kernels of several processes run on a GPU at the same time."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

CONTROL = "nvidia-cuda-mps-control"
"""The command that starts the daemon, and stops it."""
STOP_SECONDS = 60
"""How long the daemon may take to end."""


@contextmanager
def mps_daemon(folder: Path) -> Iterator[None]:
    """Run a daemon of its own; processes that are started within share the GPU by it.

    It is stopped at the end, also after an error, Ctrl-C or SIGTERM.

    Args:
        folder: an empty folder with a short path, for the daemon's pipes and logs.

    Raises:
        FileNotFoundError, subprocess.CalledProcessError: the daemon cannot be started.
    """
    folders = {name: folder / name.lower() for name in ("CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY")}
    for path in folders.values():
        path.mkdir()
    with patch.dict(os.environ, {name: str(path) for name, path in folders.items()}):
        before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        try:
            subprocess.run([CONTROL, "-d"], check=True)
            try:
                yield
            finally:
                subprocess.run([CONTROL], input="quit\n", text=True, check=True, timeout=STOP_SECONDS)
        finally:
            signal.signal(signal.SIGTERM, before)
