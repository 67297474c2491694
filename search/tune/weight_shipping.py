"""Shipping of weights files, including ImageNet's, from the head node to nodes that lack them, once per node."""

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genre_core.errors import ErrorCode, InputError
from genre_core.system.disk_cache import NodeCache
from search.engine.ports import WeightSource


class WeightsFiles:
    """Reads weights files for other nodes. Runs in an actor on the head."""

    def __init__(self, paths: Mapping[str, Path]) -> None:
        """Args: backbone -> its weights file on the head, for each backbone whose weights are not random."""
        self._paths = dict(paths)

    def read(self, backbone: str) -> NDArray[np.uint8]:
        """The bytes of a backbone's weights file, uint8 [bytes].

        Raises:
            InputError: the file cannot be read.
        """
        path = self._paths[backbone]
        try:
            return np.fromfile(path, np.uint8)
        except OSError as error:
            raise InputError(
                f"weights must be a state dict of tensors, but {path} cannot be read: {error.strerror}; "
                "restore the file",
                code=ErrorCode.WEIGHTS_UNREADABLE,
            ) from error


def shipped(backbone: str, *, name: str, source: WeightSource, cache: NodeCache) -> str | bytes:
    """The path of this node's copy of a weights file; its content if the node cannot store it.

    Args:
        backbone: its name.
        name: file name of the copy, unique to its content.
        source: where to read the file's content.
        cache: where this node stores the copy.
    """
    content: NDArray[np.uint8] | None = None
    copy: Path | None = None
    try:
        with cache.lock(name):
            if (copy := cache.find(name)) is None:
                content = source.read(backbone)
                copy = _stored(content, name, cache)
    except OSError as error:
        cache.record_error(error)
    if copy is not None:
        return str(copy)
    if content is None:
        content = source.read(backbone)
    return content.tobytes()


def _stored(content: NDArray[np.uint8], name: str, cache: NodeCache) -> Path | None:
    """Store the content in the cache, exceeding its budget if necessary; None if the disk is full."""
    for room in (cache, NodeCache(cache.folder, budget_bytes=sys.maxsize)):
        with room.reserve(name, content.nbytes) as partial:
            if partial is not None:
                content.tofile(partial)
        if copy := room.find(name):
            return copy
    return None
