"""Termination of a process that hangs; time in which it waits for other processes does not count."""

import faulthandler
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Watchdog:
    """Terminates this process if guarded work takes too long, and prints the stacks of its threads to standard error.

    The timer does not need the interpreter or its lock, which hanging code may hold. A process can have only one.
    """

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Args: seconds: maximum duration of guarded work. clock: returns seconds, monotonic."""
        self._seconds = seconds
        self._clock = clock
        self._left: float | None = None
        self._armed_at = 0.0
        self.waited_seconds = 0.0
        """How long this process has waited for others so far."""

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Terminate the process if the context lasts longer than the limit, excluding waits."""
        self._arm(self._seconds)
        try:
            yield
        finally:
            self._disarm()
            self._left = None

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Mark the context as a wait for another process: it does not count towards the limit or as work."""
        began, left = self._clock(), self._left
        if left is not None:
            self._disarm()
            left -= began - self._armed_at
        try:
            yield
        finally:
            self.waited_seconds += self._clock() - began
            if left is not None:
                self._arm(max(left, 0.001))

    def _arm(self, seconds: float) -> None:
        self._left, self._armed_at = seconds, self._clock()
        faulthandler.dump_traceback_later(seconds, exit=True, file=sys.stderr)

    def _disarm(self) -> None:
        faulthandler.cancel_dump_traceback_later()
