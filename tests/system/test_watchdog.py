"""A process that hangs is ended and its stacks are printed; what it waits for does not count."""

import subprocess
import sys
import textwrap

import pytest

from genre_core.system.watchdog import Watchdog

LIMIT_SECONDS = 0.5
LONG_SECONDS = 4 * LIMIT_SECONDS
"""Longer than the limit, however slow the machine is: only sleeping takes that long here."""


def _run(code: str) -> "subprocess.CompletedProcess[str]":
    """Run code in a process of its own, with a watchdog and two ways to spend time."""
    program = f"""\
import hashlib, time
from genre_core.system.watchdog import Watchdog
watchdog = Watchdog({LIMIT_SECONDS})
def sleep():
    time.sleep({LONG_SECONDS})
def hold_the_interpreter():
    import ctypes
    ctypes.PyDLL(None).usleep(int({LONG_SECONDS} * 1e6))  # a PyDLL call keeps the interpreter's lock
{textwrap.dedent(code)}
print("survived")
"""
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False
    )


@pytest.mark.parametrize("hang", ["sleep", "hold_the_interpreter"])
def test_a_process_whose_work_takes_too_long_is_ended_and_says_where_it_hung(hang: str) -> None:
    ended = _run(f"with watchdog.guard(): {hang}()")
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert f"in {hang}" in ended.stderr


@pytest.mark.parametrize(
    "code",
    [
        "with watchdog.guard(): pass\nsleep()",
        "with watchdog.guard():\n with watchdog.waiting(): sleep()",
        "with watchdog.waiting(): sleep()",
        "try:\n with watchdog.guard(): raise OSError\nexcept OSError: sleep()",
        "with watchdog.guard():\n try:\n  with watchdog.waiting(): raise OSError\n except OSError: pass\nsleep()",
    ],
    ids=[
        "after the work",
        "waiting",
        "waiting outside of work",
        "after an error",
        "after an error while waiting",
    ],
)
def test_only_work_is_limited(code: str) -> None:
    ended = _run(code)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "survived\n", "")


@pytest.mark.parametrize(
    "code",
    [
        "with watchdog.guard():\n with watchdog.waiting(): pass\n sleep()",
        "with watchdog.guard(): pass\nwith watchdog.guard(): sleep()",
    ],
    ids=["after waiting", "in the next work"],
)
def test_the_limit_holds_again(code: str) -> None:
    ended = _run(code)
    assert ended.returncode == 1
    assert "in sleep" in ended.stderr


class Timers:
    """In place of the module faulthandler: the seconds that each timer was set to, None where it was cancelled."""

    def __init__(self) -> None:
        self.set: list[float | None] = []

    def dump_traceback_later(self, seconds: float, **_: object) -> None:
        self.set.append(seconds)

    def cancel_dump_traceback_later(self) -> None:
        self.set.append(None)


def test_what_is_left_of_the_limit_continues_after_each_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    timers, now = Timers(), 100.0
    monkeypatch.setattr("genre_core.system.watchdog.faulthandler", timers)
    watchdog = Watchdog(60.0, clock=lambda: now)
    with watchdog.guard():
        now += 10
        with watchdog.waiting():
            now += 1000
        now += 20
        with watchdog.waiting():
            now += 7
    assert timers.set == [60.0, None, 50.0, None, 30.0, None]
    assert watchdog.waited_seconds == 1007.0
