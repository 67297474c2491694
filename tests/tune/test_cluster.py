"""The Ray cluster: how many trials fit on it, which addresses are refused, and the startup barrier."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any

import pytest
import ray

from genre_core.errors import InputError
from search.errors import SearchErrorCode
from search.tune import cluster
from search.tune.actors import LONGEST_WAIT_SECONDS, StartupBarrier

GPUS, CPUS = SearchErrorCode.TRIALS_PER_GPU_INVALID, SearchErrorCode.CPUS_PER_TRIAL_TOO_MANY


def _needs(**asked: Any) -> cluster.Needs:
    usual: dict[str, Any] = {
        "cpus_per_trial": 1.0,
        "trials_per_gpu": "auto",
        "workers": None,
        "growing": False,
    }
    return cluster.Needs(**(usual | asked))


@pytest.mark.usefixtures("small_ray")
@pytest.mark.parametrize(
    ("asked", "workers"),
    [
        ({}, 2),
        ({"cpus_per_trial": 0.5}, 4),
        ({"cpus_per_trial": 1.5}, 1),
        ({"workers": 1}, 1),
        ({"workers": 9}, 2),
        ({"workers": 9, "growing": True, "trials_per_gpu": 0}, 9),
    ],
)
def test_as_many_trials_run_as_fit_on_two_cores(asked: dict[str, Any], workers: int) -> None:
    assert cluster.capacity(_needs(**asked)) == (workers, 0.0)


def _node(cores: float, gpus: float = 0.0) -> dict[str, float]:
    return {"CPU": cores, "memory": 1e9} | ({"GPU": gpus} if gpus else {})


@pytest.mark.parametrize(
    ("nodes", "asked", "expected"),
    [
        ([_node(3), _node(3)], {"cpus_per_trial": 2.0}, (2, 0.0)),
        ([_node(3), _node(0), _node(5)], {"cpus_per_trial": 2.0}, (3, 0.0)),
        ([_node(0.3)], {"cpus_per_trial": 0.1}, (3, 0.0)),
        ([_node(8, 1), _node(3, 2)], {"trials_per_gpu": 2}, (5, 0.5)),
        ([_node(16, 1), _node(16)], {"trials_per_gpu": "auto"}, (4, 0.25)),
        ([_node(16, 1), _node(16)], {"trials_per_gpu": 0}, (32, 0.0)),
        ([_node(1), _node(4, 1)], {"cpus_per_trial": 2.0, "trials_per_gpu": 3}, (2, 1 / 3)),
        ([_node(0)], {"workers": 8, "growing": True, "trials_per_gpu": 4}, (8, 0.25)),
        ([_node(0), _node(8, 1)], {"workers": 8, "growing": True}, (8, 0.25)),
    ],
)
def test_trials_are_counted_node_by_node(
    nodes: list[dict[str, float]], asked: dict[str, Any], expected: tuple[int, float]
) -> None:
    assert cluster.fit(nodes, _needs(**asked)) == expected


@pytest.mark.parametrize(
    ("nodes", "asked", "code", "named"),
    [
        ([_node(8)], {"trials_per_gpu": 4}, GPUS, ["--trials-per-gpu", "0", "4"]),
        (
            [_node(0)],
            {"workers": 8, "growing": True},
            GPUS,
            ["--trials-per-gpu", "auto", "leave out --workers"],
        ),
        ([_node(3), _node(3)], {"cpus_per_trial": 4.0}, CPUS, ["cpus_per_trial", "3", "4"]),
        ([_node(16), _node(2, 1)], {"cpus_per_trial": 4.0}, CPUS, ["cpus_per_trial", "2", "4"]),
        (
            [_node(0)],
            {"growing": True, "trials_per_gpu": 0},
            CPUS,
            ["cpus_per_trial", "0", "1", "--workers"],
        ),
    ],
)
def test_trials_that_fit_on_no_node_are_refused_with_the_way_out(
    nodes: list[dict[str, float]], asked: dict[str, Any], code: SearchErrorCode, named: list[str]
) -> None:
    with pytest.raises(InputError) as error:
        cluster.fit(nodes, _needs(**asked))
    assert error.value.code is code
    assert [words for words in named if words not in str(error.value)] == []


def test_a_machine_that_is_too_small_is_refused_before_ray_starts() -> None:
    with pytest.raises(InputError) as error:
        cluster.require_capacity(None, _needs(cpus_per_trial=10_000.0))
    assert error.value.code is CPUS
    assert "10000" in str(error.value)


@contextmanager
def _listener(answer: bytes) -> Iterator[str]:
    """The address of a server that sends this answer to its first client and nothing after it."""
    # on all interfaces, because Ray replaces 127.0.0.1 by the address by which other nodes reach this one
    with socket.create_server(("", 0)) as server, ThreadPoolExecutor(1) as threads:
        server.settimeout(20)

        asked = Event()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(answer)
                asked.wait(20)

        served = threads.submit(serve)
        yield f"127.0.0.1:{server.getsockname()[1]}"
        asked.set()
        served.result(20)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.9\r\n"])
def test_a_server_that_is_not_a_cluster_is_refused_without_output_of_ray(
    answer: bytes, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", 1.0)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with _listener(answer) as address, pytest.raises(InputError) as error:
        cluster.require_capacity(address, _needs(growing=True))
    assert error.value.code is SearchErrorCode.CLUSTER_UNREACHABLE
    assert address in str(error.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "address", ["ray://127.0.0.1:10001", "http://127.0.0.1:8265", "nowhere", "127.0.0.1:x"]
)
def test_an_address_in_another_format_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(InputError) as error:
        cluster.require_capacity(address, _needs(growing=True))
    assert error.value.code is SearchErrorCode.CLUSTER_UNREACHABLE
    assert all(words in str(error.value) for words in (address, "--address", "HOST:PORT"))


@pytest.mark.usefixtures("small_ray")
def test_the_head_of_a_cluster_is_recognized_by_its_answer() -> None:
    address = ray.get_runtime_context().gcs_address
    assert cluster.head_of(address) == address


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_workers_wait_for_all_that_are_expected() -> None:
    barrier = StartupBarrier(2, _Clock())
    barrier.arrive("one")
    assert not barrier.complete()
    barrier.arrive("one")
    assert not barrier.complete()
    barrier.arrive("two")
    assert barrier.complete()


def test_workers_that_do_not_start_are_waited_for_only_once() -> None:
    clock = _Clock()
    barrier = StartupBarrier(3, clock)
    barrier.arrive("one")
    assert not barrier.complete()
    clock.now = LONGEST_WAIT_SECONDS - 1
    assert not barrier.complete()
    clock.now = LONGEST_WAIT_SECONDS
    assert barrier.complete()
    barrier.arrive("replacement of a dead worker")
    assert barrier.complete()
