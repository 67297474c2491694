"""Tasks with a trial's resources, as many at a time as the search has workers."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from genre_core.errors import InputError
from search.config.schema import SearchConfig
from search.tune.place import Place

Item = TypeVar("Item")


class TaskFailed(Exception, Generic[Item]):
    """A task failed for good."""

    def __init__(self, item: Item, reason: str) -> None:
        """Args: what the task was for, and why it failed."""
        super().__init__(reason)
        self.item = item


def each(
    task: Callable[..., Any],
    items: Sequence[Item],
    arguments: Callable[[Item], tuple[Any, ...]],
    *,
    shared: object,
    config: SearchConfig,
    place: Place,
) -> Iterator[tuple[Item, Any]]:
    """Each item with the result of its task, as they end; repeated where a worker or its node fails.

    Args:
        task: called on a worker with the item's arguments and what is shared.
        items: what the tasks are for.
        arguments: of an item's task.
        shared: sent to each node once.
        config: of the run.
        place: where the tasks run.

    Raises:
        TaskFailed: a task failed for good; the others are cancelled.
    """
    options: dict[str, Any] = {
        "num_cpus": config.cpus_per_trial,
        "num_gpus": place.gpus,
        "max_retries": config.retries,
        "retry_exceptions": [OSError, InputError],
        "scheduling_strategy": "SPREAD",
    }
    remote: Any = ray.remote(**options)(task)
    given = ray.put(shared)
    waiting, running = deque(items), dict[Any, Item]()
    while waiting or running:
        while waiting and len(running) < place.workers:
            item = waiting.popleft()
            running[remote.remote(*arguments(item), given)] = item
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
        message = str(error.cause).splitlines()[0]
        name = type(error.cause).__name__
        return message if message.startswith(f"{name}: ") else f"{name}: {message}"
    return (
        f"its worker died {config.retries + 1} times, by itself or because an epoch took longer than epoch_limit, "
        f"{config.epoch_limit:g} s"
    )
