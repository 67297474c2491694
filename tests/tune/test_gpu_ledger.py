"""Trials that share a GPU never hold more of it together than there is, and none waits for the dead."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from search.tune.gpu_ledger import GpuMemoryLedger

Worker = Callable[[], tuple[GpuMemoryLedger, "subprocess.Popen[bytes]"]]


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    """Makes a worker, a real process, with its share of one GPU of 100 bytes."""
    processes: list[subprocess.Popen[bytes]] = []

    def make() -> tuple[GpuMemoryLedger, "subprocess.Popen[bytes]"]:
        processes.append(subprocess.Popen(["sleep", "600"]))
        return GpuMemoryLedger(tmp_path / "gpu.json", capacity=100, pid=processes[-1].pid), processes[-1]

    yield make
    for process in processes:
        process.kill()
        process.wait()


def test_what_was_never_measured_has_the_gpu_to_itself(worker: Worker) -> None:
    (first, _), (second, _) = worker(), worker()
    assert first.request("resnet18/3")
    assert not second.request("alexnet/0")
    first.measured("resnet18/3", 30)
    assert not second.request("alexnet/0"), "it may take all, and 30 are taken"
    assert second.request("resnet18/3")


def test_measured_trials_are_packed_as_they_fit(worker: Worker) -> None:
    workers = [worker()[0] for _ in range(4)]
    workers[0].request("a")
    workers[0].measured("a", 30)
    assert [one.request("a") for one in workers] == [True, True, True, False]
    workers[1].release()
    assert workers[3].granted()


def test_requests_are_granted_in_their_order_so_that_a_large_one_is_not_passed_for_ever(
    worker: Worker,
) -> None:
    small, large, late = (worker()[0] for _ in range(3))
    small.request("a")
    small.measured("a", 30)
    assert not large.request("b")
    assert not late.request("a"), "it would fit, but the large one was first"
    small.release()
    assert (large.granted(), late.granted()) == (True, False)
    large.measured("b", 60)
    assert late.granted()


def test_after_running_out_a_trial_waits_until_it_is_alone(worker: Worker) -> None:
    unlucky, other = worker()[0], worker()[0]
    for one in (unlucky, other):
        one.request("a")
        one.measured("a", 40)
    assert unlucky.request("a", alone=False)
    assert not unlucky.request("a", alone=True)
    assert not unlucky.granted()
    other.release()
    assert unlucky.granted()


def test_more_than_there_is_is_granted_alone(worker: Worker) -> None:
    first, _ = worker()
    first.request("a")
    first.measured("a", 500)
    assert first.request("a")


def test_the_dead_hold_nothing(worker: Worker) -> None:
    (_, process), (second, _) = (first := worker()), worker()
    first[0].request("a")
    assert not second.request("a")
    process.kill()
    process.wait()
    assert second.granted()


@pytest.mark.parametrize("content", ["", '{"peaks": {"a"'])
def test_a_ledger_that_a_power_failure_truncated_starts_anew(
    content: str, worker: Worker, tmp_path: Path
) -> None:
    (first, _), (second, _) = worker(), worker()
    (tmp_path / "gpu.json").write_text(content)
    assert first.request("a")
    assert not second.request("a")
