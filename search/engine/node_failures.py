"""Decisions after a failure of a node: which worker gets the trial, and how long the failed one rests."""

import math
from collections import Counter
from collections.abc import Callable
from enum import Enum

REST_SECONDS = 60.0
"""Rest of a worker after its node's first failure; doubled after each further failure without an epoch in between."""
MAX_REST_SECONDS = 600.0
IDLE_SECONDS = 5.0
"""A rest ends early if no trial has run for so long: the search may be over, or no other worker is left."""


class Verdict(Enum):
    """What happens to a trial and its worker after a failure of the node."""

    ELSEWHERE = "elsewhere"
    """The trial is requeued for another worker, and this one rests."""
    RETRY = "retry"
    """The trial is requeued, and this worker takes it at once because there is no other."""
    FAIL = "fail"
    """The trial fails: all nodes failed it, and its retries are used up."""


class NodeFailures:
    """Counts the failures of nodes, so that a bad node does not fail the trials of a search.

    A worker whose node failed keeps its slot without a trial for a while, so that its trial is assigned to another
    worker.
    """

    def __init__(self, *, workers: int, retries: int, clock: Callable[[], float]) -> None:
        """Args: number of workers; retries of a trial once all nodes have failed it; monotonic clock in seconds."""
        self._workers = workers
        self._retries = retries
        self._clock = clock
        self._nodes: set[str] = set()
        self._failed_on: dict[int, set[str]] = {}
        self._counted: Counter[int] = Counter()
        self._in_a_row: Counter[str] = Counter()
        self._running: set[str] = set()
        self._silent: set[str] = set()
        self._resting: dict[str, float] = {}
        self._idle_since = -math.inf

    def trial_started(self, worker: str) -> None:
        """Record that a trial was assigned to a worker."""
        self._running.add(worker)
        self._silent.add(worker)

    def trial_ended(self, worker: str) -> None:
        """Record that the trial of a worker has ended or was requeued."""
        self._running.discard(worker)
        self._silent.discard(worker)
        if not self._running:
            self._idle_since = self._clock()

    def epoch_done(self, worker: str, node: str) -> None:
        """Record that a worker has finished an epoch on its node."""
        self._silent.discard(worker)
        self._nodes.add(node)
        del self._in_a_row[node]

    def failed(self, worker: str, node: str, number: int) -> Verdict:
        """Record that a node failed during a trial, and decide what happens next."""
        self.trial_ended(worker)
        self._nodes.add(node)
        self._in_a_row[node] += 1
        on = self._failed_on.setdefault(number, set())
        on.add(node)
        last_worker = len(self._resting) + 1 >= self._workers
        nowhere_else = not (self._nodes - on or self._silent)  # a silent worker may be on another node
        if last_worker or nowhere_else:
            self._counted[number] += 1
        if self._counted[number] > self._retries:
            return Verdict.FAIL
        if last_worker:
            return Verdict.RETRY
        rest = min(MAX_REST_SECONDS, REST_SECONDS * 2 ** (self._in_a_row[node] - 1))
        self._resting[worker] = self._clock() + rest
        return Verdict.ELSEWHERE

    def is_resting(self, worker: str) -> bool:
        """Whether a worker is resting."""
        return worker in self._resting

    @property
    def resting(self) -> frozenset[str]:
        """Workers that are resting."""
        return frozenset(self._resting)

    def end_rest(self, worker: str) -> bool:
        """End the rest of a resting worker if it has lasted long enough; returns whether it ended."""
        now = self._clock()
        idle = not self._running and now - self._idle_since > IDLE_SECONDS
        if now < self._resting[worker] and not idle:
            return False
        self.died(worker)
        return True

    def died(self, worker: str) -> None:
        """Record that a resting worker has died."""
        del self._resting[worker]
