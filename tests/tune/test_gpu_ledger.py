"""Trials that share a GPU never hold more of it together than there is, and none waits for the dead."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from search.engine.gpu_demand import Demand
from search.tune.gpu_ledger import CHECK_SECONDS, LOOK_SECONDS, GpuMemoryLedger

Worker = Callable[[], tuple[GpuMemoryLedger, "subprocess.Popen[bytes]"]]


class Clock:
    """Seconds that pass while a worker sleeps; what happens meanwhile is up to the test."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events: dict[float, Callable[[], object]] = {}

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let seconds pass, and what is due happen."""
        self.now += seconds
        for due in [due for due in self.events if due <= self.now]:
            self.events.pop(due)()


@pytest.fixture
def clock() -> Clock:
    """Of all workers of a test."""
    return Clock()


@pytest.fixture
def worker(tmp_path: Path, clock: Clock) -> Iterator[Worker]:
    """Makes a worker, a real process, with its share of one GPU of 100 bytes."""
    processes: list[subprocess.Popen[bytes]] = []

    def make() -> tuple[GpuMemoryLedger, "subprocess.Popen[bytes]"]:
        processes.append(subprocess.Popen(["sleep", "600"]))
        made = GpuMemoryLedger(
            tmp_path / "gpu.json",
            capacity=100,
            pid=processes[-1].pid,
            context=0,
            clock=clock,
            sleep=clock.sleep,
        )
        return made, processes[-1]

    yield make
    for process in processes:
        process.kill()
        process.wait()


def of(kind: str, estimate: int | None = None) -> Demand:
    """A demand for memory."""
    return Demand(kind=kind, estimate=estimate)


def test_workers_share_what_they_measured_and_the_memory(worker: Worker) -> None:
    first, second, third = (worker()[0] for _ in range(3))
    assert first.request(of("resnet18"))
    assert not second.request(of("alexnet", 40)), "the first one may take all"
    first.measured(30)
    assert second.granted()
    assert third.request(of("resnet18"))
    third.release()
    assert not third.request(of("vgg16", 50))
    second.release()
    assert third.granted()


def test_after_running_out_a_trial_waits_until_it_is_alone(worker: Worker) -> None:
    unlucky, other = worker()[0], worker()[0]
    for one in (unlucky, other):
        assert one.request(of("a", 40))
    assert not unlucky.request(of("a", 40), alone=True)
    assert not unlucky.granted()
    other.release()
    assert unlucky.granted()


def test_the_dead_hold_nothing(worker: Worker) -> None:
    (_, process), (second, _) = (first := worker()), worker()
    first[0].request(of("a"))
    assert not second.request(of("a"))
    process.kill()
    process.wait()
    assert second.granted()


def test_a_worker_that_waits_is_granted_memory_as_soon_as_there_is_some(worker: Worker, clock: Clock) -> None:
    first, second = worker()[0], worker()[0]
    first.request(of("a"))
    second.request(of("a"))
    clock.events[0.3] = first.release
    assert second.granted(within=1.0)
    assert clock.now == pytest.approx(0.3, abs=2 * LOOK_SECONDS)


def test_a_worker_that_waits_notices_within_a_second_that_another_has_died(
    worker: Worker, clock: Clock
) -> None:
    (first, process), (second, _) = worker(), worker()
    first.request(of("a"))
    second.request(of("a"))

    def die() -> None:
        process.kill()
        process.wait()

    clock.events[0.3] = die
    assert second.granted(within=5.0)
    assert clock.now <= CHECK_SECONDS + 2 * LOOK_SECONDS


def test_waiting_in_vain_ends_in_time_and_leaves_the_file_alone(
    worker: Worker, clock: Clock, tmp_path: Path
) -> None:
    first, second = worker()[0], worker()[0]
    first.request(of("a"))
    second.request(of("a"))
    before = (tmp_path / "gpu.json").stat()
    assert not second.granted(within=3.0)
    assert clock.now == pytest.approx(3.0)
    assert (tmp_path / "gpu.json").stat().st_mtime_ns == before.st_mtime_ns


DAMAGED = [b"", b"{}", b"null", b"[1]", b'{"peaks": {"a"', bytes(64), b"\xff\xfe"]


@pytest.mark.parametrize("content", DAMAGED, ids=lambda content: repr(content[:12]))
def test_a_damaged_ledger_starts_anew_without_forgetting_who_has_memory_and_who_waits(
    content: bytes, worker: Worker, tmp_path: Path
) -> None:
    first, second = worker()[0], worker()[0]
    assert first.request(of("a", 70))
    assert not second.request(of("b", 70))
    (tmp_path / "gpu.json").write_bytes(content)
    first.measured(60)
    assert not second.granted()
    (tmp_path / "gpu.json").write_bytes(content)
    assert second.granted(), "until the first one reports again, nothing is known of it"
    first.measured(60)
    second.release()
    first.release()
    assert second.request(of("a")), "its peak is known again"


def test_a_missing_ledger_starts_anew(worker: Worker, tmp_path: Path) -> None:
    own = worker()[0]
    own.request(of("a"))
    (tmp_path / "gpu.json").unlink()
    own.measured(10)
    own.release()
