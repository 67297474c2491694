"""A worker's ports, implemented by actors on the head node, and the startup barrier."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.actor import ActorHandle
from ray.exceptions import RayError, RayTaskError

from search.engine.messages import EpochReport
from search.engine.ports import Arrays, RemoteError
from search.run.checkpoints import Unsaved
from search.tune import ray_internals

LONGEST_WAIT_SECONDS = 30.0
"""How long the first trials wait for workers that have not started: a cluster may be slow to start them."""
_POLL_SECONDS = 0.05


def ask(call: Callable[..., Any], *arguments: Any) -> Any:
    """Call a remote method of an actor and wait for its result.

    Raises:
        RemoteError: the method raised, or the actor could not be reached.
    """
    try:
        return ray.get(call(*arguments))
    except RayTaskError as error:
        raise RemoteError(error.cause) from error
    except RayError as error:
        raise RemoteError(error) from error


class RemoteModels:
    """The model store of the search, in an actor."""

    def __init__(self, actor: ActorHandle[Any]) -> None:
        """Args: a `ModelStore` actor."""
        self._actor = actor

    def wants(self, trial: int, f1: float) -> bool:
        """Whether a model with this validation F1 would be among the best."""
        return bool(ask(self._actor.wants.remote, trial, f1))

    def lacks(self, blocks: Mapping[str, str]) -> tuple[str, ...]:
        """The blocks, of these frozen ones, that are not stored."""
        return tuple(ask(self._actor.lacks.remote, dict(blocks)))

    def offer(self, trial: int, f1: float, tensors: Arrays, card: Mapping[str, Any]) -> tuple[str, ...]:
        """Store the model if it is among the best, and return the blocks that it lacks."""
        return tuple(ask(self._actor.offer.remote, trial, f1, tensors, card))


class RemoteWeights:
    """The weights files on the head, read by an actor."""

    def __init__(
        self, actor: ActorHandle[Any], *, waiting: Callable[[], AbstractContextManager[None]]
    ) -> None:
        """Args: a `WeightsFiles` actor, and a context manager to enter while waiting for it."""
        self._actor = actor
        self._waiting = waiting

    def read(self, backbone: str) -> NDArray[np.uint8]:
        """The bytes of a backbone's weights file."""
        with self._waiting():
            content: NDArray[np.uint8] = ask(self._actor.read.remote, backbone)
        return content


class RemoteFrames:
    """The actor on the head that reads the spectrogram store; see `search.tune.frame_shipping.StoreShards`."""

    def __init__(
        self,
        actor: ActorHandle[Any],
        *,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Args: a `StoreShards` actor, and a context manager to enter while waiting for a shard."""
        self._actor = actor
        self._waiting = waiting

    def expect(self, sizes: Mapping[str, int]) -> None:
        """Do nothing: the head has all shards."""

    def read(self, name: str) -> NDArray[np.uint8]:
        """The bytes of a shard."""
        with self._waiting():
            content: NDArray[np.uint8] = ask(self._actor.read.remote, name)
        return content

    def traffic(self) -> tuple[int, int]:
        """Bytes of the shards that other nodes got: through Ray, and from the storage."""
        sent, fetched = ask(self._actor.traffic.remote)
        return sent, fetched

    def request(self, names: Sequence[str]) -> None:
        """Ask for the upload of shards."""
        ask(self._actor.request.remote, names)

    def is_uploaded(self, name: str) -> bool | None:
        """Whether a requested shard is in the storage; None if that is not known yet."""
        uploaded: bool | None = ask(self._actor.is_uploaded.remote, name)
        return uploaded

    def requested(self) -> list[str]:
        """The requested shards that were not answered."""
        return list(ask(self._actor.requested.remote))

    def answer(self, name: str, *, uploaded: bool) -> None:
        """Record whether a shard is in the storage."""
        ask(lambda: self._actor.answer.remote(name, uploaded=uploaded))

    def fetched(self, size: int) -> None:
        """Count bytes that a node has read from the storage."""
        ask(self._actor.fetched.remote, size)

    def complain(self, text: str) -> None:
        """Record why a node cannot read the storage."""
        ask(self._actor.complain.remote, text)

    def complaints(self) -> list[str]:
        """What was recorded since the last call."""
        return list(ask(self._actor.complaints.remote))


class RemoteCheckpoints:
    """The checkpoint store of the search, in an actor. Checkpoints are sent one at a time, in the background.

    A checkpoint that cannot be sent does not fail the trial, which can resume from an earlier one; `unsaved` reports
    it.
    """

    def __init__(self, actor: ActorHandle[Any], *, sends: bool = True) -> None:
        """Args: a `CheckpointStore` actor, and whether to send checkpoints at all."""
        self._actor = actor
        self._sends = sends
        self._thread = ThreadPoolExecutor(1)
        self._trial = -1
        self._copied: Future[None] | None = None
        self._sent: Any | None = None
        """The pending result of the checkpoint that is being sent."""
        self._unsaved: Unsaved | None = None

    def send(self, report: EpochReport, arrays: Callable[[], Arrays]) -> None:
        """Send a checkpoint, after the previous one has been stored or has failed."""
        if not self._sends:
            return
        self._collect(timeout=None)
        self._trial = report.row.trial

        def copy_and_send() -> None:
            trial, epoch = report.row.trial, report.row.epoch
            self._sent = self._actor.put.remote(trial, epoch, arrays(), report.flat())

        self._copied = self._thread.submit(copy_and_send)

    def settle(self) -> None:
        """Wait until the arrays of the last checkpoint have been copied, so that they may change."""
        copied, self._copied = self._copied, None
        try:
            if copied:
                copied.result()
        except Exception as error:  # noqa: BLE001  # becomes a notice
            self._failed(error)

    def unsaved(self) -> Unsaved | None:
        """Why a checkpoint was not stored, reported once; None if there is nothing new."""
        if self._copied is None:
            self._collect(timeout=0)
        unsaved, self._unsaved = self._unsaved, None
        return unsaved

    def last(self, trial: int) -> tuple[Arrays, EpochReport] | None:
        """The latest checkpoint of a trial and the report of its epoch; None if there is none."""
        kept = ask(self._actor.last.remote, trial)
        return kept and (kept[0], EpochReport.of_checkpoint(kept[1], trial=trial))

    def _collect(self, *, timeout: float | None) -> None:
        """Collect the result of the checkpoint that is being sent, waiting at most `timeout` seconds."""
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


class StartupBarrier:
    """Startup barrier: without it, Tune may run every trial on the first worker. Runs in an actor.

    Tune gives a pending trial to any worker that becomes free, and ends the worker that was starting for that trial.
    If trials are shorter than the start of a worker, this repeats, and a second worker is never used.
    """

    def __init__(self, expected: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Args: the number of workers to wait for, and a clock in seconds."""
        # a restarted actor does not know which workers had arrived, so that nobody waits
        self._expected = 0 if ray_internals.was_restarted() else expected
        self._clock = clock
        self._arrived: set[str] = set()
        self._until: float | None = None

    def arrive(self, worker: str) -> None:
        """Record that a worker has started; workers are identified by their id."""
        self._arrived.add(worker)

    def arrived(self) -> int:
        """Number of workers that have started."""
        return len(self._arrived)

    def complete(self) -> bool:
        """Whether trials may begin: all workers have started, or the time limit since the first call is over."""
        if self._until is None:
            self._until = self._clock() + LONGEST_WAIT_SECONDS
        return len(self._arrived) >= self._expected or self._clock() >= self._until


def wait_for_all(barrier: Any) -> None:
    """Wait until all workers have started, or `LONGEST_WAIT_SECONDS` after the first call.

    Args:
        barrier: a `StartupBarrier` actor.
    """
    while not ray.get(barrier.complete.remote()):
        time.sleep(_POLL_SECONDS)
