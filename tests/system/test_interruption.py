"""Ctrl-C and SIGTERM: one is the other, and the first of them is announced."""

import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from genre_core.system import interruption


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    earlier = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in earlier.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("interrupt", [signal.SIG_IGN, signal.default_int_handler])
def test_a_polite_kill_interrupts_also_where_a_shell_has_had_interrupts_ignored(interrupt: Any) -> None:
    terminated = signal.getsignal(signal.SIGTERM)
    earlier = signal.signal(signal.SIGINT, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt), interruption.termination_as_interrupt():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGINT, earlier)
    assert signal.getsignal(signal.SIGTERM) == terminated


def test_an_interrupt_is_announced_and_then_handled_as_before() -> None:
    said: list[str] = []
    handled: list[int] = []
    heard = threading.Event()
    signal.signal(signal.SIGINT, lambda number, _: handled.append(number))

    def say(text: str) -> None:
        said.append(text)
        heard.set()

    with interruption.termination_as_interrupt():
        interruption.announce_interrupts(say)
        signal.raise_signal(signal.SIGTERM)
        assert heard.wait(20)
    assert said == [interruption.STOPPING]
    assert handled == [signal.SIGINT]


def test_an_announcement_waits_for_a_line_that_is_being_written() -> None:
    """A handler runs between two steps of the main thread, which may hold the screen's lock."""
    screen, said = threading.Lock(), threading.Event()
    signal.signal(signal.SIGINT, lambda *_: None)

    def say(_: str) -> None:
        with screen:
            said.set()

    interruption.announce_interrupts(say)
    with screen:
        signal.raise_signal(signal.SIGINT)
        assert not said.is_set()
    assert said.wait(20)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_handler_that_is_left_behind_is_taken_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with interruption.handler_kept(number):
        signal.signal(number, signal.SIG_IGN)
    assert signal.getsignal(number) == before
