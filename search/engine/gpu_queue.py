"""The queue for the memory of a shared GPU: which trials may use it, and which wait."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Self

from search.engine.gpu_demand import CONTEXT_BYTES, Demand

MOST_PASSES = 4
"""Maximum number of trials that may pass an earlier one, which needs more memory and waits."""
FORGETTING = 0.25
"""Fraction of the difference by which a kind's peak decreases after a trial that needed less."""


class Worker(NamedTuple):
    """A process that uses the GPU."""

    pid: int
    created: float
    """Start time, seconds since the epoch, because another process may get the same id later."""


@dataclass(kw_only=True)
class Request:
    """A trial that has memory or waits for it."""

    by: Worker
    kind: str
    bytes: int
    granted: bool = False
    passed: int = 0
    """Number of later requests that were granted first."""
    peak: int = 0
    """Measured peak of the trial, bytes."""


@dataclass(kw_only=True)
class GpuQueue:
    """Requests in order, and the peaks of kinds of trials in bytes, including those of their process.

    A trial requests the measured peak of its kind, or an estimate if there is none. Later requests that fit may pass an
    earlier one that does not fit, but only MOST_PASSES times. If no other request is granted, the first one is,
    whatever its size.
    """

    capacity: int
    """Bytes that all trials together may use."""
    context: int = CONTEXT_BYTES
    """Bytes that a process uses even without a trial."""
    requests: list[Request] = field(default_factory=list)
    peaks: dict[str, int] = field(default_factory=dict)
    workers: dict[Worker, int] = field(default_factory=dict)
    """Process that uses the GPU, with or without a request -> bytes of data that it holds there without one."""

    def request(self, by: Worker, demand: Demand, *, alone: bool) -> bool:
        """Request memory for a trial, or the whole GPU, in place of an earlier request; whether it is granted."""
        self.release(by)
        self.workers[by] = 0
        expected = self.peaks.get(demand.kind, demand.estimate)
        size = self.capacity if alone or expected is None else min(expected, self.capacity)
        self.requests.append(Request(by=by, kind=demand.kind, bytes=size))
        return self.is_granted(by)

    def is_granted(self, by: Worker) -> bool:
        """Grant what fits; returns whether the request of this worker, which must have one, is granted."""
        self._grant()
        return self._of(by).granted

    def restore(self, by: Worker, demand: Demand, *, alone: bool, granted: bool) -> None:
        """Add the request of a worker again if it was lost; a granted one stays granted."""
        if all(request.by != by for request in self.requests):
            self.request(by, demand, alone=alone)
            self._of(by).granted |= granted

    def measured(self, by: Worker, peak: int) -> None:
        """Record the measured bytes of a worker's trial; the peak of its kind replaces the size of its request."""
        own = self._of(by)
        own.peak = max(own.peak, peak)
        self.peaks[own.kind] = max(own.peak, self.peaks.get(own.kind, 0))
        own.bytes = min(self.peaks[own.kind], self.capacity)

    @property
    def whole_is_wanted(self) -> bool:
        """Whether a worker waits for the whole GPU."""
        return any(not request.granted and request.bytes >= self.capacity for request in self.requests)

    def release(self, by: Worker, *, holds: int = 0) -> None:
        """Drop the request of a worker, if any; its kind's peak decreases towards that of the trial.

        Args:
            by: the worker.
            holds: bytes of data that it keeps on the GPU for its next trial.
        """
        self.workers[by] = holds
        for own in [request for request in self.requests if request.by == by]:
            self.requests.remove(own)
            if own.peak and (known := self.peaks.get(own.kind)) is not None:
                self.peaks[own.kind] = max(own.peak, round(known + FORGETTING * (own.peak - known)))

    def keep_alive(self, is_alive: Callable[[Worker], bool]) -> None:
        """Drop the requests of dead processes, whose memory is free."""
        self.workers = {worker: holds for worker, holds in self.workers.items() if is_alive(worker)}
        self.requests = [request for request in self.requests if request.by in self.workers]

    def _of(self, by: Worker) -> Request:
        return next(request for request in self.requests if request.by == by)

    def _grant(self) -> None:
        """Grant requests in order, as far as they fit."""
        used = sum(request.bytes for request in self.requests if request.granted)
        holders = {request.by for request in self.requests if request.granted}
        waiting: list[Request] = []
        for request in [request for request in self.requests if not request.granted]:
            if any(earlier.passed >= MOST_PASSES for earlier in waiting):
                return
            others = self.workers.keys() - holders - {request.by}
            idle = sum(self.context + self.workers[worker] for worker in others)
            if holders and used + request.bytes + idle > self.capacity:
                waiting.append(request)
                continue
            request.granted = True
            used += request.bytes
            holders.add(request.by)
            for earlier in waiting:
                earlier.passed += 1

    def to_json(self) -> str:
        """What another process needs to continue; the capacity is not part of it."""
        asked = [asdict(request) for request in self.requests]
        workers = sorted([*worker, holds] for worker, holds in self.workers.items())
        return json.dumps({"peaks": self.peaks, "asked": asked, "workers": workers})

    @classmethod
    def of_json(cls, text: str, *, capacity: int, context: int = CONTEXT_BYTES) -> Self:
        """The queue that `to_json` described; an empty one if the text is damaged or of another version."""
        try:
            content = json.loads(text)
            peaks = {str(kind): int(peak) for kind, peak in content["peaks"].items()}
            requests = [_request(entry) for entry in content["asked"]]
            workers = {_worker((pid, since)): int(holds) for pid, since, holds in content["workers"]}
        except (ValueError, TypeError, KeyError, AttributeError):
            return cls(capacity=capacity, context=context)
        return cls(capacity=capacity, context=context, requests=requests, peaks=peaks, workers=workers)


def _request(entry: Mapping[str, Any]) -> Request:
    return Request(
        by=_worker(entry["by"]),
        kind=str(entry["kind"]),
        bytes=int(entry["bytes"]),
        granted=bool(entry["granted"]),
        passed=int(entry["passed"]),
        peak=int(entry["peak"]),
    )


def _worker(entry: Iterable[Any]) -> Worker:
    pid, created = entry
    return Worker(int(pid), float(created))
