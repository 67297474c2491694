"""The rows of a run's Parquet tables; their schemas derive from these classes, so a column is defined once."""

import types
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import pyarrow as pa

from genre_core.models.registry import block_names
from genre_core.recipe import SGD, Recipe

SCHEMA_VERSION = "4"
RUNNING = "RUNNING"
"""The state of a trial that has not ended; the other states are Optuna's COMPLETE, PRUNED and FAIL."""
PAUSED = "PAUSED"
"""How a RUNNING trial that no worker has is shown; the tables have no such state."""

Seconds = Annotated[float, "s"]
Nats = Annotated[float, "nats"]
Blocks = Annotated[int, "blocks"]
Epochs = Annotated[int, "epochs"]
Bytes = Annotated[int, "bytes"]
Confusion = Annotated[tuple[tuple[int, ...], ...], "tracks"]
"""Number of tracks by true and predicted genre."""


@dataclass(kw_only=True)
class TrialRow:
    """A trial in any state; `val_*` are the scores of its best epoch.

    `attempt` counts the workers that the trial was assigned to, and `pauses` how often it was paused in between.
    `decision_seconds` is the time that the driver took to choose the trial's settings and whether to train its next
    epoch. `error` is why a trial failed; `stopped` is what ended a PRUNED trial other than its pruner.
    """

    study: str
    trial: int
    state: str
    backbone: str
    weights: str
    learning_rate: float
    momentum: float
    optimizer: str
    nesterov: bool | None
    weight_decay: float | None
    head_lr_ratio: float | None
    batch_size: Annotated[int | None, "segments"]
    label_smoothing: float | None
    mixup: float | None
    masking: float | None
    augment_at: str | None
    class_weights: str | None
    head_init: str | None
    schedule: str | None
    warmup_epochs: Annotated[float | None, "epochs"]
    max_epochs: Epochs
    patience: Epochs | None
    frozen_blocks: Blocks
    n_blocks: Blocks
    trainable_parameters: int | None = None
    precision: str | None
    features: str | None = None
    resident: bool | None = None
    epochs: Epochs = 0
    best_epoch: int | None = None
    val_loss: Nats | None = None
    val_accuracy: float | None = None
    val_precision: float | None = None
    val_recall: float | None = None
    val_f1: float | None = None
    seconds: Seconds | None = None
    features_seconds: Seconds | None = None
    training_seconds: Seconds | None = None
    epoch_seconds_expected: Seconds | None = None
    decision_seconds: Seconds | None = None
    memory_before_bytes: Bytes | None = None
    peak_memory_bytes: Bytes | None = None
    node: str | None = None
    pid: int | None = None
    device: str | None = None
    seed: int | None
    attempt: int = 1
    pauses: int = 0
    repeated_epochs: Epochs = 0
    started: datetime
    finished: datetime | None = None
    error: str | None = None
    stopped: str | None = None

    def __str__(self) -> str:
        scored = (
            "no score"
            if self.val_f1 is None
            else f"validation F1 {self.val_f1:.3f} at epoch {self.best_epoch}"
        )
        return (
            f"trial {self.trial} {self.state}, {scored}: {self.backbone}, frozen {self.frozen_blocks}/{self.n_blocks}, "
            f"learning rate {self.learning_rate:.3g}, momentum {self.momentum:.3g}"
        )


@dataclass(frozen=True, kw_only=True)
class EpochRow:
    """One epoch of a trial; `f1_per_genre` and `confusion` [true][predicted] are in the order of the genres.

    An epoch whose file was damaged has only its F1, which is restored from the study.
    """

    trial: int
    attempt: int
    epoch: int
    train_loss: Nats | None = None
    val_loss: Nats | None = None
    val_accuracy: float | None = None
    val_precision: float | None = None
    val_recall: float | None = None
    val_f1: float
    f1_per_genre: tuple[float, ...] | None = None
    confusion: Confusion | None = None
    predicted: tuple[int, ...] | None = None
    """Index of the predicted genre of each validation track, in the order of the split."""
    learning_rate: float | None = None
    seconds: Seconds | None = None
    arithmetic_seconds: Seconds | None = None
    samples_per_second: Annotated[float | None, "segments/s"] = None

    def __str__(self) -> str:
        return f"trial {self.trial}, epoch {self.epoch}: validation F1 {self.val_f1:.3f}"


@dataclass(frozen=True, kw_only=True)
class FinalRow:
    """A final model: a configuration and seed, trained on train and validation; `val_f1` is the trial's in the search.

    `_low` and `_high` are the ends of a score's 95 % bootstrap interval over the test tracks.
    """

    study: str
    rank: int
    trial: int
    seed: int
    backbone: str
    frozen_blocks: Blocks
    learning_rate: float
    momentum: float
    epochs: Epochs
    val_f1: float
    test_loss: Nats
    test_accuracy: float
    test_accuracy_low: float
    test_accuracy_high: float
    test_precision: float
    test_precision_low: float
    test_precision_high: float
    test_recall: float
    test_recall_low: float
    test_recall_high: float
    test_f1: float
    test_f1_low: float
    test_f1_high: float
    f1_per_genre: tuple[float, ...]
    confusion: Confusion
    seconds: Seconds


@dataclass(frozen=True, kw_only=True)
class TestTrackRow:
    """The prediction of one final model for one test track; `probabilities` are in the order of the genres."""

    __test__ = False  # not a test class of pytest

    trial: int
    seed: int
    track_id: str
    genre: str
    predicted: str
    probabilities: tuple[float, ...]


def new_trial(study: str, number: int, recipe: Recipe, *, started: datetime) -> TrialRow:
    """Make the row of a trial that starts."""
    columns = {field.name for field in fields(TrialRow)} - {"epochs"}
    settings = {name: value for name, value in asdict(recipe).items() if name in columns}
    return TrialRow(
        study=study,
        trial=number,
        state=RUNNING,
        max_epochs=recipe.epochs,
        n_blocks=len(block_names(recipe.backbone)),
        started=started,
        **settings,
    )


def trial_of(values: Mapping[str, Any]) -> TrialRow:
    """Make a trial's row from stored values; columns of other versions are None if missing, and dropped if unknown.

    Trials without an optimizer are older than the setting and used SGD.
    """
    known: dict[str, Any] = {field.name: values.get(field.name) for field in fields(TrialRow)}
    known["optimizer"] = known["optimizer"] or SGD
    return TrialRow(**known)


def schema_of(row: type[Any]) -> pa.Schema:
    """Derive the Parquet schema from the class of the rows; the annotation of a field's type is its unit."""
    hints = get_type_hints(row, include_extras=True)
    columns = [_column(field.name, hints[field.name]) for field in fields(row)]
    return pa.schema(columns, metadata={"schema_version": SCHEMA_VERSION})


def _column(name: str, hint: Any) -> pa.Field:
    unit, kind = _parts(hint)
    return pa.field(name, _arrow(kind), metadata={"unit": unit} if unit else None)


def _parts(hint: Any) -> tuple[str | None, Any]:
    """Split a type hint into the unit and the type without None."""
    unit = None
    while True:
        if get_origin(hint) is Annotated:
            hint, unit = get_args(hint)[:2]
        elif get_origin(hint) in (Union, types.UnionType):
            (hint,) = (part for part in get_args(hint) if part is not type(None))
        else:
            return unit, hint


def _arrow(kind: Any) -> pa.DataType:
    plain = {
        str: pa.string(),
        int: pa.int64(),
        float: pa.float64(),
        bool: pa.bool_(),
        datetime: pa.timestamp("ms", tz="UTC"),
    }
    return pa.list_(_arrow(get_args(kind)[0])) if get_origin(kind) is tuple else plain[kind]


TRIALS = schema_of(TrialRow)
EPOCHS = schema_of(EpochRow)
FINISH = schema_of(FinalRow)
TEST_TRACKS = schema_of(TestTrackRow)
