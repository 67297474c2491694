"""Ports of a worker that are served by processes on the head: actors, called through Ray."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.actor import ActorHandle
from ray.exceptions import RayError, RayTaskError

from search.engine.messages import EpochReport
from search.engine.ports import Arrays, RemoteError
from search.run.checkpoints import Unsaved


def ask(call: Callable[..., Any], *arguments: Any) -> Any:
    """The answer to an actor's method, called with these arguments.

    Raises:
        RemoteError: the actor, or the way to it, failed.
    """
    try:
        return ray.get(call(*arguments))
    except RayTaskError as error:
        raise RemoteError(error.cause) from error
    except RayError as error:
        raise RemoteError(error) from error


class RemoteModels:
    """The model store of the search."""

    def __init__(self, actor: ActorHandle[Any]) -> None:
        """Args: a `ModelStore` actor."""
        self._actor = actor

    def wants(self, trial: int, f1: float) -> bool:
        """Whether a model with this validation F1 would be among the best."""
        return bool(ask(self._actor.wants.remote, trial, f1))

    def offer(self, trial: int, f1: float, tensors: Arrays, card: Mapping[str, Any]) -> None:
        """Store the model if it is among the best."""
        ask(self._actor.offer.remote, trial, f1, tensors, card)


class RemoteWeights:
    """The files of weights on the head."""

    def __init__(
        self, actor: ActorHandle[Any], *, waiting: Callable[[], AbstractContextManager[None]]
    ) -> None:
        """Args: a `WeightsFiles` actor, and a context that is entered while it answers."""
        self._actor = actor
        self._waiting = waiting

    def read(self, backbone: str) -> NDArray[np.uint8]:
        """The bytes of a backbone's file."""
        with self._waiting():
            content: NDArray[np.uint8] = ask(self._actor.read.remote, backbone)
        return content


class RemoteCheckpoints:
    """The checkpoint store of the search. One checkpoint at a time is sent while the worker trains on.

    A checkpoint that cannot be sent costs the trial a place to resume from and nothing else: `unsaved` reports it.
    """

    def __init__(self, actor: ActorHandle[Any], *, sends: bool = True) -> None:
        """Args: a `CheckpointStore` actor, and whether it has any room for checkpoints."""
        self._actor = actor
        self._sends = sends
        self._thread = ThreadPoolExecutor(1)
        self._trial = -1
        self._copied: Future[None] | None = None
        self._sent: Any | None = None
        """The answer to come of the checkpoint on its way."""
        self._unsaved: Unsaved | None = None

    def send(self, report: EpochReport, arrays: Callable[[], Arrays]) -> None:
        """Send a checkpoint; the one before has arrived, or failed to, when this returns."""
        if not self._sends:
            return
        self._collect(timeout=None)
        self._trial = report.row.trial

        def copy_and_send() -> None:
            trial, epoch = report.row.trial, report.row.epoch
            self._sent = self._actor.put.remote(trial, epoch, arrays(), report.flat())

        self._copied = self._thread.submit(copy_and_send)

    def settle(self) -> None:
        """Return when the arrays of the last checkpoint have been copied and may change again."""
        copied, self._copied = self._copied, None
        try:
            if copied:
                copied.result()
        except Exception as error:  # noqa: BLE001  # becomes a notice
            self._failed(error)

    def unsaved(self) -> Unsaved | None:
        """Why a checkpoint was not stored, once; None where there is nothing new."""
        if self._copied is None:
            self._collect(timeout=0)
        unsaved, self._unsaved = self._unsaved, None
        return unsaved

    def last(self, trial: int) -> tuple[Arrays, EpochReport] | None:
        """A trial's latest checkpoint, and the report of its epoch."""
        kept = ask(self._actor.last.remote, trial)
        return kept and (kept[0], EpochReport.from_flat(kept[1], trial=trial))

    def _collect(self, *, timeout: float | None) -> None:
        """Learn what became of the checkpoint on its way, within so many seconds."""
        self.settle()
        if self._sent is None or not ray.wait([self._sent], timeout=timeout)[0]:
            return
        sent, self._sent = self._sent, None
        try:
            self._unsaved = ray.get(sent) or self._unsaved
        except Exception as error:  # noqa: BLE001  # becomes a notice
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        cause = error.cause if isinstance(error, RayTaskError) else error
        kind, *message = type(cause).__name__, *str(cause).strip().splitlines()[:1]
        self._unsaved = Unsaved(
            trial=self._trial, cause=kind, why=": ".join([f"it cannot be sent, {kind}", *message])
        )
