"""The messages between the coordinator and its workers. How they travel is the adapter's business."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from typing import Any, Self

from genre_core.recipe import Recipe
from search.run.schemas import EpochRow

# coordinator -> worker


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """A trial for a worker."""

    trial: int
    recipe: Recipe
    attempt: int = 1
    """Counts the workers that the trial was assigned to."""

    @property
    def may_have_checkpoint(self) -> bool:
        """Whether the trial has run before."""
        return self.attempt > 1


@dataclass(frozen=True)
class Wait:
    """There is no trial to assign now, but there may be one later."""


@dataclass(frozen=True)
class Finished:
    """There will be no more trials."""


class Decision(Enum):
    """What a worker does after a message."""

    CONTINUE = "continue"
    STOP = "stop"
    """The worker is free for another assignment."""


# worker -> coordinator


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a trial has used so far, and on which worker: columns of the trials' table, `total_seconds` as `seconds`."""

    trainable_parameters: int
    features: str
    """`none`, `shared` or `computed`: where the activations of the frozen blocks come from."""
    features_seconds: float
    resident: bool
    """Whether the segments are on the device that trains."""
    total_seconds: float
    """Of work; waiting is not counted."""
    memory_before_bytes: int
    peak_memory_bytes: int
    device: str
    node: str
    pid: int


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """An epoch that is done."""

    row: EpochRow
    usage: Usage
    best_epoch: int
    finished: bool
    """Whether the fine-tune has reached its own end."""
    replayed: bool = False
    """Whether it comes from a checkpoint: the epoch was computed, and perhaps reported, by an earlier worker."""

    def flat(self) -> dict[str, Any]:
        """All values by name, as checkpoints and Ray keep them."""
        own = {name: value for name, value in vars(self).items() if name not in ("row", "usage")}
        return vars(self.row) | vars(self.usage) | own

    @classmethod
    def from_flat(cls, values: Mapping[str, Any], **more: Any) -> Self:
        """The report of these values, and of more that they lack."""
        known = {**values, **more}
        return cls(
            row=EpochRow(**_of(EpochRow, known)),
            usage=Usage(**_of(Usage, known)),
            best_epoch=known["best_epoch"],
            finished=known["finished"],
            replayed=known.get("replayed", False),
        )

    def replay(self, *, attempt: int, node: str, pid: int) -> Self:
        """The same epoch, reported again by another worker."""
        return replace(
            self,
            row=replace(self.row, attempt=attempt),
            usage=replace(self.usage, node=node, pid=pid),
            replayed=True,
        )


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The fine-tune failed on its own account: it diverged, or it needs more memory than there is."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class NodeFailure:
    """The worker's node is at fault, and not the fine-tune: the trial is requeued and the worker rests."""

    node: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """The worker waits for something that it shares with others; this is neither training nor hanging."""

    reason: str


@dataclass(frozen=True)
class Resting:
    """The worker's node failed a trial, and the worker has not been given another one yet."""


Report = EpochReport | Failure | NodeFailure | Waiting | Resting


@dataclass(frozen=True, kw_only=True)
class Lost:
    """The worker of a trial died, or raised an error that is not the fine-tune's."""

    reason: str
    retryable: bool = True
    """Whether another worker may succeed."""
    preempted: bool = False
    """Whether the node was taken away on purpose; this does not count against the trial."""
    died: bool = True
    """Whether the process ended, so that a hanging epoch may be the cause."""


@dataclass(frozen=True, kw_only=True)
class Notice:
    """A line for the user, shown once for each key."""

    text: str
    key: str = field(default="")


def _of(kind: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a dataclass's fields; lists, which JSON makes of tuples, are tuples again."""
    return {f.name: _frozen(values[f.name]) for f in fields(kind) if f.name in values}


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value
