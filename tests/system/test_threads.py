"""Results come in order, and an iterator that is dropped early leaves no warning."""

import gc
import warnings
from itertools import count

import joblib
import pytest

from genre_core.system.threads import map_in_threads


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_results_come_in_order(workers: int) -> None:
    assert list(map_in_threads(lambda item: item * item, range(50), workers)) == [i * i for i in range(50)]


def test_an_iterator_that_is_dropped_leaves_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def warn(parallel: joblib.Parallel) -> None:
        """As joblib does where it has results that nobody took, which depends on who was faster."""
        asked.append(parallel)
        warnings.warn("tasks have been successfully executed but not used", UserWarning, stacklevel=2)

    monkeypatch.setattr(joblib.Parallel, "_warn_exit_early", warn)
    results = map_in_threads(lambda item: item, count(), 2)
    assert next(results) == 0
    del results
    gc.collect()
    assert asked


def test_an_error_reaches_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        list(map_in_threads(lambda item: 1 // item, [2, 1, 0], 2))
