"""Results come in order, and only a few are computed before they are needed."""

import threading
import time
from itertools import count

import pytest

from genre_core.system.threads import AHEAD, ALL_CORES, map_in_threads


@pytest.mark.parametrize("workers", [1, 2, 8, ALL_CORES])
def test_results_come_in_order(workers: int) -> None:
    squares = map_in_threads(lambda item: item * item, range(50), workers)
    assert list(squares) == [item * item for item in range(50)]


def test_a_slow_consumer_does_not_pile_up_results() -> None:
    computed: list[int] = []
    results = map_in_threads(computed.append, count(), 2)
    next(results)
    time.sleep(0.05)
    assert len(computed) <= 1 + 2 * AHEAD


def test_a_closed_iterator_starts_no_more_calls_and_leaves_no_thread() -> None:
    before = threading.active_count()
    computed: list[int] = []
    results = map_in_threads(computed.append, count(), 2)
    next(results)
    results.close()
    done = len(computed)
    time.sleep(0.05)
    assert len(computed) == done
    assert threading.active_count() == before


def test_an_error_reaches_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        list(map_in_threads(lambda item: 1 // item, [2, 1, 0], 2))
