"""Executes trials one after another: build, train an epoch, checkpoint, restore, release memory."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from typing import Any, TypeVar

from genre_core.errors import InputError
from genre_core.recipe import Recipe
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

CONTEXT_BYTES = 600 * 1024**2
"""What a process takes of a GPU in addition to its tensors."""
POLL_SECONDS = 1.0
"""How often a worker that waits or rests reports so."""


T = TypeVar("T")


class Memory(IntEnum):
    """How a fine-tune shares the device; after it ran out of memory, the next one is tried."""

    PACKED = 0
    """With other trials, within what its kind was measured to take."""
    ALONE = 1
    """With the device to itself."""
    STREAMED = 2
    """With the device to itself, the data on the host."""


class WorkerSession:
    """One worker. `begin` an assignment, then `step` until the coordinator has enough of it.

    Deciding is the coordinator's part. What this class decides is what to do about memory: a fine-tune that runs
    out of it is repeated with the device to itself, then with the data on the host, and only then fails.
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
            trainer: makes fine-tunes.
            node: the name of this worker's node.
            pid: the number of this process.
            watchdog: ends the process when an epoch hangs.
            models: stores the best models; None where none are kept.
            checkpoints: stores checkpoints; None where none are kept.
            ledger: of the GPU's memory where several workers share it; None where nobody else uses the device.
            clock: seconds.
            sleep: waits for so many seconds.
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
        self._resting = False
        self._empty = True

    def begin(self, assignment: Assignment) -> None:
        """Take an assignment, after the memory of the one before has been given back."""
        self.release()
        self._assignment = assignment
        self._resting = False
        self._memory = Memory.PACKED if self._ledger else Memory.ALONE
        self._requested: Memory | None = None
        self._reached = 0
        self._replay: Mapping[str, Any] | None = None
        self._seconds = 0.0
        self._peak_bytes = 0
        self._before_bytes = self._trainer.memory()

    def step(self) -> Report:
        """The next epoch, or the one of the last checkpoint again; or why there is none.

        Raises:
            RemoteError: a process that serves this one failed.
        """
        if self._resting:
            self._sleep(POLL_SECONDS)
            return Resting()
        report: Report
        try:
            report = self._attempt(self._epoch)
        except (Diverged, OutOfMemory) as error:
            report = Failure(reason=str(error))
        except (OSError, InputError) as error:
            self._resting = True
            report = NodeFailure(node=self._node, reason=f"{type(error).__name__}: {error}")
        if isinstance(report, Failure | NodeFailure) or (isinstance(report, EpochReport) and report.finished):
            self.release()
        return report

    def train_unscored(self, epochs: int) -> Arrays:
        """Train so many epochs of the assignment without scoring any: the model's tensors.

        Raises:
            Diverged, OutOfMemory
            OSError, InputError: this node cannot provide what is needed.
            RemoteError: a process that serves this one failed.
        """
        tensors: Arrays | Waiting = Waiting(reason="the first epoch")
        try:
            while self._reached < epochs:
                tensors = self._attempt(lambda training: self._unscored_epoch(training, last=epochs))
        finally:
            self.release()
        assert not isinstance(tensors, Waiting), "an epoch was trained"
        return tensors

    def card(self, *, epoch: int) -> dict[str, Any]:
        """What model.json says of the assignment's model after an epoch, without its scores."""
        assert self._assignment, "begin comes first"
        return self._trainer.card(self._assignment.recipe, trial=self._assignment.trial, epoch=epoch)

    def notices(self) -> Iterator[Notice]:
        """What the user should know of this worker, each once."""
        if self._checkpoints and (unsaved := self._checkpoints.unsaved()):
            yield Notice(text=f"{unsaved} (reported once)", key=unsaved.cause)
        if trouble := self._trainer.trouble():
            yield Notice(text=f"{self._node}: {trouble}")

    def release(self) -> None:
        """Give all memory back that the last fine-tune took."""
        self._settle()
        if self._empty:
            return
        self._training = None
        self._empty = True
        self._trainer.release()
        if self._ledger:
            self._ledger.release()

    def _attempt(self, work: Callable[[Training], T]) -> T | Waiting:
        """What a fine-tune's work comes to once it has memory; where that runs out, with more of the device."""
        assert self._assignment, "begin comes first"
        if not self._granted(self._assignment.recipe):
            return Waiting(reason="GPU memory")
        try:
            with self._at_work():
                return work(self._training or self._build(self._assignment))
        except OutOfMemory as error:
            reason = str(error)
        # here the error's traceback holds no tensors any more
        if not self._climb():
            raise OutOfMemory(reason)
        return self._attempt(work)

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """Count the seconds of the context, and end the process if there are too many; waiting does not count."""
        self._since = self._clock(), self._watchdog.waited_seconds
        try:
            with self._watchdog.guard():
                self._settle()  # its tensors are about to change
                yield
        finally:
            self._seconds += self._worked()

    def _worked(self) -> float:
        """Seconds of work in this step so far."""
        began, waited = self._since
        return self._clock() - began - (self._watchdog.waited_seconds - waited)

    def _settle(self) -> None:
        if self._checkpoints:
            self._checkpoints.settle()

    def _build(self, assignment: Assignment) -> Training:
        """The fine-tune as of the trial's last checkpoint, or before its first epoch."""
        self._empty = False
        training = self._trainer.prepare(assignment.recipe, stream=self._memory is Memory.STREAMED)
        if self._checkpoints and (assignment.may_have_checkpoint or self._reached):
            kept = self._checkpoints.last(assignment.trial)
            if kept is not None:
                arrays, values = kept
                training.load(arrays)
                if self._reached < training.epochs_done:
                    self._reached, self._replay = training.epochs_done, values
        self._training = training
        return training

    def _epoch(self, training: Training) -> EpochReport:
        """The epoch of the checkpoint again where it is to be reported, else the next one."""
        assert self._assignment
        trial, attempt = self._assignment.trial, self._assignment.attempt
        if self._replay is not None:
            report = EpochReport.from_flat(
                self._replay, trial=trial, attempt=attempt, replayed=True, **self._place
            )
            self._seconds, self._replay = report.usage.total_seconds, None
            return report
        while training.epochs_done < self._reached:  # done before the memory ran out
            training.epoch(trial=trial, attempt=attempt)
        row = training.epoch(trial=trial, attempt=attempt)
        self._reached = training.epochs_done
        self._offer_model(self._assignment, training, row.val_f1)
        report = EpochReport(
            row=row,
            usage=self._usage(self._assignment.recipe, training),
            best_epoch=training.best_epoch,
            finished=training.finished,
        )
        if self._checkpoints and not report.finished:
            self._checkpoints.send(report, training.state)
        return report

    def _unscored_epoch(self, training: Training, *, last: int) -> Arrays:
        """The next epoch without a score; after the last one, the model's tensors."""
        while training.epochs_done <= self._reached:
            training.train()
        self._reached = training.epochs_done
        return training.tensors() if self._reached == last else {}

    def _granted(self, recipe: Recipe) -> bool:
        """Whether the memory for this fine-tune is granted; a worker that waits for it holds none."""
        if self._ledger is None or self._training:
            return True
        if self._requested is not self._memory:
            self._empty = False
            self._requested = self._memory
            if self._ledger.request(kind_of(recipe), alone=self._memory > Memory.PACKED):
                return True
            self._trainer.release(data=True)
            return False
        if self._ledger.granted():
            return True
        self._sleep(POLL_SECONDS)
        return self._ledger.granted()

    def _climb(self) -> bool:
        """Take more of the device after a fine-tune ran out of memory; False where there is no more to take."""
        if self._memory is Memory.STREAMED or (self._memory is Memory.ALONE and not self._trainer.can_stream):
            return False
        self.release()
        self._memory = Memory(self._memory + 1)
        if self._memory is Memory.STREAMED:
            self._trainer.release(data=True)
        return True

    @property
    def _place(self) -> dict[str, Any]:
        return {"node": self._node, "pid": self._pid}

    def _usage(self, recipe: Recipe, training: Training) -> Usage:
        self._peak_bytes = max(self._peak_bytes, self._trainer.memory())
        if self._ledger:
            self._ledger.measured(kind_of(recipe), self._peak_bytes + CONTEXT_BYTES)
        return Usage(
            **training.facts,
            **self._place,
            total_seconds=self._seconds + self._worked(),
            memory_before_bytes=self._before_bytes,
            peak_memory_bytes=self._peak_bytes,
            device=self._trainer.device,
        )

    def _offer_model(self, assignment: Assignment, training: Training, f1: float) -> None:
        """Offer the model where this epoch is the trial's best and the trial among the search's best."""
        done = training.epochs_done
        if not self._models or training.best_epoch != done or not self._models.wants(assignment.trial, f1):
            return
        card = {**self.card(epoch=done), **training.validation()}
        self._models.offer(assignment.trial, f1, training.tensors(), card)


def kind_of(recipe: Recipe) -> str:
    """What a trial's need of memory depends on, in addition to the data."""
    return f"{recipe.backbone}/{recipe.frozen_blocks}/{recipe.batch_size}/{recipe.precision}"
