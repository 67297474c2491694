"""Protocols of the services that the engine needs: `search.tune` implements them with Ray, tests with plain objects."""

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from genre_core.recipe import Recipe
from search.engine.gpu_demand import Demand
from search.engine.messages import Choice, EpochReport, TrainingFacts
from search.run.checkpoints import Unsaved
from search.run.schemas import EpochRow, TrialRow

Arrays = Mapping[str, NDArray[Any]]
"""Tensors by name, on the host."""


class Diverged(Exception):
    """The loss is not finite, or too large to recover; the message names the epoch."""


class OutOfMemory(Exception):
    """The device has too little memory for the fine-tune."""


class RemoteError(Exception):
    """A call to another process failed; `args[0]` is its error."""


class Reporter(Protocol):
    """Displays the progress of a search."""

    def say(self, text: str) -> None:
        """Print a line."""

    def trial(self, row: TrialRow) -> None:
        """Display a trial whose row has changed."""


class Strategy(Protocol):
    """Chooses what an idle worker trains next."""

    @property
    def pauses(self) -> bool:
        """Whether a trial that the pruner wants to end is paused instead: it may be resumed later."""

    def choose(self, *, paused: Collection[int], busy: Collection[int], may_ask: bool) -> Choice:
        """Choose the next trial for a worker.

        Args:
            paused: numbers of the paused trials, one of which may be resumed.
            busy: numbers of the trials that other workers train.
            may_ask: whether there may be a new trial.
        """

    def least_promising(self, paused: Collection[int]) -> int:
        """The number of the paused trial to give up when the checkpoints take too much space."""


class Tables(Protocol):
    """The tables of trials and epochs; see `search.run.tables.ResultsWriter`."""

    def put_trial(self, row: TrialRow) -> None:
        """Set a trial's row."""

    def add_epoch(self, row: EpochRow, trial: TrialRow) -> None:
        """Add the row of an epoch and the current row of its trial."""

    def flush(self) -> None:
        """Flush the tables to the disk."""


class WeightSource(Protocol):
    """Weights files on the head node."""

    def read(self, backbone: str) -> NDArray[np.uint8]:
        """Read the bytes of a backbone's file.

        Raises:
            RemoteError
        """


class FrameSource(Protocol):
    """The spectrogram store on the head node, or its copy in a storage."""

    def expect(self, sizes: Mapping[str, int]) -> None:
        """Announce shards that may be read, in order, with their bytes.

        Raises:
            RemoteError
        """

    def read(self, name: str) -> NDArray[np.uint8]:
        """Read the bytes of a shard.

        Raises:
            RemoteError
        """


class CheckpointStore(Protocol):
    """The latest checkpoint of each running trial."""

    def send(self, report: EpochReport, arrays: Callable[[], Arrays]) -> None:
        """Store a checkpoint after an epoch, possibly while the next one is computed; never raises.

        Args:
            report: the report of the epoch.
            arrays: returns the state; may be called in another thread until `settle` returns.
        """

    def settle(self) -> None:
        """Wait until the arrays of the last checkpoint have been copied and may change again."""

    def unsaved(self) -> Unsaved | None:
        """Why a checkpoint was not stored; returned once, then None."""

    def last(self, trial: int) -> tuple[Arrays, EpochReport] | None:
        """Load a trial's latest checkpoint: its arrays and the report of its epoch."""


class ModelStore(Protocol):
    """The models of the best trials."""

    def wants(self, trial: int, f1: float) -> bool:
        """Whether a model with this validation F1 would be among the best."""

    def lacks(self, blocks: Mapping[str, str]) -> tuple[str, ...]:
        """Those of these frozen blocks (block -> digest) that are not stored."""

    def offer(self, trial: int, f1: float, tensors: Arrays, card: Mapping[str, Any]) -> tuple[str, ...]:
        """Store the model if it is among the best.

        Returns:
            The frozen blocks of the card that are neither stored nor among the tensors. If there are any, the model is
            not stored, and must be offered again with them.
        """


class GpuLedger(Protocol):
    """The memory of a GPU that several workers share."""

    def request(self, demand: Demand, *, alone: bool = False) -> bool:
        """Request the memory that a trial needs, or all of it; returns whether it is granted at once."""

    def granted(self, *, within: float) -> bool:
        """Wait until the request is granted, for at most so many seconds; returns whether it is."""

    def measured(self, peak: int) -> None:
        """Record the measured peak of the trial in bytes."""

    def whole_is_wanted(self) -> bool:
        """Whether another worker waits for the whole GPU."""

    def release(self, *, holds: int = 0) -> None:
        """Return the granted memory, or withdraw the request; `holds` bytes of data stay on the GPU."""


class Training(Protocol):
    """A fine-tune on a device."""

    @property
    def epochs_done(self) -> int:
        """Number of finished epochs."""

    @property
    def finished(self) -> bool:
        """Whether all epochs are done or early stopping ended the fine-tune."""

    @property
    def best_epoch(self) -> int:
        """Epoch with the best validation F1; 0 before the first."""

    @property
    def facts(self) -> TrainingFacts:
        """Facts about the fine-tune for the trials' table."""

    def epoch(self, *, trial: int, attempt: int) -> EpochRow:
        """Train an epoch and score it.

        Raises:
            Diverged, OutOfMemory
        """

    def train(self) -> None:
        """Train an epoch without scoring it.

        Raises:
            Diverged, OutOfMemory
        """

    def state(self) -> Arrays:
        """The state that the next epoch depends on and changes; arrays may be views of the tensors."""

    def load(self, state: Arrays) -> None:
        """Restore a state."""

    @property
    def frozen_blocks(self) -> Mapping[str, str]:
        """Frozen block -> digest of its tensors, which models of other fine-tunes may share."""

    def tensors(self, blocks: Collection[str]) -> Arrays:
        """The model, which the next epoch changes: all tensors outside of the frozen blocks, and those of `blocks`.

        Arrays may be views of the tensors.
        """

    def validation(self) -> Mapping[str, Any]:
        """The validation scores and predictions after the last epoch, for model.json."""


class Trainer(Protocol):
    """Creates fine-tunes on this worker's device with the data of the search."""

    @property
    def device(self) -> str:
        """The name of the device."""

    @property
    def can_stream(self) -> bool:
        """Whether the data can stay in host memory while the device trains."""

    def demand(self, recipe: Recipe, *, stream: bool) -> Demand:
        """The memory that a fine-tune takes of a shared GPU; for the arguments, see `prepare`."""

    def prepare(self, recipe: Recipe, *, stream: bool = False) -> Training:
        """Create a fine-tune.

        Args:
            recipe: what to train.
            stream: whether the data stays in host memory.

        Raises:
            OutOfMemory
            OSError, InputError: this node cannot provide what is needed.
        """

    def prediction_demand(self, recipe: Recipe, *, stream: bool) -> Demand:
        """The memory that predictions take of a shared GPU; for the arguments, see `prepare`."""

    def predict(self, recipe: Recipe, tensors: Arrays, *, stream: bool = False) -> NDArray[np.float32]:
        """Predict the tracks of the data with a model; returns mean logits, [tracks, genres].

        Args:
            recipe: what the model was trained with.
            tensors: of the model.
            stream: see `prepare`.

        Raises:
            OutOfMemory
            OSError, InputError: this node cannot provide what is needed.
        """

    def has_spare_memory(self) -> bool:
        """Whether there is memory to keep fine-tunes of paused trials on the device."""

    def memory(self) -> int:
        """Memory in bytes: on a GPU the peak of this fine-tune, on a CPU what the process uses now."""

    def data_bytes(self) -> int:
        """Bytes of the search's data on a GPU, which stay there between fine-tunes."""

    def release(self, *, data: bool = False) -> None:
        """Free the memory of the last fine-tune and, if `data`, that of the data on the device."""

    def card(self, recipe: Recipe, *, trial: int, epoch: int) -> dict[str, Any]:
        """The content of model.json without scores."""

    def trouble(self) -> str | None:
        """A problem of this node that the user should know; returned once, then None."""


class Watchdog(Protocol):
    """Terminates the process if an epoch hangs."""

    @property
    def waited_seconds(self) -> float:
        """Total time that this process has waited for shared resources."""

    def guard(self) -> AbstractContextManager[None]:
        """Terminate the process if the context lasts longer than the limit, excluding waits."""
