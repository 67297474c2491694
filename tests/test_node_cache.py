"""What workers of a node share: found by name, within a budget, safe from those that die."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from genre_core.node_cache import STALE_SECONDS, NodeCache


def _put(cache: NodeCache, name: str, size: int, age: float) -> None:
    """A file of so many bytes that was last used so many seconds ago."""
    with cache.new(name) as partial:
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


@pytest.mark.parametrize(
    ("size", "left"),
    [(10, {"oldest", "middle", "newest"}), (11, {"middle", "newest"}), (70, {"newest"}), (100, set())],
)
def test_room_is_made_by_dropping_what_was_used_longest_ago(
    size: int, left: set[str], cache: NodeCache
) -> None:
    assert cache.make_room(size)
    assert _names(cache) == left


def test_what_cannot_fit_drops_nothing(cache: NodeCache) -> None:
    assert not cache.make_room(101)
    assert _names(cache) == {"oldest", "middle", "newest"}


def test_finding_a_file_makes_it_the_last_to_be_dropped(cache: NodeCache) -> None:
    cache.find("oldest")
    cache.make_room(40)
    assert _names(cache) == {"oldest"} | {"newest"}


def test_room_is_told_without_dropping(cache: NodeCache) -> None:
    assert cache.has_room(10)
    assert not cache.has_room(11)
    assert _names(cache) == {"oldest", "middle", "newest"}


def test_a_file_that_is_mapped_outlives_its_dropping(tmp_path: Path) -> None:
    cache = NodeCache(tmp_path, budget_bytes=10_000)
    with cache.new("a.npy") as partial, partial.open("wb") as file:
        np.save(file, np.arange(100))
    path = cache.find("a.npy")
    assert path is not None
    mapped = np.load(path, mmap_mode="c")
    cache.make_room(10_000)
    assert cache.find("a.npy") is None
    assert mapped.sum() == 4950


def test_what_fails_half_way_leaves_nothing(cache: NodeCache) -> None:
    with pytest.raises(RuntimeError), cache.new("newer") as partial:  # noqa: PT012
        partial.write_bytes(b"half")
        raise RuntimeError
    assert cache.find("newer") is None
    assert cache.has_room(10)


def test_what_a_dead_process_left_half_written_goes_after_a_while(cache: NodeCache, tmp_path: Path) -> None:
    partials = [tmp_path / "shared" / f".{name}.1234.partial" for name in ("fresh", "stale")]
    for partial in partials:
        partial.write_bytes(b"")
    os.utime(partials[1], (time.time() - STALE_SECONDS - 1,) * 2)
    cache.make_room(1)
    assert [partial.exists() for partial in partials] == [True, False]
