"""What follows when a node, and not a fine-tune, is at fault: who gets the trial, and how long the worker rests."""

import math
from collections import Counter
from collections.abc import Callable
from enum import Enum

REST_SECONDS = 60.0
"""A worker's rest after its node's first failure; twice as long after each further one without an epoch between."""
LONGEST_REST_SECONDS = 600.0
IDLE_SECONDS = 5.0
"""After which a worker need not rest on where no trial runs: the search may be over, or it is the only one left."""


class Verdict(Enum):
    """What becomes of a trial whose node failed, and of its worker."""

    ELSEWHERE = "elsewhere"
    """Another worker gets the trial, and this one rests."""
    AGAIN = "again"
    """There is no other worker that could: this one goes on at once."""
    FAIL = "fail"
    """The trial has failed so often where nothing else was left to try that it comes to nothing."""


class NodeFailures:
    """Keeps count of nodes' failures, so that they use up no trials.

    A worker whose node fails keeps its place without a trial for a while. So the trial goes to another worker, and
    a bad node does not run through a search's trials within seconds.
    """

    def __init__(self, *, workers: int, retries: int, clock: Callable[[], float]) -> None:
        """Args: workers in all, how often a trial may fail where nothing else is left, and seconds that go on."""
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

    def began(self, worker: str) -> None:
        """A worker has a trial; workers are known by the id of what Ray runs on them."""
        self._running.add(worker)
        self._silent.add(worker)

    def ended(self, worker: str) -> None:
        """A worker's trial is over."""
        self._running.discard(worker)
        self._silent.discard(worker)
        if not self._running:
            self._idle_since = self._clock()

    def works(self, worker: str, node: str) -> None:
        """A worker has computed an epoch on its node."""
        self._silent.discard(worker)
        self._nodes.add(node)
        del self._in_a_row[node]

    def failed(self, worker: str, node: str, number: int) -> Verdict:
        """A node has failed a trial."""
        self.ended(worker)
        self._nodes.add(node)
        self._in_a_row[node] += 1
        on = self._failed_on.setdefault(number, set())
        on.add(node)
        only_one = len(self._resting) + 1 >= self._workers
        nowhere_else = not (self._nodes - on or self._silent)  # who is silent may be on another node
        if only_one or nowhere_else:
            self._counted[number] += 1
        if self._counted[number] > self._retries:
            return Verdict.FAIL
        if only_one:
            return Verdict.AGAIN
        rest = min(LONGEST_REST_SECONDS, REST_SECONDS * 2 ** (self._in_a_row[node] - 1))
        self._resting[worker] = self._clock() + rest
        return Verdict.ELSEWHERE

    def rests(self, worker: str) -> bool:
        """Whether a worker rests."""
        return worker in self._resting

    def rested(self, worker: str) -> bool:
        """Whether a worker that rests has done so for long enough; it then rests no longer."""
        now = self._clock()
        idle = not self._running and now - self._idle_since > IDLE_SECONDS
        if now < self._resting[worker] and not idle:
            return False
        self.gone(worker)
        return True

    def gone(self, worker: str) -> None:
        """A worker that rests has died."""
        del self._resting[worker]
