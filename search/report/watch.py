"""Rewrite a report while its search runs."""

import time
from collections.abc import Callable
from pathlib import Path

from search.run.lock import is_driven

INTERVAL_SECONDS = 10.0
"""Shortest time between two versions of a report, after which its page reloads itself."""
WRITE_SHARE = 0.05
"""Largest share of the time that is spent on writing, which takes a core from the search."""
_POLL_SECONDS = 0.5
"""How often to look whether the search has ended."""


def watch(
    run: Path,
    write: Callable[[float | None], None],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Write a report again and again until its search ends, and then once more.

    Args:
        run: the run's folder.
        write: writes the report, whose page reloads itself after this many seconds; None if it is final.
        clock: returns the time in seconds.
        sleep: waits so many seconds.

    Returns:
        Whether the search was running at first.
    """
    was_running = is_driven(run)
    pause, measured = INTERVAL_SECONDS, False
    while is_driven(run):
        began = clock()
        write(pause)
        if measured:  # the first time also loads modules, and would delay the first results for half a minute
            pause = max(INTERVAL_SECONDS, (clock() - began) / WRITE_SHARE)
        measured = True
        until = clock() + pause
        while clock() < until and is_driven(run):
            sleep(_POLL_SECONDS)
    write(None)
    return was_running
