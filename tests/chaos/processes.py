"""The command under test in a process session of its own: finding its processes and killing them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

TRIAL = ("ray::GenreTrial", "ray::_Inner")
"""Prefixes of the process title of a worker, between and during steps."""
HELPERS = (
    *("ray::ModelStore", "ray::CheckpointStore", "ray::WeightsFiles", "ray::StoreShards"),
    "ray::StartupBarrier",
)
"""Prefixes of the process title of a search's helper processes."""


class Driver:
    """A `genre-search` process and the processes it starts."""

    def __init__(self, *arguments: object, cache: Path, log: Path) -> None:
        """Start the command; its output is appended to the log."""
        self._log = log
        with log.open("a") as file:
            file.write(f"--- {' '.join(map(str, arguments))}\n")
            file.flush()
            self._process = subprocess.Popen(
                [str(Path(sys.executable).parent / "genre-search"), *map(str, arguments)],
                env=os.environ | {"GENRE_SEARCH_CACHE": str(cache)},
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started = time.time()

    @property
    def session(self) -> int:
        """Session id, which identifies its processes even after their parents have died."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Exit code; None while it runs."""
        return self._process.poll()

    def kill(self) -> None:
        """Send SIGKILL, as the kernel does when memory runs out."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def wait(self, seconds: float) -> int:
        """Wait for it to exit; return the exit code."""
        return self._process.wait(seconds)

    def end(self) -> None:
        """Kill it and all processes that it started."""
        if self.code is None:
            self.kill()
        for process in in_session(self.session):
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def last_words(self, lines: int = 15) -> str:
        """Last lines of its log."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])


def in_session(session: int) -> Iterator[psutil.Process]:
    """Running processes of a session."""
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except (psutil.Error, ProcessLookupError):
            continue


def below(parent: int) -> Iterator[psutil.Process]:
    """Descendants of a process."""
    try:
        yield from psutil.Process(parent).children(recursive=True)
    except psutil.NoSuchProcess:
        return


def runs_trials(process: psutil.Process) -> bool:
    """Whether a process is a worker that runs trials."""
    return title(process).startswith(TRIAL)


def helps(process: psutil.Process) -> bool:
    """Whether a process is a helper of a search."""
    return title(process).startswith(HELPERS)


def title(process: psutil.Process) -> str:
    """Command line of a process, which Ray replaces by a title; empty if it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
