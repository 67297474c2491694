"""Ctrl-C and SIGTERM: both end a command in an orderly way and are announced to the user."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = "stopping and saving results; interrupt again to stop immediately"


@contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """Handle SIGTERM like Ctrl-C inside the context; only the main thread can, in others nothing changes."""
    if not _in_main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        # a shell starts background commands (`command &`) with SIGINT ignored
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def handler_kept(number: signal.Signals) -> Iterator[None]:
    """Restore the handler of a signal on exit: ray.init replaces that of SIGTERM, and Tune that of SIGINT."""
    previous = signal.getsignal(number)
    try:
        yield
    finally:
        if _in_main_thread():
            signal.signal(number, previous)


def announce_interrupts(say: Callable[[str], None]) -> None:
    """Wrap the current SIGINT handler so that it announces an interrupt before handling it."""
    handle = signal.getsignal(signal.SIGINT)
    if not callable(handle) or not _in_main_thread():
        return

    def announce(number: int, frame: FrameType | None) -> None:
        # in another thread, because this one may be in the middle of printing a line
        threading.Thread(target=say, args=(STOPPING,)).start()
        handle(number, frame)

    signal.signal(signal.SIGINT, announce)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
