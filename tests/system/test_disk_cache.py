"""What workers of a node share: found by name, within a budget, safe from those that die, sleep or fill the disk."""

import multiprocessing
import os
import shutil
import signal
import time
from multiprocessing.synchronize import Event
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from filelock import FileLock

from genre_core.system import disk_cache
from genre_core.system.disk_cache import STALE_SECONDS, NodeCache

SPAWN = multiprocessing.get_context("spawn")


def _put(cache: NodeCache, name: str, size: int, age: float) -> None:
    """A file of so many bytes that was last used so many seconds ago."""
    with cache.reserve(name, size) as partial:
        assert partial is not None
        partial.write_bytes(b"x" * size)
    path = cache.find(name)
    assert path is not None
    os.utime(path, (time.time() - age,) * 2)


@pytest.fixture
def cache(tmp_path: Path) -> NodeCache:
    """A hundred bytes, of which ninety are used."""
    cache = NodeCache(tmp_path / "shared", budget_bytes=100)
    for name, age in [("oldest", 30), ("middle", 20), ("newest", 10)]:
        _put(cache, name, 30, age)
    return cache


def _names(cache: NodeCache) -> set[str]:
    return {name for name in ("oldest", "middle", "newest") if cache.find(name)}


def _has_room(cache: NodeCache, size: int, *, drop: bool = True) -> bool:
    """Whether room is given; the file is left unwritten."""
    with cache.reserve("new", size, evict=drop) as partial:
        if partial is not None:
            partial.touch()
    (cache.folder / "new").unlink(missing_ok=True)
    return partial is not None


@pytest.mark.parametrize(
    ("size", "left"),
    [(10, {"oldest", "middle", "newest"}), (11, {"middle", "newest"}), (70, {"newest"}), (100, set())],
)
def test_room_is_made_by_dropping_what_was_used_longest_ago(
    size: int, left: set[str], cache: NodeCache
) -> None:
    assert _has_room(cache, size)
    assert _names(cache) == left


def test_what_cannot_fit_drops_nothing(cache: NodeCache) -> None:
    assert not _has_room(cache, 101)
    assert _names(cache) == {"oldest", "middle", "newest"}


def test_finding_a_file_makes_it_the_last_to_be_dropped(cache: NodeCache) -> None:
    cache.find("oldest")
    assert _has_room(cache, 40)
    assert _names(cache) == {"oldest"} | {"newest"}


def test_room_to_spare_is_given_without_dropping(cache: NodeCache) -> None:
    assert _has_room(cache, 10, drop=False)
    assert not _has_room(cache, 11, drop=False)
    assert _names(cache) == {"oldest", "middle", "newest"}


def test_a_file_that_is_mapped_outlives_its_dropping(tmp_path: Path) -> None:
    cache = NodeCache(tmp_path, budget_bytes=10_000)
    with cache.reserve("a.npy", 1000) as partial:
        assert partial is not None
        with partial.open("wb") as file:
            np.save(file, np.arange(100))
    path = cache.find("a.npy")
    assert path is not None
    mapped = np.load(path, mmap_mode="c")
    assert _has_room(cache, 10_000)
    assert cache.find("a.npy") is None
    assert mapped.sum() == 4950


def test_what_fails_half_way_leaves_nothing(cache: NodeCache, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), cache.reserve("newer", 10) as partial:  # noqa: PT012
        assert partial is not None
        partial.write_bytes(b"half")
        raise RuntimeError
    assert cache.find("newer") is None
    assert _has_room(cache, 10, drop=False)
    assert not list((tmp_path / "shared").glob(".*.partial*"))


def test_the_same_bytes_are_promised_once(cache: NodeCache) -> None:
    other = NodeCache(cache.folder, budget_bytes=100)
    with cache.reserve("first", 60) as first:
        assert first is not None
        assert not _has_room(other, 60)
        assert _has_room(other, 40)
        first.write_bytes(b"x" * 30)
        assert not _has_room(other, 60), "what is written of the promised bytes is not counted twice"
        assert _has_room(other, 40), "what is written of the promised bytes is not counted twice"


def test_the_disks_free_bytes_are_promised_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = NodeCache(tmp_path, budget_bytes=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with cache.reserve("first", 60) as first:
        assert first is not None
        first.touch()
        assert cache.pop_error() is None
        assert not _has_room(cache, 60)
        assert cache.pop_error() == f"the disk of {tmp_path} is full"
        assert cache.pop_error() is None
        assert _has_room(cache, 40)


def _write_slowly(folder: Path, half_way: Event, go_on: Event) -> None:
    with NodeCache(folder, budget_bytes=100).reserve("slow", 60) as partial:
        assert partial is not None
        partial.write_bytes(b"x" * 30)
        half_way.set()
        go_on.wait(60)
        partial.write_bytes(b"x" * 60)


@pytest.fixture
def slow(tmp_path: Path) -> "tuple[multiprocessing.context.SpawnProcess, Event]":
    """A process that has written half of what it was given room for, and what it waits for."""
    half_way, go_on = SPAWN.Event(), SPAWN.Event()
    process = SPAWN.Process(target=_write_slowly, args=(tmp_path, half_way, go_on))
    process.start()
    assert half_way.wait(60)
    return process, go_on


def test_a_process_that_sleeps_keeps_its_file_and_its_room(
    slow: "tuple[multiprocessing.context.SpawnProcess, Event]", tmp_path: Path
) -> None:
    process, go_on = slow
    assert process.pid
    os.kill(process.pid, signal.SIGSTOP)
    (partial,) = tmp_path.glob(".slow*.partial")
    os.utime(partial, (time.time() - 10 * STALE_SECONDS,) * 2)
    cache = NodeCache(tmp_path, budget_bytes=100)
    try:
        assert not _has_room(cache, 41)
        assert partial.exists()
    finally:
        os.kill(process.pid, signal.SIGCONT)
    go_on.set()
    process.join()
    assert process.exitcode == 0
    path = cache.find("slow")
    assert path is not None
    assert path.stat().st_size == 60


def test_what_a_dead_process_left_goes_at_once(
    slow: "tuple[multiprocessing.context.SpawnProcess, Event]", tmp_path: Path
) -> None:
    process, _ = slow
    process.kill()
    process.join()
    assert _has_room(NodeCache(tmp_path, budget_bytes=100), 100)
    assert not list(tmp_path.glob(".slow*"))


def test_a_partial_file_that_nothing_explains_goes_after_a_while(cache: NodeCache, tmp_path: Path) -> None:
    partials = [tmp_path / "shared" / f".{name}.1234.partial" for name in ("fresh", "stale")]
    for partial in partials:
        partial.write_bytes(b"")
    os.utime(partials[1], (time.time() - STALE_SECONDS - 1,) * 2)
    assert _has_room(cache, 1)
    assert [partial.exists() for partial in partials] == [True, False]


def test_a_maker_that_sleeps_is_not_waited_for_for_ever(
    cache: NodeCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_cache, "PATIENCE_SECONDS", 0.1)
    with (
        FileLock(tmp_path / "shared" / ".features.lock"),
        pytest.raises(OSError, match="lock"),
        cache.lock("features"),
    ):
        pass
