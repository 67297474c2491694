"""Ray tasks with the resources of a trial, at most one per worker at a time."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from genre_core.errors import InputError
from search.config.schema import SearchConfig
from search.engine.ports import RemoteError
from search.tune.cluster import Resources

Item = TypeVar("Item")


class TaskFailed(Exception, Generic[Item]):
    """A task failed after all its retries."""

    def __init__(self, item: Item, reason: str) -> None:
        """Args: the item of the task, and why it failed."""
        super().__init__(reason)
        self.item = item


def each(
    task: Callable[..., Any],
    items: Sequence[Item],
    arguments: Callable[[Item], tuple[Any, ...]],
    *,
    shared: object,
    config: SearchConfig,
    resources: Resources,
) -> Iterator[tuple[Item, Any]]:
    """Run a task for each item; yield each item and its result in order of completion. Node failures are retried.

    Args:
        task: called on a worker with the arguments of the item, then `shared`.
        items: one for each task.
        arguments: item -> the arguments of its task.
        shared: an argument of all tasks, sent to each node once.
        config: of the run.
        resources: to run on.

    Raises:
        TaskFailed: a task failed after all its retries; the others are canceled.
    """
    options: dict[str, Any] = {
        "num_cpus": config.cpus_per_trial,
        "num_gpus": resources.gpus,
        "max_retries": config.retries,
        "retry_exceptions": [OSError, InputError, RemoteError],
        "scheduling_strategy": "SPREAD",
    }
    remote: Any = ray.remote(**options)(task)
    shared_reference = ray.put(shared)
    pending, running = deque(items), dict[Any, Item]()
    while pending or running:
        while pending and len(running) < resources.workers:
            item = pending.popleft()
            running[remote.remote(*arguments(item), shared_reference)] = item
        [ended], _ = ray.wait(list(running), num_returns=1)
        item = running.pop(ended)
        try:
            yield item, ray.get(ended)
        except RayError as error:
            for other in running:
                ray.cancel(other, force=True)
            raise TaskFailed(item, _reason(error, config)) from error


def _reason(error: RayError, config: SearchConfig) -> str:
    if isinstance(error, RayTaskError):
        (cause,) = error.cause.args if isinstance(error.cause, RemoteError) else (error.cause,)
        message = str(cause).splitlines()[0]
        name = type(cause).__name__
        return message if message.startswith(f"{name}: ") else f"{name}: {message}"
    return (
        f"its worker died {config.retries + 1} times; a worker is also killed if an epoch takes longer than "
        f"epoch_limit, {config.epoch_limit:g} s"
    )
