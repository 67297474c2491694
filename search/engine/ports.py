"""What a search needs from outside, as Protocols: Ray implements them in `search.tune`, plain objects in tests."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from genre_core.recipe import Recipe
from search.engine.messages import EpochReport
from search.run.checkpoints import Unsaved
from search.run.schemas import EpochRow, TrialRow

Arrays = Mapping[str, NDArray[Any]]
"""Tensors by name, on the host."""


class Diverged(Exception):
    """The loss is not finite, or beyond any return; the message says when."""


class OutOfMemory(Exception):
    """The device has no memory left for the fine-tune."""


class RemoteError(Exception):
    """Another process failed while it served this one; `args[0]` is its error."""


class Reporter(Protocol):
    """Shows a search to the user."""

    def say(self, text: str) -> None:
        """Show a line."""

    def trial(self, row: TrialRow) -> None:
        """Show a trial whose row has changed."""


class WeightSource(Protocol):
    """Files of weights on the head."""

    def read(self, backbone: str) -> NDArray[np.uint8]:
        """The bytes of a backbone's file.

        Raises:
            RemoteError
        """


class CheckpointStore(Protocol):
    """The latest checkpoint of each running trial."""

    def send(self, report: EpochReport, arrays: Callable[[], Arrays]) -> None:
        """Store a checkpoint after this epoch, perhaps while the next one is computed; never raises.

        Args:
            report: of the epoch.
            arrays: gives the state; may be called and copied in another thread until `settle` returns.
        """

    def settle(self) -> None:
        """Return when the arrays of the checkpoint sent last have been copied and may change again."""

    def unsaved(self) -> Unsaved | None:
        """Why a checkpoint was not stored, once; None where there is nothing new."""

    def last(self, trial: int) -> tuple[Arrays, Mapping[str, Any]] | None:
        """A trial's latest checkpoint: its arrays, and its epoch's report as `EpochReport.flat`."""


class ModelStore(Protocol):
    """The models of the best trials."""

    def wants(self, trial: int, f1: float) -> bool:
        """Whether a model with this validation F1 would be among the best."""

    def offer(self, trial: int, f1: float, tensors: Arrays, card: Mapping[str, Any]) -> None:
        """Store the model if it is among the best."""


class GpuLedger(Protocol):
    """The memory of a GPU that several workers share."""

    def request(self, kind: str, *, alone: bool = False) -> bool:
        """Ask for the memory that a kind of trial needs, or for all of it; whether it is granted at once."""

    def granted(self) -> bool:
        """Whether the request has been granted by now."""

    def measured(self, kind: str, peak: int) -> None:
        """Record the bytes that a kind of trial was measured to take."""

    def release(self) -> None:
        """Give back what was granted, or withdraw the request."""


class Training(Protocol):
    """A fine-tune between two epochs, on a device."""

    @property
    def epochs_done(self) -> int:
        """How many epochs are done."""

    @property
    def finished(self) -> bool:
        """Whether the fine-tune has reached its own end."""

    @property
    def best_epoch(self) -> int:
        """The epoch of the best validation F1; 0 before the first."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """The fields of `Usage` that the fine-tune itself determines."""

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
        """All that the next epoch depends on, and changes: arrays may be views of the tensors."""

    def load(self, state: Arrays) -> None:
        """Continue from a state."""

    def tensors(self) -> Arrays:
        """The whole model, which the next epoch changes: arrays may be views of the tensors."""

    def validation(self) -> Mapping[str, Any]:
        """What model.json says of the validation part after the last epoch."""


class Trainer(Protocol):
    """Makes fine-tunes on this worker's device from the data of the search."""

    @property
    def device(self) -> str:
        """The name of the device."""

    @property
    def can_stream(self) -> bool:
        """Whether the data can stay on the host while the device trains."""

    def prepare(self, recipe: Recipe, *, stream: bool = False) -> Training:
        """A fine-tune before its first epoch.

        Args:
            recipe: what to train.
            stream: whether the data stays on the host.

        Raises:
            OutOfMemory
            OSError, InputError: this node cannot provide what is needed.
        """

    def memory(self) -> int:
        """Bytes: the peak of this fine-tune on a GPU, what the process holds now on a CPU."""

    def release(self, *, data: bool = False) -> None:
        """Give the memory of the last fine-tune back, and that of the data on the device if wanted."""

    def card(self, recipe: Recipe, *, trial: int, epoch: int) -> dict[str, Any]:
        """What model.json says of a model, without its scores."""

    def trouble(self) -> str | None:
        """What the user should know of this node, once; None where there is nothing new."""


class Watchdog(Protocol):
    """Ends the process when an epoch hangs."""

    @property
    def waited_seconds(self) -> float:
        """How long this process has waited for others so far."""

    def guard(self) -> AbstractContextManager[None]:
        """The process ends if the context lasts longer than the limit, waits not counted."""
