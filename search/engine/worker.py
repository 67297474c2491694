"""Execution of trials by a worker: build, train an epoch, checkpoint, restore, release memory."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from genre_core.errors import InputError
from genre_core.models.artifact import SHARED_BLOCKS
from genre_core.recipe import Recipe
from search.engine.gpu_demand import CONTEXT_BYTES, Demand
from search.engine.messages import (
    Assignment,
    EpochReport,
    Failure,
    NodeFailure,
    Notice,
    Report,
    Resting,
    Usage,
    Waiting,
)
from search.engine.ports import (
    Arrays,
    CheckpointStore,
    Diverged,
    GpuLedger,
    ModelStore,
    OutOfMemory,
    Trainer,
    Training,
    Watchdog,
)

MOST_WARM = 8
"""Maximum number of paused trials that a worker keeps in memory: more are rarely resumed here, and each slows down the
garbage collection before the next trial by milliseconds."""
POLL_SECONDS = 1.0
"""Interval at which a waiting or resting worker reports."""


T = TypeVar("T")


class DemandOf(Protocol):
    """A method of `Trainer` that returns what something needs of a shared GPU."""

    def __call__(self, recipe: Recipe, *, stream: bool) -> Demand:
        """The demand."""


class Memory(IntEnum):
    """How a fine-tune uses the device; after running out of memory, the next mode is tried."""

    PACKED = 0
    """Shares the device with other trials, by measured or estimated memory use."""
    ALONE = 1
    """Has the device to itself."""
    STREAMED = 2
    """Has the device to itself, with the data in host memory."""


@dataclass(frozen=True, kw_only=True)
class Warm:
    """The fine-tune of a paused trial, still in memory."""

    training: Training
    seconds: float
    """Working time of the trial so far."""


class WorkerSession:
    """One worker: `begin` an assignment, then `step` until the coordinator decides to stop.

    The only decisions of this class are about memory. While there is enough of it, fine-tunes of paused trials stay
    in memory and are resumed without their checkpoints. If memory runs out, these are freed and the current fine-tune
    is repeated, then with the device to itself, then with the data in host memory, before it fails.
    """

    def __init__(
        self,
        trainer: Trainer,
        *,
        node: str,
        pid: int,
        watchdog: Watchdog,
        models: ModelStore | None = None,
        checkpoints: CheckpointStore | None = None,
        ledger: GpuLedger | None = None,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Set up.

        Args:
            trainer: creates fine-tunes.
            node: name of this worker's node.
            pid: id of this process.
            watchdog: terminates the process if an epoch hangs.
            models: stores the best models; None to store none.
            checkpoints: stores checkpoints; None to store none.
            ledger: shares the GPU's memory between workers; None if the device is not shared.
            clock: returns seconds.
            sleep: waits for a number of seconds.
        """
        self._trainer = trainer
        self._node, self._pid = node, pid
        self._watchdog = watchdog
        self._models = models
        self._checkpoints = checkpoints
        self._ledger = ledger
        self._clock = clock
        self._sleep = sleep
        self._assignment: Assignment | None = None
        self._training: Training | None = None
        self._warm: dict[int, Warm] = {}
        """Trial -> its fine-tune; the least recently used first."""
        self._resting = False
        self._empty = True

    def begin(self, assignment: Assignment) -> None:
        """Take an assignment; the memory of the previous one is freed unless its trial may be resumed here."""
        self._keep_warm({*assignment.paused, assignment.trial})
        self._assignment = assignment
        self._resting = False
        self._memory = Memory.PACKED if self._ledger else Memory.ALONE
        self._requested: Memory | None = None
        self._reached = 0
        self._replay: EpochReport | None = None
        self._seconds = 0.0
        self._peak_bytes = 0
        self._before_bytes = self._trainer.memory()
        warm = self._warm.pop(assignment.trial, None)
        if warm and warm.training.epochs_done == assignment.epochs:  # no other worker has continued the trial
            self._training, self._seconds, self._empty = warm.training, warm.seconds, False
            self._reached = assignment.epochs

    def step(self) -> Report:
        """Train the next epoch, or replay the one of the last checkpoint, and report it.

        Raises:
            RemoteError: a call to another process failed.
        """
        if self._resting:
            self._sleep(POLL_SECONDS)
            return Resting()
        report: Report
        try:
            report = self._attempt(lambda: self._epoch(self._prepared()), self._trainer.demand)
        except (Diverged, OutOfMemory) as error:
            report = Failure(reason=str(error))
        except (OSError, InputError) as error:
            self._resting = True
            report = NodeFailure(node=self._node, reason=f"{type(error).__name__}: {error}")
        if isinstance(report, Failure | NodeFailure) or (isinstance(report, EpochReport) and report.finished):
            self.release()
        return report

    def train_unscored(self, epochs: int) -> tuple[Arrays, Mapping[str, str]]:
        """Train the assignment for some epochs without scoring any; returns all tensors of the model, and its digests.

        Raises:
            Diverged, OutOfMemory
            OSError, InputError: this node cannot provide what is needed.
            RemoteError: a call to another process failed.
        """
        trained: tuple[Arrays, Mapping[str, str]] | Waiting = Waiting(reason="the first epoch")
        try:
            while self._reached < epochs:
                trained = self._attempt(
                    lambda: self._unscored_epoch(self._prepared(), last=epochs), self._trainer.demand
                )
        finally:
            self.release()
        assert not isinstance(trained, Waiting), "an epoch was trained"
        return trained

    def predict(self, tensors: Arrays) -> NDArray[np.float32]:
        """Predict the tracks of the data with a model of the assignment; returns mean logits, [tracks, genres].

        Raises:
            OutOfMemory
            OSError, InputError: this node cannot provide what is needed.
        """

        def work() -> NDArray[np.float32]:
            self._empty = False
            logits = self._trainer.predict(self._current.recipe, tensors, stream=self._streams)
            self._record_peak()
            return logits

        try:
            while isinstance(logits := self._attempt(work, self._trainer.prediction_demand), Waiting):
                pass
        finally:
            self.release()
        return logits

    def card(self, *, epoch: int) -> dict[str, Any]:
        """The content of model.json for the assignment's model after an epoch, without scores."""
        return self._trainer.card(self._current.recipe, trial=self._current.trial, epoch=epoch)

    @property
    def _current(self) -> Assignment:
        assert self._assignment, "begin comes first"
        return self._assignment

    @property
    def _streams(self) -> bool:
        return self._memory is Memory.STREAMED

    def notices(self) -> Iterator[Notice]:
        """Problems of this worker that the user should know; each is returned once."""
        if self._checkpoints and (unsaved := self._checkpoints.unsaved()):
            yield Notice(text=f"{unsaved} (reported once)", key=unsaved.cause)
        if trouble := self._trainer.trouble():
            yield Notice(text=f"{self._node}: {trouble}")

    def release(self) -> None:
        """Free all memory that the last fine-tune used."""
        self._settle()
        if self._empty:
            return
        self._training = None
        self._empty = True
        if self._ledger is None:
            self._trainer.release()
            return
        self._trainer.release(
            data=self._ledger.whole_is_wanted()
        )  # a trial that needs the whole GPU needs the memory of the data, too
        self._ledger.release(holds=self._trainer.data_bytes())

    def _attempt(self, work: Callable[[], T], demand: DemandOf) -> T | Waiting:
        """Do some work once memory is granted; if it runs out, repeat it in the next mode.

        Args:
            work: uses the device.
            demand: what it needs of a shared GPU.
        """
        if not self._granted(demand):
            return Waiting(reason="GPU memory")
        try:
            with self._timed():
                return work()
        except OutOfMemory as error:
            reason = str(error)
        # outside of `except`, because the traceback of the error holds tensors
        if not (self._drop_warm() or self._next_mode()):
            raise OutOfMemory(reason)
        return self._attempt(work, demand)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        """Measure the working time in the context, and terminate the process if it is too long; waiting is excluded."""
        self._since = self._clock(), self._watchdog.waited_seconds
        try:
            with self._watchdog.guard():
                self._settle()  # its tensors are about to change
                yield
        finally:
            self._seconds += self._worked()

    def _worked(self) -> float:
        """Working time in this step so far, in seconds."""
        began, waited = self._since
        return self._clock() - began - (self._watchdog.waited_seconds - waited)

    def _settle(self) -> None:
        if self._checkpoints:
            self._checkpoints.settle()

    def _prepared(self) -> Training:
        """The fine-tune, created if necessary and restored from the trial's latest checkpoint if there is one."""
        if self._training:
            return self._training
        self._empty, assignment = False, self._current
        training = self._trainer.prepare(assignment.recipe, stream=self._streams)
        if self._checkpoints and (assignment.may_have_checkpoint or self._reached):
            kept = self._checkpoints.last(assignment.trial)
            if kept is not None:
                arrays, report = kept
                training.load(arrays)
                if self._reached < training.epochs_done:
                    self._reached, self._replay = training.epochs_done, report
        self._training = training
        return training

    def _epoch(self, training: Training) -> EpochReport:
        """Replay the epoch of the checkpoint if there is one, else train the next epoch."""
        trial, attempt = self._current.trial, self._current.attempt
        if self._replay is not None:
            report = self._replay.replay(attempt=attempt, node=self._node, pid=self._pid)
            self._seconds, self._replay = report.usage.total_seconds, None
            return report
        while training.epochs_done < self._reached:  # done before memory ran out
            training.epoch(trial=trial, attempt=attempt)
        row = training.epoch(trial=trial, attempt=attempt)
        self._reached = training.epochs_done
        self._offer_model(self._current, training, row.val_f1)
        report = EpochReport(
            row=row,
            usage=self._usage(training),
            best_epoch=training.best_epoch,
            finished=training.finished,
        )
        if self._checkpoints and not report.finished:
            self._checkpoints.send(report, training.state)
        return report

    def _unscored_epoch(self, training: Training, *, last: int) -> tuple[Arrays, Mapping[str, str]]:
        """Train the next epoch without scoring it; after the last one, return the tensors and digests of the model."""
        while training.epochs_done <= self._reached:
            training.train()
        self._reached = training.epochs_done
        blocks = training.frozen_blocks
        return (training.tensors(blocks) if self._reached == last else {}), blocks

    def _granted(self, demand: DemandOf) -> bool:
        """Whether memory for this demand is granted; a worker holds none while it waits."""
        if self._ledger is None or self._training:
            return True
        if self._requested is not self._memory:
            self._empty = False
            self._requested = self._memory
            needed = demand(self._current.recipe, stream=self._streams)
            if self._ledger.request(needed, alone=self._memory > Memory.PACKED):
                return True
            self._trainer.release(data=True)
            return False
        return self._ledger.granted(within=POLL_SECONDS)

    def _keep_warm(self, trials: Collection[int]) -> None:
        """Keep the fine-tunes of these trials, including the last one's, while there is memory; free all others."""
        # memory of a shared GPU is granted to the trial that trains, and streaming means that there is too little
        if self._training and self._assignment and not self._ledger and self._memory is not Memory.STREAMED:
            self._warm[self._assignment.trial] = Warm(training=self._training, seconds=self._seconds)
        self._warm = {trial: warm for trial, warm in self._warm.items() if trial in trials}
        self.release()
        while len(self._warm) > MOST_WARM or (self._warm and not self._trainer.has_spare_memory()):
            del self._warm[next(iter(self._warm))]
            self._trainer.release()

    def _drop_warm(self) -> bool:
        """Free the memory of all paused trials, and of this one to repeat it; False if none was held."""
        if not self._warm:
            return False
        self._warm.clear()
        self.release()
        return True

    def _next_mode(self) -> bool:
        """Switch to the next memory mode after running out of memory; False if there is none."""
        if self._memory is Memory.STREAMED or (self._memory is Memory.ALONE and not self._trainer.can_stream):
            return False
        self.release()
        self._memory = Memory(self._memory + 1)
        if self._memory is Memory.STREAMED:
            self._trainer.release(data=True)
        return True

    def _record_peak(self) -> None:
        self._peak_bytes = max(self._peak_bytes, self._trainer.memory())
        if self._ledger:
            self._ledger.measured(self._peak_bytes + CONTEXT_BYTES)

    def _usage(self, training: Training) -> Usage:
        self._record_peak()
        return Usage(
            **vars(training.facts),
            node=self._node,
            pid=self._pid,
            total_seconds=self._seconds + self._worked(),
            memory_before_bytes=self._before_bytes,
            peak_memory_bytes=self._peak_bytes,
            device=self._trainer.device,
        )

    def _offer_model(self, assignment: Assignment, training: Training, f1: float) -> None:
        """Offer the model if this epoch is the trial's best and the trial is among the best of the search."""
        done = training.epochs_done
        if not self._models or training.best_epoch != done or not self._models.wants(assignment.trial, f1):
            return
        blocks = training.frozen_blocks
        card = {**self.card(epoch=done), **training.validation(), SHARED_BLOCKS: dict(blocks)}
        sent = set(self._models.lacks(blocks))
        # what another model shared may be deleted with it before this model arrives
        while lacking := self._models.offer(assignment.trial, f1, training.tensors(sent), card):
            sent |= set(lacking)
