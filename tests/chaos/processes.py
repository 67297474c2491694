"""The command under test in a session of its own: what of it lives, and how it is killed as the kernel kills."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

TRIAL = ("ray::GenreTrial", "ray::_Inner")
"""How the title of a worker that runs trials begins: between two steps, and in one."""
HELPERS = ("ray::ModelShelf", "ray::CheckpointShelf", "ray::WeightsFiles", "ray::Arrivals")
"""How the title of a search's helper process begins."""
RAY_GONE_SECONDS = 30.0
"""After which what a killed driver's Ray left is ended."""


class Driver:
    """One run of `genre-search`, with all that it starts."""

    def __init__(self, *arguments: object, cache: Path, log: Path) -> None:
        """Start it; its output is added to the log."""
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
        """By which its processes are known, also when their parents have died."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Its exit code; None while it lives."""
        return self._process.poll()

    def kill(self) -> None:
        """SIGKILL, as the kernel does when memory is short: nothing is put in order."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def wait(self, seconds: float) -> int:
        """Its exit code, when it has ended by itself."""
        return self._process.wait(seconds)

    def end(self) -> None:
        """Leave nothing of it behind."""
        if self.code is None:
            self.kill()
        until = time.monotonic() + RAY_GONE_SECONDS
        while time.monotonic() < until and any(_is_ray(process) for process in in_session(self.session)):
            time.sleep(0.1)
        for process in in_session(self.session):
            process.kill()

    def last_words(self, lines: int = 15) -> str:
        """The end of its log."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])


def in_session(session: int) -> Iterator[psutil.Process]:
    """The living processes of a session."""
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except (psutil.Error, ProcessLookupError):
            continue


def below(parent: int) -> Iterator[psutil.Process]:
    """The descendants of a process."""
    try:
        yield from psutil.Process(parent).children(recursive=True)
    except psutil.NoSuchProcess:
        return


def runs_trials(process: psutil.Process) -> bool:
    """Whether it is a worker that runs trials."""
    return title(process).startswith(TRIAL)


def helps(process: psutil.Process) -> bool:
    """Whether it is a helper that a search's workers send to or ask."""
    return title(process).startswith(HELPERS)


def _is_ray(process: psutil.Process) -> bool:
    """A raylet or a worker, and not one of the agents beside them, which take their time to notice."""
    return "raylet/raylet" in title(process) or runs_trials(process)


def title(process: psutil.Process) -> str:
    """Its command line, which Ray replaces by what a worker does; empty where it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
