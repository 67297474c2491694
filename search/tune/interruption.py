"""Ctrl-C and SIGTERM: both end a command in order, and what happens then is said."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = "stopping, saving what there is; once more ends at once"


@contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """SIGTERM does what Ctrl-C does for as long as the context lasts."""

    def interrupt(*_: object) -> None:
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as for what a script starts with &
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)

    earlier = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)


@contextmanager
def interrupt_handler_kept() -> Iterator[None]:
    """SIGINT's handler after the context is the one before it: Ray Tune leaves its own behind."""
    earlier = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, earlier)


def announce_interrupts(say: Callable[[str], None]) -> None:
    """From now on an interrupt is announced before what handles it now does so."""
    handle = signal.getsignal(signal.SIGINT)
    if not callable(handle) or threading.current_thread() is not threading.main_thread():
        return

    def interrupted(number: int, frame: FrameType | None) -> None:
        # by a thread: this one may be in the middle of a line
        threading.Thread(target=say, args=(STOPPING,)).start()
        handle(number, frame)

    signal.signal(signal.SIGINT, interrupted)
