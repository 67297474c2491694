"""Parallel map in threads."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from joblib import cpu_count

Item = TypeVar("Item")
Result = TypeVar("Result")

ALL_CORES = 0
"""One thread per core that the process may use, by affinity and container limits."""
AHEAD = 2
"""Results computed in advance, for each thread."""


# Executor.map (before Python 3.14's buffersize) and joblib's generator compute without waiting for the consumer: the
# results of a whole corpus would pile up in memory.
def map_in_threads(
    call: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Generator[Result, None, None]:
    """Yield `call(item)` for each item in order, at most AHEAD results per thread ahead of the consumer.

    Args:
        call: a function that releases the GIL.
        items: consumed as results are needed; may be infinite.
        workers: number of threads, or ALL_CORES.
    """
    threads = workers or cpu_count()
    pending: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            pending.append(pool.submit(call, item))
            if len(pending) > AHEAD * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
