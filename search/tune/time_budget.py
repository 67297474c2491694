"""When a search's time is over: Ray's stopper, which remembers whether it was what ended the search."""

import time
from collections.abc import Callable
from typing import Any

from ray.tune import Stopper


class TimeBudget(Stopper):
    """Ends a search after so many seconds from when it is first asked, by a clock that nobody adjusts.

    Ray's own reads the time of day, and does not say afterwards whether it or the user ended the search.
    """

    def __init__(
        self,
        seconds: float | None,
        *,
        ended: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args: how long, None for no end; who is called once when the time is over; and what the time is, s."""
        self._seconds = seconds
        self._ended = ended
        self._clock = clock
        self._began: float | None = None
        self.over = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Never: a trial by itself has no budget."""
        return False

    def stop_all(self) -> bool:
        """Whether the time is over."""
        now = self._clock()
        self._began = now if self._began is None else self._began
        if not self.over and self._is_over(now - self._began):
            self.over = True
            self._ended()
        return self.over

    def _is_over(self, passed: float) -> bool:
        return self._seconds is not None and passed >= self._seconds
