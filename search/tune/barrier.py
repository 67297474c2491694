"""The first trials wait for each other's workers: else Tune would never have more than one.

Tune gives a waiting trial to any worker that becomes free, and ends the one that was being started for it. Where
trials are shorter than a worker's start, that happens again and again, and the search runs on one worker for ever.
"""

import time
from collections.abc import Callable
from typing import Any

import ray

LONGEST_WAIT_SECONDS = 30.0
"""After which trials begin without the workers that have not come: a cluster may be slow to give them."""
_POLL_SECONDS = 0.05


class StartupBarrier:
    """Counts workers that are up; lives in a process of its own."""

    def __init__(self, expected: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Args: how many workers are to come, and a clock in seconds."""
        self._expected = 0 if _is_replacement() else expected
        self._clock = clock
        self._here: set[str] = set()
        self._until: float | None = None

    def arrive(self, worker: str) -> None:
        """The worker of this id is up."""
        self._here.add(worker)

    def complete(self) -> bool:
        """Whether nobody need wait: all are up, or the first to ask has waited long enough, once for all."""
        if self._until is None:
            self._until = self._clock() + LONGEST_WAIT_SECONDS
        return len(self._here) >= self._expected or self._clock() >= self._until


def wait_for_all(barrier: Any) -> None:
    """Return when all workers are up, or `LONGEST_WAIT_SECONDS` after the first one asked.

    Args:
        barrier: the handle of the `StartupBarrier` process.
    """
    while not ray.get(barrier.complete.remote()):
        time.sleep(_POLL_SECONDS)


def _is_replacement() -> bool:
    """Whether this process replaces one that died: it does not know who had arrived, so nobody waits."""
    if not ray.is_initialized() or (context := ray.get_runtime_context()).get_actor_id() is None:
        return False
    return bool(context.was_current_actor_reconstructed)
