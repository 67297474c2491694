"""Plain objects in place of a worker's surroundings: an analytic fine-tune, stores without processes, a clock."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genre_core.models.artifact import block_digest
from genre_core.recipe import Recipe
from search.engine.gpu_demand import Demand, kind_of
from search.engine.messages import EpochReport, TrainingFacts
from search.engine.ports import Arrays, Diverged, OutOfMemory
from search.run.checkpoints import CheckpointStore, Unsaved
from search.run.schemas import EpochRow

GENRES = 2
DATA_BYTES = 1000
"""Of the data that an analytic trainer has on its device."""
FROZEN = {"frozen.weight": np.arange(3, dtype=np.float32)}
"""The tensors of a frozen block."""


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let seconds pass."""
        self.now += seconds


class PatientWatchdog:
    """Never ends the process; the seconds waited are set by the test."""

    def __init__(self) -> None:
        self.waited_seconds = 0.0
        self.guarding = False

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Note that work is guarded."""
        self.guarding = True
        try:
            yield
        finally:
            self.guarding = False


def analytic_f1(recipe: Recipe, epoch: int) -> float:
    """A validation F1 that rises with the epochs towards a value that depends on the recipe."""
    limit = 0.9 - 0.05 * abs(math.log10(recipe.learning_rate) + 2) - 0.02 * recipe.frozen_blocks
    return round(limit * (1 - 0.5**epoch) + 0.001 * (recipe.seed % 7), 6)


class AnalyticTraining:
    """A fine-tune whose scores are known beforehand."""

    def __init__(self, trainer: "AnalyticTrainer", recipe: Recipe) -> None:
        self._trainer = trainer
        self._recipe = recipe
        self.epochs_done = 0
        self.best_epoch = 0
        self._best = -1.0
        self.facts = TrainingFacts(
            trainable_parameters=10, features="none", features_seconds=0.0, resident=True
        )

    @property
    def finished(self) -> bool:
        """Whether the epochs are used up."""
        return self.epochs_done >= self._recipe.epochs

    def epoch(self, *, trial: int, attempt: int) -> EpochRow:
        """The next epoch's known scores."""
        self.train()
        f1 = analytic_f1(self._recipe, self.epochs_done)
        if f1 > self._best:
            self._best, self.best_epoch = f1, self.epochs_done
        self._trainer.computed.append((trial, self.epochs_done))
        return EpochRow(
            trial=trial,
            attempt=attempt,
            epoch=self.epochs_done,
            train_loss=1.0,
            val_loss=1.0 - f1,
            val_accuracy=f1,
            val_precision=f1,
            val_recall=f1,
            val_f1=f1,
            f1_per_genre=(f1,) * GENRES,
            confusion=((1, 0), (0, 1)),
            learning_rate=self._recipe.learning_rate,
            seconds=1.0,
            arithmetic_seconds=0.5,
            samples_per_second=10.0,
        )

    def train(self) -> None:
        """The next epoch, unless it has been told to fail."""
        self._trainer.fail_if_told()
        self.epochs_done += 1

    def state(self) -> Arrays:
        """Everything that the next epoch depends on."""
        return {"progress": np.array([self.epochs_done, self._best, self.best_epoch])}

    def load(self, state: Arrays) -> None:
        """Continue from a state."""
        done, self._best, best = state["progress"].tolist()
        self.epochs_done, self.best_epoch = int(done), int(best)

    @property
    def frozen_blocks(self) -> Mapping[str, str]:
        """One block, which all fine-tunes share."""
        return {"frozen": block_digest(FROZEN)}

    def tensors(self, blocks: Collection[str]) -> Arrays:
        """A model that tells how long it was trained."""
        return {"weight": np.full(1, self.epochs_done, np.float32)} | (FROZEN if "frozen" in blocks else {})

    def validation(self) -> Mapping[str, Any]:
        """What model.json says of the validation part."""
        return {"validation": {"f1": self._best}}


class AnalyticTrainer:
    """Makes analytic fine-tunes, and fails as often and in the way that the test asks for."""

    device = "cpu"

    def __init__(self, *, can_stream: bool = False, clock: Clock | None = None) -> None:
        self.can_stream = can_stream
        self._clock = clock
        self.failures: list[Exception] = []
        """Raised one after the other by the next epochs."""
        self.unprepared: list[Exception] = []
        """Raised one after the other where a fine-tune is to be prepared."""
        self.computed: list[tuple[int, int]] = []
        """Trial and epoch of all that was computed and scored."""
        self.prepared: list[bool] = []
        """For each fine-tune, whether its data was streamed."""
        self.held = 0
        """Bytes of data on the device."""
        self.released: list[bool] = []
        """For each release, whether the data went too."""
        self.spares: Callable[[], bool] = lambda: True
        """Whether there is memory for paused trials."""

    def demand(self, recipe: Recipe, *, stream: bool) -> Demand:
        """A kind for each recipe and place of the data."""
        return Demand(kind=f"{kind_of(recipe)}/{stream}", estimate=50)

    def prepare(self, recipe: Recipe, *, stream: bool = False) -> AnalyticTraining:
        """A fine-tune before its first epoch."""
        if self.unprepared:
            raise self.unprepared.pop(0)
        self.prepared.append(stream)
        self.held = 0 if stream else DATA_BYTES
        return AnalyticTraining(self, recipe)

    def prediction_demand(self, recipe: Recipe, *, stream: bool) -> Demand:
        """A kind of its own for each place of the data."""
        return Demand(kind=f"predict/{stream}", estimate=20)

    def predict(self, recipe: Recipe, tensors: Arrays, *, stream: bool = False) -> NDArray[np.float32]:
        """The tensor as logits, unless it has been told to fail."""
        self.prepared.append(stream)
        self.held = 0 if stream else DATA_BYTES
        self.fail_if_told()
        return tensors["weight"].reshape(1, -1)

    def fail_if_told(self) -> None:
        """Raise the next failure; an epoch takes a second."""
        if self._clock:
            self._clock.sleep(1.0)
        if self.failures:
            raise self.failures.pop(0)

    def has_spare_memory(self) -> bool:
        """What the test says."""
        return self.spares()

    def memory(self) -> int:
        """Always the same."""
        return 100

    def data_bytes(self) -> int:
        """What the last fine-tune left there."""
        return self.held

    def release(self, *, data: bool = False) -> None:
        """Remember that memory was given back."""
        self.released.append(data)
        self.held = 0 if data else self.held

    def card(self, recipe: Recipe, *, trial: int, epoch: int) -> dict[str, Any]:
        """The part of a card that stores read."""
        return {"trial": trial, "epoch": epoch}

    def trouble(self) -> str | None:
        """Never any."""
        return None


class LocalCheckpoints:
    """A run's checkpoint store in this process; a checkpoint is stored when `settle` is called."""

    def __init__(self, store: CheckpointStore) -> None:
        self._store = store
        self._waiting: Callable[[], Unsaved | None] | None = None
        self._unsaved: Unsaved | None = None

    @classmethod
    def in_folder(cls, folder: Path, budget_bytes: int = 10**9) -> "LocalCheckpoints":
        """A store in a folder that is made ready."""
        return cls(CheckpointStore(folder, budget_bytes))

    def send(self, report: EpochReport, arrays: Callable[[], Arrays]) -> None:
        """Copy the state now, and store it."""
        state, trial, epoch = arrays(), report.row.trial, report.row.epoch
        self._unsaved = self._store.put(trial, epoch, state, report.flat()) or self._unsaved

    def settle(self) -> None:
        """Nothing is on its way."""

    def unsaved(self) -> Unsaved | None:
        """Why a checkpoint was not stored, once."""
        unsaved, self._unsaved = self._unsaved, None
        return unsaved

    def last(self, trial: int) -> tuple[Arrays, EpochReport] | None:
        """A trial's latest checkpoint."""
        kept = self._store.last(trial)
        return kept and (kept[0], EpochReport.of_checkpoint(kept[1], trial=trial))


class Ledger:
    """A GPU's memory that is granted when the test says so."""

    def __init__(self, *, grants: bool = True) -> None:
        self.grants = grants
        self.requests: list[tuple[str, bool]] = []
        self.measurements: list[int] = []
        self.whole = False
        """Whether another worker waits for the whole GPU."""
        self.held = 0
        self.released = 0

    def request(self, demand: Demand, *, alone: bool = False) -> bool:
        """Remember the request."""
        self.requests.append((demand.kind, alone))
        return self.grants

    def granted(self, *, within: float) -> bool:
        """What the test says."""
        return self.grants

    def measured(self, peak: int) -> None:
        """Remember the measurement."""
        self.measurements.append(peak)

    def whole_is_wanted(self) -> bool:
        """What the test says."""
        return self.whole

    def release(self, *, holds: int = 0) -> None:
        """Count, and remember what stays."""
        self.released += 1
        self.held = holds


OUT_OF_MEMORY = OutOfMemory("OutOfMemoryError: CUDA out of memory")
DIVERGED = Diverged("Diverged: diverged in epoch 1: training loss nan")
