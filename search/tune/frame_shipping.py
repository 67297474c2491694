"""Shipping of spectrograms from the head node to nodes without the store, shard by shard, once per node."""

import platform
from dataclasses import replace

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
    """Reads shards of a store for other nodes. Runs in an actor on the head."""

    def __init__(self, frames: FrameFiles) -> None:
        """Args: the store's frames on the head."""
        self._shards = {shard.name: shard for shard in frames.shards}
        self._frame_bytes = frames.frame_bytes
        self._sent = 0

    def read(self, name: str) -> NDArray[np.uint8]:
        """The bytes of a shard, uint8 [bytes]."""
        shard = self._shards[name]
        size = shard.frames * self._frame_bytes
        self._sent += size
        return np.fromfile(shard.path, np.uint8, count=size, offset=shard.offset)

    def sent_bytes(self) -> int:
        """Bytes of all shards that were read so far."""
        return self._sent


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
    copies = tuple(_copy(shard, frames.frame_bytes, source, cache) for shard in frames.shards)
    return replace(parts, mels=replace(parts.mels, frames=replace(frames, shards=copies)))


def _copy(shard: FrameShard, frame_bytes: int, source: FrameSource, cache: NodeCache) -> FrameShard:
    """A shard in the cache of this node, fetched if it is missing."""
    size = shard.frames * frame_bytes
    with cache.lock(shard.name):
        path = cache.find(shard.name)
        if path is None or path.stat().st_size != size:
            with cache.reserve(shard.name, size) as partial:
                if partial is None:
                    raise _no_room(cache, size)
                source.read(shard.name).tofile(partial)
            path = cache.folder / shard.name
    return replace(shard, path=path, offset=0)


def _no_room(cache: NodeCache, size: int) -> InputError:
    why = cache.pop_error() or f"got {cache.budget_bytes / GIB:.3g} GiB"
    return InputError(
        f"data_cache must hold the corpus's spectrograms, {size / GIB:.3g} GiB, on each node that cannot read the "
        f"head's cache, but {why}; give a larger --set data_cache=GIB, or free some space on {platform.node()}",
        code=SearchErrorCode.DATA_CACHE_TOO_SMALL,
    )
