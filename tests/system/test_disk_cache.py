"""The node cache keeps within its budget and survives processes that die, are suspended or fill the disk."""

import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from filelock import FileLock, Timeout

from genre_core.system import disk_cache
from genre_core.system.disk_cache import STALE_SECONDS, NodeCache

SPAWN = multiprocessing.get_context("spawn")


def _put(cache: NodeCache, name: str, size: int, age: float) -> None:
    """Store a file of `size` bytes that was last used `age` seconds ago."""
    with cache.reserve(name, size) as partial:
        assert partial is not None
        partial.write_bytes(b"x" * size)
    path = cache.find(name)
    assert path is not None
    os.utime(path, (time.time() - age,) * 2)


@pytest.fixture
def cache(tmp_path: Path) -> NodeCache:
    """A cache of 100 bytes, of which 90 are used."""
    cache = NodeCache(tmp_path / "shared", budget_bytes=100)
    for name, age in [("oldest", 30), ("middle", 20), ("newest", 10)]:
        _put(cache, name, 30, age)
    return cache


def _names(cache: NodeCache) -> set[str]:
    return {name for name in ("oldest", "middle", "newest") if cache.find(name)}


def _has_space(cache: NodeCache, size: int, *, evict: bool = True) -> bool:
    """Whether space can be reserved; nothing is written."""
    with cache.reserve("new", size, evict=evict) as partial:
        if partial is not None:
            partial.touch()
    (cache.folder / "new").unlink(missing_ok=True)
    return partial is not None


@pytest.mark.parametrize(
    ("size", "left"),
    [(10, {"oldest", "middle", "newest"}), (11, {"middle", "newest"}), (70, {"newest"}), (100, set())],
)
def test_the_least_recently_used_files_are_evicted(size: int, left: set[str], cache: NodeCache) -> None:
    assert _has_space(cache, size)
    assert _names(cache) == left


def test_a_file_larger_than_the_budget_evicts_nothing(cache: NodeCache) -> None:
    assert not _has_space(cache, 101)
    assert _names(cache) == {"oldest", "middle", "newest"}


def test_finding_a_file_marks_it_as_used(cache: NodeCache) -> None:
    cache.find("oldest")
    assert _has_space(cache, 40)
    assert _names(cache) == {"oldest", "newest"}


def test_without_eviction_only_free_space_is_reserved(cache: NodeCache) -> None:
    assert _has_space(cache, 10, evict=False)
    assert not _has_space(cache, 11, evict=False)
    assert _names(cache) == {"oldest", "middle", "newest"}


def test_a_mapped_file_can_be_read_after_its_eviction(tmp_path: Path) -> None:
    cache = NodeCache(tmp_path, budget_bytes=10_000)
    with cache.reserve("a.npy", 1000) as partial:
        assert partial is not None
        with partial.open("wb") as file:
            np.save(file, np.arange(100))
    path = cache.find("a.npy")
    assert path is not None
    mapped = np.load(path, mmap_mode="c")
    assert _has_space(cache, 10_000)
    assert cache.find("a.npy") is None
    assert mapped.sum() == 4950


def test_an_error_while_writing_leaves_no_file(cache: NodeCache, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), cache.reserve("newer", 10) as partial:  # noqa: PT012
        assert partial is not None
        partial.write_bytes(b"half")
        raise RuntimeError
    assert cache.find("newer") is None
    assert _has_space(cache, 10, evict=False)
    assert not list((tmp_path / "shared").glob(".*.partial*"))


def test_reserved_space_is_reserved_once(cache: NodeCache) -> None:
    other = NodeCache(cache.folder, budget_bytes=100)
    with cache.reserve("first", 60) as first:
        assert first is not None
        assert not _has_space(other, 60)
        assert _has_space(other, 40)
        first.write_bytes(b"x" * 30)
        assert not _has_space(other, 60), "the bytes already written are not counted twice"
        assert _has_space(other, 40), "the bytes already written are not counted twice"


def test_free_disk_space_is_reserved_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = NodeCache(tmp_path, budget_bytes=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with cache.reserve("first", 60) as first:
        assert first is not None
        first.touch()
        assert cache.pop_error() is None
        assert not _has_space(cache, 60)
        assert str(tmp_path) in str(cache.pop_error())
        assert cache.pop_error() is None
        assert _has_space(cache, 40)


def _write_slowly(folder: Path, half_way: Event, resume: Event) -> None:
    with NodeCache(folder, budget_bytes=100).reserve("slow", 60) as partial:
        assert partial is not None
        partial.write_bytes(b"x" * 30)
        half_way.set()
        resume.wait(60)
        partial.write_bytes(b"x" * 60)


@pytest.fixture
def slow(tmp_path: Path) -> "tuple[multiprocessing.context.SpawnProcess, Event]":
    """A process that has written half of its reservation, and the event that it waits for."""
    half_way, resume = SPAWN.Event(), SPAWN.Event()
    process = SPAWN.Process(target=_write_slowly, args=(tmp_path, half_way, resume))
    process.start()
    assert half_way.wait(60)
    return process, resume


def test_a_suspended_process_keeps_its_file_and_reservation(
    slow: "tuple[multiprocessing.context.SpawnProcess, Event]", tmp_path: Path
) -> None:
    process, resume = slow
    assert process.pid
    os.kill(process.pid, signal.SIGSTOP)
    (partial,) = tmp_path.glob(".slow*.partial")
    os.utime(partial, (time.time() - 10 * STALE_SECONDS,) * 2)
    cache = NodeCache(tmp_path, budget_bytes=100)
    try:
        assert not _has_space(cache, 41)
        assert partial.exists()
    finally:
        os.kill(process.pid, signal.SIGCONT)
    resume.set()
    process.join()
    assert process.exitcode == 0
    path = cache.find("slow")
    assert path is not None
    assert path.stat().st_size == 60


def test_the_files_of_a_dead_process_are_deleted_at_once(
    slow: "tuple[multiprocessing.context.SpawnProcess, Event]", tmp_path: Path
) -> None:
    process, _ = slow
    process.kill()
    process.join()
    assert _has_space(NodeCache(tmp_path, budget_bytes=100), 100)
    assert not list(tmp_path.glob(".slow*"))


def test_an_old_partial_file_without_a_reservation_is_deleted(cache: NodeCache, tmp_path: Path) -> None:
    partials = [tmp_path / "shared" / f".{name}.1234.partial" for name in ("fresh", "stale")]
    for partial in partials:
        partial.write_bytes(b"")
    os.utime(partials[1], (time.time() - STALE_SECONDS - 1,) * 2)
    assert _has_space(cache, 1)
    assert [partial.exists() for partial in partials] == [True, False]


@pytest.mark.parametrize("held", [True, False])
def test_a_wait_for_another_process_is_announced_and_counted(held: bool, tmp_path: Path) -> None:
    """Both by the same lock: it is released when this process has said that it waits."""
    other, waits = FileLock(tmp_path / ".features.lock"), 0

    @contextmanager
    def waiting() -> Iterator[None]:
        nonlocal waits
        waits += 1
        time.sleep(0.2)
        other.release()
        yield

    cache = NodeCache(tmp_path, budget_bytes=100, waiting=waiting)
    if held:
        other.acquire()
    with cache.lock("features"):
        assert waits == held
    assert (cache.waited_seconds >= 0.2) == held
    assert (cache.waited_seconds == 0.0) != held


def test_the_wait_for_an_idle_process_ends(
    cache: NodeCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_cache, "IDLE_SECONDS", 0.1)
    with (
        FileLock(tmp_path / "shared" / ".features.lock"),
        pytest.raises(Timeout),
        cache.lock("features"),
    ):
        pass
    assert cache.waited_seconds >= 0.1
