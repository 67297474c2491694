"""A function called for many items in threads: the results in order, as they come."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from joblib import Parallel, delayed

Item = TypeVar("Item")
Result = TypeVar("Result")

ALL_CORES = -1
"""Threads, as joblib has it."""


def map_in_threads(call: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """The results, a few computed ahead of what was asked for. For functions that release the GIL.

    An iterator that is dropped early, as by Ctrl-C, ends without a word: joblib warns of results left unused.
    """
    parallel = Parallel(n_jobs=workers, prefer="threads", return_as="generator")
    results = parallel(delayed(call)(item) for item in items)
    try:
        for result in results:  # noqa: UP028 - `yield from` would close them before warnings are ignored
            yield result
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            results.close()
