"""A report that is rewritten while its search runs."""

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from command_line import PROGRAM
from conftest import Command
from made_runs import make_reportable, make_run

from search.cli.output import INTERRUPTED
from search.report.watch import INTERVAL_SECONDS, WRITE_SHARE, watch
from search.run.folder import RunFolder
from search.run.lock import driving


class Search:
    """A search that runs until a time, its clock, and the report that is written of it."""

    def __init__(self, folder: Path, *, seconds: float, write_seconds: float) -> None:
        self.now = 0.0
        self.written: list[tuple[float, float | None]] = []
        self._folder, self._seconds, self._write_seconds = folder, seconds, write_seconds

    def write(self, reload_seconds: float | None) -> None:
        self.written.append((self.now, reload_seconds))
        self.sleep(self._write_seconds)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.now >= self._seconds:
            RunFolder(self._folder).lock_holder.unlink(missing_ok=True)


@pytest.mark.parametrize("write_seconds", [0.0, 0.25, 3.0])
def test_a_report_is_rewritten_until_the_search_ends(write_seconds: float, tmp_path: Path) -> None:
    run = make_run(tmp_path / "r")
    search = Search(run, seconds=200.25, write_seconds=write_seconds)
    with driving(run):
        assert watch(run, search.write, clock=lambda: search.now, sleep=search.sleep)
    pause = max(INTERVAL_SECONDS, write_seconds / WRITE_SHARE)
    times, reloads = zip(*search.written, strict=True)
    first, *between = (after - before for before, after in pairwise(times[:-1]))
    assert first == INTERVAL_SECONDS + write_seconds, "the first time also loads modules"
    assert between == [pause + write_seconds] * len(between)
    assert len(between) >= 2
    assert reloads == (INTERVAL_SECONDS, INTERVAL_SECONDS, *[pause] * len(between), None)
    assert times[-1] == pytest.approx(200.25, abs=0.5), "the end is noticed at once"


def test_the_watch_of_a_search_that_does_not_run_writes_once_and_says_so(
    tmp_path: Path, genre_search: Command
) -> None:
    run = make_run(tmp_path / "r")
    make_reportable(run)
    done = genre_search("report", run, "--watch")
    assert done.returncode == 0, done.stderr
    assert "once" in done.stdout
    assert "data-reload" not in (run / "report.html").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_interrupt_ends_a_watch_without_a_word(number: signal.Signals, tmp_path: Path) -> None:
    run = make_run(tmp_path / "r")
    make_reportable(run)
    with driving(run), _watching(run, tmp_path) as process:
        assert process.stdout is not None
        assert str(run / "report.html") in process.stdout.readline()
        assert re.search(r'<body data-reload="\d+"', (run / "report.html").read_text())
        process.send_signal(number)
        said, errors = process.communicate(timeout=300)
    assert (process.returncode, said, errors) == (INTERRUPTED, "", "")


@contextmanager
def _watching(run: Path, cache: Path) -> "Iterator[subprocess.Popen[str]]":
    """A watch in a process of its own, which is killed at the end if need be."""
    with subprocess.Popen(
        [PROGRAM, "report", run, "--watch", "--cache", cache],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()
