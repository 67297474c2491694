"""Decoding and spectrograms on all nodes of a Ray cluster that can read the audio."""

# Plain Ray tasks rather than Ray Data: groups of files are independent, the driver writes the results part by part,
# and a group must run on a node that can read its files, which Ray Data's scheduler does not know.

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from genre_core.audio.bad_audio import BadAudio
from genre_core.audio.decode import hash_of
from genre_core.audio.mel import FrontEnd
from genre_core.audio.on_disk import on_disk
from genre_core.corpus.mel_parts import (
    AudioFile,
    Transform,
    Transformed,
    in_groups,
    in_threads,
    transform_group,
)
from genre_core.errors import InputError
from genre_core.system.addresses import is_address
from search.config.schema import SearchConfig
from search.errors import SearchErrorCode
from search.tune.cluster import connected
from search.tune.ray_internals import alive_nodes, local_cpus

SAMPLE_FILES = 3
"""Number of files that a node must read with the same content as the driver before it gets work."""
LOOK_SECONDS = 2.0
"""Interval at which new nodes are detected."""
PROBE_SECONDS = 60.0
"""Time limit for the first nodes to read the sample, including the start of a process."""
FORECAST_SECONDS = 20.0
"""Time after which the remaining time is estimated and reported, once."""

Group = Sequence[AudioFile]
Sample = Sequence[tuple[str, str]]
"""Locations of files, each with the hash of its file."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node that can read the audio."""

    name: str
    slots: int
    """Number of groups that it transforms at a time."""


class WorkerLost(Exception):
    """The process or the node of a task died."""


class Tasks(Protocol):
    """The cluster as `spread` sees it: Ray, or a fake in tests."""

    def nodes(self) -> Sequence[Node]:
        """The nodes that can read the audio now."""

    def start(self, node: Node, group: Group) -> Any:
        """Start to transform a group on a node; returns the task."""

    def wait(self, tasks: Sequence[Any]) -> Sequence[Any]:
        """Wait briefly for tasks; returns those that have ended."""

    def result(self, task: Any) -> Sequence[Transformed]:
        """The result of a task; raises WorkerLost."""

    def doubt(self, name: str) -> None:
        """Suspend a node that lost a task, because it may be dead, until it has answered again."""


@dataclass(kw_only=True)
class Tally:
    """Number of files by node, and of repeated ones."""

    done_by: Counter[str] = field(default_factory=Counter)
    """Node -> number of files."""
    repeated: int = 0
    """Number of files that were started again."""


def spread(
    groups: Iterator[Group], tasks: Tasks, *, retries: int, tally: Tally
) -> Iterator[Sequence[Transformed]]:
    """Transform groups on all nodes; a group is repeated if its node or process dies.

    Args:
        groups: of files.
        tasks: of the cluster.
        retries: maximum number of repetitions of a group, on another node if possible.
        tally: updated with every result.

    Raises:
        InputError: a group's worker died in all attempts.
    """
    lost: deque[tuple[Group, int]] = deque()
    running: dict[Any, tuple[Group, int, str]] = {}
    following = next(groups, None)
    while following or lost or running:
        busy = Counter(name for _, _, name in running.values())
        for node in tasks.nodes():
            for _ in range(node.slots - busy[node.name]):
                if lost:
                    group, tries = lost.popleft()
                elif following:
                    (group, tries), following = (following, 0), next(groups, None)
                else:
                    break
                running[tasks.start(node, group)] = group, tries, node.name
        for task in tasks.wait(list(running)):
            group, tries, name = running.pop(task)
            try:
                result = tasks.result(task)
            except WorkerLost as error:
                tasks.doubt(name)
                if tries == retries:
                    raise _gave_up(group, tries + 1) from error
                lost.append((group, tries + 1))
                tally.repeated += len(group)
                continue
            tally.done_by[name] += len(group)
            yield result


def _gave_up(group: Group, times: int) -> InputError:
    return InputError(
        f"audio must be decodable, but the process that decoded {group[0].location} and {len(group) - 1} other files "
        f"died {times} times; find the file with: genre-search data check, or give the nodes more memory",
        code=SearchErrorCode.DECODER_DIED,
    )


def transform_of(config: SearchConfig, say: Callable[[str], None]) -> Transform | None:
    """The function with which a search decodes its audio on its cluster; None to use threads of this process."""
    return None if config.address is None else ClusterTransform(config.address, config.retries, say)


@dataclass(frozen=True)
class ClusterTransform:
    """Transforms files on the cluster at an address; connected only while it has work."""

    address: str
    retries: int
    say: Callable[[str], None]

    def __call__(self, files: Sequence[AudioFile], front_end: FrontEnd) -> Iterator[Sequence[Transformed]]:
        """See `genre_core.corpus.mel_parts.Transform`."""
        with connected(self.address, folder=Path()):
            tasks, tally = RayTasks(_sample(files), front_end), Tally()
            if not tasks.nodes():  # credentials for a storage may be set for this process only
                self.say(
                    f"Decoding {len(files)} files in this process, since no node of the cluster can read them"
                )
                yield from in_threads(files, front_end)
                return
            self.say(_announcement(tasks.nodes(), len(files)))
            began, forecast = time.monotonic(), False
            for group in spread(in_groups(files), tasks, retries=self.retries, tally=tally):
                yield group
                seconds, done = time.monotonic() - began, tally.done_by.total()
                if not forecast and seconds > FORECAST_SECONDS and done < len(files):
                    forecast = True
                    left = seconds * (len(files) - done) / done
                    about = f"{left:.0f} s" if left < 90 else f"{left / 60:.0f} min"
                    self.say(f"{len(files) - done} files left, about {about}")
            self.say(_summary(tally))


def _announcement(nodes: Sequence[Node], files: int) -> str:
    cores = sum(node.slots for node in nodes)
    where = f"{len(nodes)} nodes" if len(nodes) > 1 else "this node alone, since no other node can read them"
    return f"Decoding {files} files on {cores} cores of {where}"


def _summary(tally: Tally) -> str:
    nodes = len(tally.done_by)
    counts = ", ".join(map(str, tally.done_by.values()))
    again = f"; {tally.repeated} were repeated because a node or process had died" if tally.repeated else ""
    return f"Decoded on {nodes} {'node' if nodes == 1 else 'nodes'}: {counts} files{again}"


def _sample(files: Sequence[AudioFile]) -> Sample:
    """Readable files from the beginning, the middle and the end of the list, with their hashes."""
    found = []
    for number in range(SAMPLE_FILES):
        file = files[number * (len(files) - 1) // max(1, SAMPLE_FILES - 1)].location
        with suppress(BadAudio):
            found.append((file, _hash(file)))
    return found


@dataclass
class RayTasks:
    """The connected Ray cluster; see `Tasks`."""

    sample: Sample
    front_end: FrontEnd
    _looking: dict[str, Any] = field(default_factory=dict, init=False)
    """Node -> its pending check of the sample."""
    _sees: dict[str, bool] = field(default_factory=dict, init=False)
    _looked: float | None = field(default=None, init=False)
    _nodes: Sequence[Node] = field(default=(), init=False)

    def nodes(self) -> Sequence[Node]:
        """The nodes that can read the sample; the first call waits until all have checked it."""
        first = self._looked is None
        if self._looked is None or time.monotonic() - self._looked > LOOK_SECONDS:
            cores = _cores()
            if not any(is_address(location) for location, _ in self.sample):
                self._sees[ray.get_runtime_context().get_node_id()] = True
            for name in cores.keys() - self._sees.keys() - self._looking.keys():
                self._looking[name] = _on(name, _sees_all).remote(self.sample)
            self._collect(timeout=PROBE_SECONDS if first else 0.0)
            seeing = [name for name in cores if self._sees.get(name)]
            self._nodes = [Node(name=name, slots=cores[name]) for name in seeing if cores[name]]
            self._looked = time.monotonic()
        return self._nodes

    def start(self, node: Node, group: Group) -> Any:
        """Start a task on a node."""
        # the driver's node may offer no cores to Ray
        reserved = _on(node.name, transform_group, num_cpus=1 if _offers_cores(node.name) else 0)
        return reserved.remote(group, self.front_end)

    def wait(self, tasks: Sequence[Any]) -> Sequence[Any]:
        """Wait for a task, or until it is time to look for new nodes."""
        if not tasks:  # no node can read the files now
            time.sleep(LOOK_SECONDS)
            return []
        ended, _ = ray.wait(list(tasks), num_returns=1, timeout=LOOK_SECONDS)
        return list(ended)

    def result(self, task: Any) -> Sequence[Transformed]:
        """The result of the task."""
        try:
            result: Sequence[Transformed] = ray.get(task)
        except RayTaskError as error:
            raise error.cause from error
        except RayError as error:
            raise WorkerLost from error
        return result

    def doubt(self, name: str) -> None:
        """Check the sample on a node again; the driver's own node needs no check, except for files at addresses."""
        self._sees.pop(name, None)
        self._nodes = [node for node in self._nodes if node.name != name]
        self._looked = 0.0

    def _collect(self, *, timeout: float) -> None:
        """Collect the nodes' checks of the sample; a node that died meanwhile is dropped."""
        ended, _ = ray.wait(list(self._looking.values()), num_returns=len(self._looking), timeout=timeout)
        for name in [name for name, look in self._looking.items() if look in ended]:
            with suppress(RayError):
                self._sees[name] = ray.get(self._looking.pop(name))


def _sees_all(sample: Sample) -> bool:
    """Whether this machine has these files."""
    try:
        return all(_hash(file) == expected for file, expected in sample)
    except (BadAudio, InputError, OSError):
        return False


def _hash(location: str) -> str:
    with on_disk(location) as path:
        return hash_of(path)


def _on(name: str, task: Callable[..., Any], *, num_cpus: int = 0) -> Any:
    """A remote function on a node that fails if the node dies."""
    there = NodeAffinitySchedulingStrategy(name, soft=False)
    return _remote(task).options(num_cpus=num_cpus, max_retries=0, scheduling_strategy=there)


@cache
def _remote(task: Callable[..., Any]) -> Any:
    """A function as a Ray remote function; cached, so that its code is sent to the cluster once."""
    decorate: Any = ray.remote
    return decorate(task)


def _alive() -> dict[str, float]:
    """Node id -> cores that it offers to Ray."""
    return {node["NodeID"]: node["Resources"].get("CPU", 0.0) for node in alive_nodes()}


def _cores() -> dict[str, int]:
    """Node id -> groups at a time; the driver's node, which may offer no cores to trials, uses its own."""
    here = ray.get_runtime_context().get_node_id()
    own = {here: local_cpus()}
    return {name: int(cores or own.get(name, 0.0)) for name, cores in _alive().items()}


def _offers_cores(name: str) -> bool:
    return _alive().get(name, 0.0) >= 1
