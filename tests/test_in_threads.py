"""Results come in order, and an iterator that is dropped early leaves no warning."""

import gc
import threading

import pytest

from genre_core.in_threads import in_threads


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_results_come_in_order(workers: int) -> None:
    assert list(in_threads(lambda item: item * item, range(50), workers)) == [i * i for i in range(50)]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_iterator_that_is_dropped_leaves_no_warning(workers: int) -> None:
    done = [threading.Event() for _ in range(9)]

    def call(item: int) -> int:
        done[item].set()
        return item

    results = in_threads(call, range(9), workers)
    assert next(results) == 0
    assert done[workers - 1].wait(60)  # there are results that nobody takes
    del results
    gc.collect()


def test_an_error_reaches_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda item: 1 // item, [2, 1, 0], 2))
