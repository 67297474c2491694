"""Messages between the coordinator and its workers, independent of how they are sent."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Any, Self

from genre_core.recipe import Recipe
from search.run.schemas import EpochRow

# coordinator -> worker


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """A trial assigned to a worker."""

    trial: int
    recipe: Recipe
    attempt: int = 1
    """1 for the first worker of the trial, 2 for the second, ..."""
    epochs: int = 0
    """Epochs of the trial that the study has."""
    paused: tuple[int, ...] = ()
    """Numbers of the trials that may be resumed later, so that a worker may keep them in memory."""

    @property
    def may_have_checkpoint(self) -> bool:
        """Whether the trial was assigned before."""
        return self.attempt > 1


@dataclass(frozen=True)
class Wait:
    """No trial can be assigned now, but one may be later."""


@dataclass(frozen=True)
class Finished:
    """There are no more trials."""


class Decision(Enum):
    """What a worker does after its report."""

    CONTINUE = "continue"
    STOP = "stop"
    """The trial is over, and the worker can take another assignment."""
    PAUSE = "pause"
    """The trial may continue later, perhaps on another worker, and this worker can take another assignment."""


# strategy -> coordinator


@dataclass(frozen=True)
class Resume:
    """Continue a paused trial from its checkpoint."""

    trial: int


@dataclass(frozen=True)
class New:
    """Ask the study for a new trial."""


@dataclass(frozen=True)
class Nothing:
    """Train nothing until another report arrives."""


Choice = Resume | New | Nothing


# worker -> coordinator


@dataclass(frozen=True, kw_only=True)
class TrainingFacts:
    """The part of `Usage` that the fine-tune itself determines."""

    trainable_parameters: int
    features: str
    """`none`, `shared` or `computed`: the source of the frozen blocks' activations."""
    features_seconds: float
    """Time spent on computing or reading these activations."""
    resident: bool
    """Whether the segments are in the memory of the training device."""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Resources that a trial has used so far: columns of the trials' table, where `total_seconds` is `seconds`."""

    trainable_parameters: int
    features: str
    """See `TrainingFacts`."""
    features_seconds: float
    resident: bool
    total_seconds: float
    """Working time; waiting is excluded."""
    memory_before_bytes: int
    """Includes paused trials that the worker keeps in memory."""
    peak_memory_bytes: int
    device: str
    node: str
    pid: int


_NOT_IN_0_1: dict[str, Any] = {"attempt": 1, "node": "", "pid": 0}
"""Values that checkpoints of version 0.1.0 lack; a replayed report has those of the new worker."""


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """A finished epoch."""

    row: EpochRow
    usage: Usage
    best_epoch: int
    finished: bool
    """Whether the fine-tune is complete: all epochs are done, or early stopping ended it."""
    replayed: bool = False
    """Whether it is read from a checkpoint: an earlier worker computed the epoch and may have reported it."""

    def flat(self) -> dict[str, Any]:
        """Values by field name, as stored in checkpoints and sent through Ray."""
        own = {name: value for name, value in vars(self).items() if name not in ("row", "usage")}
        return vars(self.row) | vars(self.usage) | own

    @classmethod
    def from_flat(cls, values: Mapping[str, Any]) -> Self:
        """Create a report from the values that `flat` returned."""
        return cls(
            row=EpochRow(**_of(EpochRow, values)),
            usage=Usage(**_of(Usage, values)),
            best_epoch=values["best_epoch"],
            finished=values["finished"],
            replayed=values.get("replayed", False),
        )

    @classmethod
    def of_checkpoint(cls, values: Mapping[str, Any], *, trial: int) -> Self:
        """Create the report stored in a trial's checkpoint, possibly by version 0.1.0."""
        return cls.from_flat({**_NOT_IN_0_1, **values, "trial": trial})

    def replay(self, *, attempt: int, node: str, pid: int) -> Self:
        """The report of the same epoch by another worker."""
        return replace(
            self,
            row=replace(self.row, attempt=attempt),
            usage=replace(self.usage, node=node, pid=pid),
            replayed=True,
        )


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The fine-tune itself failed: it diverged, or it needs more memory than the device has."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class NodeFailure:
    """The worker's node failed, not the fine-tune: the trial is requeued and the worker rests."""

    node: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """The worker waits for a shared resource; this counts neither as training time nor as hanging."""

    reason: str


@dataclass(frozen=True)
class Resting:
    """The worker rests after a failure of its node."""


Report = EpochReport | Failure | NodeFailure | Waiting | Resting


@dataclass(frozen=True, kw_only=True)
class Lost:
    """The worker of a trial died or raised an unexpected error."""

    reason: str
    retryable: bool = True
    """Whether another worker may succeed."""
    preempted: bool = False
    """Whether the node was preempted, which does not count as a retry."""
    died: bool = True
    """Whether the process died, possibly because its epoch hung."""


@dataclass(frozen=True, kw_only=True)
class Notice:
    """A line for the user, printed once per key."""

    text: str
    key: str = ""
    """The text if empty."""


def _of(kind: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Select the values of a dataclass's fields; lists, to which JSON converts tuples, become tuples again."""
    return {f.name: _frozen(values[f.name]) for f in fields(kind) if f.name in values}


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value
