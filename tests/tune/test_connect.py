"""The Ray to run on: how many trials it has room for, and that it can be told to stop."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any

import pytest
import ray

from genre_core.errors import InputError
from search.tune import connect
from search.tune.barrier import LONGEST_WAIT_SECONDS, StartupBarrier


def _needs(**asked: Any) -> connect.Needs:
    usual: dict[str, Any] = {
        "cpus_per_trial": 1.0,
        "trials_per_gpu": "auto",
        "workers": None,
        "growing": False,
    }
    return connect.Needs(**(usual | asked))


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
def test_as_many_trials_run_as_two_cores_hold(asked: dict[str, Any], workers: int) -> None:
    assert connect.room(_needs(**asked)) == (workers, 0.0)


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
    assert connect.fit(nodes, _needs(**asked)) == expected


@pytest.mark.parametrize(
    ("nodes", "asked", "words"),
    [
        ([_node(8)], {"trials_per_gpu": 4}, r"--trials-per-gpu must be 0 .* got 4"),
        (
            [_node(0)],
            {"workers": 8, "growing": True},
            r"--trials-per-gpu must be .* got auto; .*leave out --workers",
        ),
        ([_node(3), _node(3)], {"cpus_per_trial": 4.0}, r"--cpus-per-trial must be at most 3.* got 4"),
        ([_node(16), _node(2, 1)], {"cpus_per_trial": 4.0}, r"--cpus-per-trial must be at most 2.* got 4"),
        (
            [_node(0)],
            {"growing": True, "trials_per_gpu": 0},
            r"--cpus-per-trial must be at most 0.*--workers",
        ),
    ],
)
def test_what_no_node_can_hold_is_refused_with_the_way_out(
    nodes: list[dict[str, float]], asked: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        connect.fit(nodes, _needs(**asked))


def test_a_machine_too_small_is_known_before_ray_is_started() -> None:
    with pytest.raises(InputError, match=r"--cpus-per-trial must be at most .* got 10000"):
        connect.require_room(None, _needs(cpus_per_trial=10_000.0))


@contextmanager
def _listener(answer: bytes) -> Iterator[str]:
    """The address of a server that answers so to whoever connects, and is silent then."""
    # on all interfaces, for Ray takes 127.0.0.1 to mean the address by which other nodes reach this one
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
def test_what_listens_but_is_no_cluster_is_refused_without_a_word_of_rays(
    answer: bytes, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(connect, "ANSWER_SECONDS", 1.0)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with _listener(answer) as address, pytest.raises(InputError, match=f"--address .* got {address}: "):
        connect.require_room(address, _needs(growing=True))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "address", ["ray://127.0.0.1:10001", "http://127.0.0.1:8265", "nowhere", "127.0.0.1:x"]
)
def test_an_address_of_another_kind_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(InputError, match=f"--address must be .*HOST:PORT.* got {address}: "):
        connect.require_room(address, _needs(growing=True))


@pytest.mark.usefixtures("small_ray")
def test_the_head_of_a_cluster_is_known_by_its_answer() -> None:
    """Which uses what Ray does not document: where the head is, and the client of its own that asks once."""
    address = ray.get_runtime_context().gcs_address
    assert connect.head_of(address) == address


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


def test_workers_that_do_not_come_are_waited_for_once() -> None:
    clock = _Clock()
    barrier = StartupBarrier(3, clock)
    barrier.arrive("one")
    assert not barrier.complete()
    clock.now = LONGEST_WAIT_SECONDS - 1
    assert not barrier.complete()
    clock.now = LONGEST_WAIT_SECONDS
    assert barrier.complete()
    barrier.arrive("in the place of one that died")
    assert barrier.complete()
