"""Sends a worker's checkpoints to the head while the worker trains on."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import ray
from ray.exceptions import RayTaskError

from search.engine.messages import UNSAVED
from search.run.checkpoints import Arrays, Unsaved


class CheckpointSender:
    """Sends one checkpoint at a time: copied in a thread, then on its way while the next epoch is computed.

    Whatever goes wrong costs the trial a place to resume from and nothing else: it becomes part of the worker's next
    result, with the number of the trial that it is about.
    """

    def __init__(self, shelf: Any) -> None:
        """Args: the handle of the `CheckpointShelf` process."""
        self._shelf = shelf
        self._thread = ThreadPoolExecutor(1)
        self._trial = -1
        self._copied: Future[None] | None = None  # done when the checkpoint has been copied
        self._sent: Any | None = None  # a checkpoint on its way
        self._unsaved: Unsaved | None = None

    def send(self, trial: int, epoch: int, state: Callable[[], Arrays], row: Mapping[str, Any]) -> None:
        """Send a trial's checkpoint; the one before has arrived, or failed to, when this returns.

        Args:
            trial: its number.
            epoch: after which it is taken.
            state: copies the trained tensors; called in another thread.
            row: the epoch's result.
        """
        self._settle(timeout=None)
        self._trial = trial

        def copy_and_send() -> None:
            self._sent = self._shelf.put.remote(trial, epoch, state(), row)

        self._copied = self._thread.submit(copy_and_send)

    def wait_for_copy(self) -> None:
        """Return when the trained tensors may change again."""
        copied, self._copied = self._copied, None
        try:
            if copied:
                copied.result()
        except Exception as error:  # noqa: BLE001  # reported with the next result
            self._failed(error)

    def news(self) -> dict[str, Any]:
        """What a result has to say of checkpoints that are not kept; empty where there is nothing new."""
        if self._copied is None:
            self._settle(timeout=0)
        unsaved, self._unsaved = self._unsaved, None
        return {UNSAVED: unsaved} if unsaved else {}

    def _settle(self, *, timeout: float | None) -> None:
        """Learn what became of the checkpoint on its way, within so many seconds."""
        self.wait_for_copy()
        if self._sent is None or not ray.wait([self._sent], timeout=timeout)[0]:
            return
        sent, self._sent = self._sent, None
        try:
            self._unsaved = ray.get(sent) or self._unsaved
        except Exception as error:  # noqa: BLE001  # reported with the next result
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        cause = error.cause if isinstance(error, RayTaskError) else error
        kind, *said = type(cause).__name__, *str(cause).strip().splitlines()[:1]
        self._unsaved = Unsaved(
            trial=self._trial, cause=kind, why=": ".join([f"it cannot be sent, {kind}", *said])
        )
