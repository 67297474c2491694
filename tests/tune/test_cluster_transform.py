"""Decoding on the nodes of a cluster: every group once, on all nodes that see the files, whatever dies."""

from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from refusals import refused

from genre_core.corpus.audit import Finding
from genre_core.corpus.mel_parts import AudioFile, Transformed
from search.errors import SearchErrorCode
from search.tune.cluster_transform import Group, Node, Tally, WorkerLost, spread

GROUPS = [[AudioFile(location=f"{number}.wav")] for number in range(12)]


class Machines:
    """A cluster in which each task takes one wait."""

    def __init__(self, **slots: int) -> None:
        """Args: name of a node -> its slots."""
        self._slots = slots
        self._tasks: dict[int, tuple[Node, Group]] = {}
        self.transformed: Counter[str] = Counter()
        """File -> how often a node began to transform it."""
        self.waits = 0
        self.happens: dict[int, Callable[[], object]] = {}
        """Number of a wait -> what happens before it."""
        self.deadly: str | None = None
        self.doubted: list[str] = []

    def nodes(self) -> Sequence[Node]:
        return [Node(name=name, slots=count) for name, count in self._slots.items()]

    def start(self, node: Node, group: Group) -> int:
        running = sum(name.name == node.name for name, _ in self._tasks.values())
        assert running < node.slots, "a node has no more tasks than slots"
        self.transformed.update(file.location for file in group)
        number = self.transformed.total()
        self._tasks[number] = node, group
        return number

    def wait(self, tasks: Sequence[int]) -> Sequence[int]:
        assert list(tasks) == list(self._tasks)
        self.waits += 1
        self.happens.get(self.waits, bool)()
        return list(tasks)

    def result(self, task: int) -> Sequence[Transformed]:
        node, group = self._tasks.pop(task)
        if node.name not in self._slots or group[0].location == self.deadly:
            raise WorkerLost
        return [
            Transformed(location=file.location, version=(0, 0), finding=Finding(reason="bad"), mel=None)
            for file in group
        ]

    def doubt(self, name: str) -> None:
        self.doubted.append(name)

    def lose(self, name: str) -> None:
        del self._slots[name]

    def join(self, name: str, slots: int) -> None:
        self._slots[name] = slots


def _spread(machines: Machines, retries: int = 3) -> tuple[list[str], Tally]:
    tally = Tally()
    groups = spread(iter(GROUPS), machines, retries=retries, tally=tally)
    return [one.location for group in groups for one in group], tally


def _all() -> list[str]:
    return sorted(group[0].location for group in GROUPS)


def test_every_group_is_transformed_once_by_nodes_in_proportion_to_their_slots() -> None:
    machines = Machines(a=1, b=3)
    done, tally = _spread(machines)
    assert sorted(done) == _all()
    assert set(machines.transformed.values()) == {1}
    assert tally.done_by == {"a": 3, "b": 9}


def test_what_a_lost_node_was_doing_is_done_by_the_others_and_nothing_else_twice() -> None:
    machines = Machines(a=1, b=2, c=1)
    machines.happens[2] = lambda: machines.lose("b")
    done, tally = _spread(machines)
    assert sorted(done) == _all()
    assert sum(count == 2 for count in machines.transformed.values()) == 2
    assert max(machines.transformed.values()) == 2
    assert (tally.done_by["b"], tally.repeated) == (2, 2)
    assert machines.doubted == ["b", "b"]


def test_a_node_that_joins_later_gets_work() -> None:
    machines = Machines(a=1)
    machines.happens[3] = lambda: machines.join("b", 2)
    _, tally = _spread(machines)
    assert tally.done_by == {"a": 6, "b": 6}


@pytest.mark.parametrize("retries", [0, 2])
def test_a_file_that_kills_its_worker_each_time_is_named(retries: int) -> None:
    machines = Machines(a=2)
    machines.deadly = "7.wav"
    with refused(SearchErrorCode.DECODER_DIED, "7.wav", f"{retries + 1} times"):
        _spread(machines, retries)
    assert machines.transformed["7.wav"] == retries + 1
