"""Ends a process that hangs; time that it waits for others does not count."""

import faulthandler
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Watchdog:
    """Ends this process, its threads' stacks on standard error, where guarded work takes too long.

    By a timer that needs neither the interpreter nor its lock, since what hangs may hold both. A process has one.
    """

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Args: the most that guarded work may take, and a clock in seconds."""
        self._seconds = seconds
        self._clock = clock
        self._left: float | None = None
        self._armed_at = 0.0
        self.waited_seconds = 0.0
        """How long this process has waited for others so far."""

    @contextmanager
    def guard(self) -> Iterator[None]:
        """The process ends if the context lasts longer than the limit, waits not counted."""
        self._arm(self._seconds)
        try:
            yield
        finally:
            self._disarm()
            self._left = None

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The context is a wait for another process: it neither uses up the limit nor counts as work."""
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
