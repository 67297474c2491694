"""Shipping of spectrograms from the head node to nodes without the store, shard by shard, once per node."""

import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genre_core.corpus.spectrogram_store import is_stored_here
from genre_core.errors import InputError
from genre_core.system.disk_cache import NodeCache
from genre_core.system.memory import GIB
from genre_core.training.frames import FrameFiles, FrameShard
from genre_core.training.segments import SegmentArrays
from search.engine.ports import FrameSource
from search.errors import SearchErrorCode


class StoreShards:
    """Reads shards of a store for other nodes, and passes their requests of uploads to the driver.

    Runs in an actor on the head. For the requests, see `search.tune.stored_frames`.
    """

    def __init__(self, frames: FrameFiles) -> None:
        """Args: the store's frames on the head."""
        self._shards = {shard.name: shard for shard in frames.shards}
        self._frame_bytes = frames.frame_bytes
        self._sent = self._fetched = 0
        self._uploaded = dict[str, bool | None]()
        """Requested shard -> whether it is in the storage; None if not known yet."""
        self._complaints: list[str] = []

    def read(self, name: str) -> NDArray[np.uint8]:
        """The bytes of a shard, uint8 [bytes]."""
        shard = self._shards[name]
        size = shard.frames * self._frame_bytes
        self._sent += size
        return np.fromfile(shard.path, np.uint8, count=size, offset=shard.offset)

    def traffic(self) -> tuple[int, int]:
        """Bytes of all shards that other nodes got so far: through Ray, and from the storage."""
        return self._sent, self._fetched

    def request(self, names: Sequence[str]) -> None:
        """Ask for the upload of shards, in this order."""
        for name in names:
            self._uploaded.setdefault(name, None)

    def is_uploaded(self, name: str) -> bool | None:
        """Whether a requested shard is in the storage; None if that is not known yet."""
        return self._uploaded.get(name)

    def requested(self) -> list[str]:
        """The requested shards that were not answered, in order."""
        return [name for name, uploaded in self._uploaded.items() if uploaded is None]

    def answer(self, name: str, *, uploaded: bool) -> None:
        """Record whether a shard is in the storage."""
        self._uploaded[name] = uploaded

    def fetched(self, size: int) -> None:
        """Count bytes that a node has read from the storage."""
        self._fetched += size

    def complain(self, text: str) -> None:
        """Record why a node cannot read the storage."""
        self._complaints.append(text)

    def complaints(self) -> list[str]:
        """What was recorded since the last call."""
        texts, self._complaints = self._complaints, []
        return texts


def on_this_node(parts: SegmentArrays, *, source: FrameSource | None, cache: NodeCache) -> SegmentArrays:
    """The segments, read from files of this node: the store itself if this node has it, otherwise copies in the cache.

    Args:
        parts: segments that refer to files of the driver.
        source: provides the shards that this node lacks; None if every node has the store.
        cache: where this node stores the copies.

    Raises:
        InputError: the cache is too small.
        OSError: the copies cannot be stored.
    """
    frames = parts.mels.frames
    if not isinstance(frames, FrameFiles) or is_stored_here(frames):
        return parts
    assert source, "nodes without the store need a source of spectrograms"
    if frames.nbytes > cache.budget_bytes:
        raise _no_room(cache, frames.nbytes)
    sizes = {shard.name: shard.frames * frames.frame_bytes for shard in frames.shards}
    if missing := {name: size for name, size in sizes.items() if _found(cache, name, size) is None}:
        source.expect(missing)
    copies = tuple(_copy(shard, sizes[shard.name], source, cache) for shard in frames.shards)
    return replace(parts, mels=replace(parts.mels, frames=replace(frames, shards=copies)))


def _copy(shard: FrameShard, size: int, source: FrameSource, cache: NodeCache) -> FrameShard:
    """A shard in the cache of this node, fetched if it is missing."""
    with cache.lock(shard.name):
        path = _found(cache, shard.name, size)
        if path is None:
            with cache.reserve(shard.name, size) as partial:
                if partial is None:
                    raise _no_room(cache, size)
                source.read(shard.name).tofile(partial)
            path = cache.folder / shard.name
    return replace(shard, path=path, offset=0)


def _found(cache: NodeCache, name: str, size: int) -> Path | None:
    """The path of a shard in the cache; None if it is missing or has another size."""
    path = cache.find(name)
    return path if path and path.stat().st_size == size else None


def _no_room(cache: NodeCache, size: int) -> InputError:
    why = cache.pop_error() or f"got {cache.budget_bytes / GIB:.3g} GiB"
    return InputError(
        f"data_cache must hold the corpus's spectrograms, {size / GIB:.3g} GiB, on each node that cannot read the "
        f"head's cache, but {why}; give a larger --set data_cache=GIB, or free some space on {platform.node()}",
        code=SearchErrorCode.DATA_CACHE_TOO_SMALL,
    )
