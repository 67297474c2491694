"""Weights that are a file on the head reach the nodes that lack it: through Ray, once a node."""

from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from genre_core.errors import InputError
from genre_core.node_cache import NodeCache


class WeightsFiles:
    """Reads files of weights for others; lives in one process on the head."""

    def read(self, path: str) -> NDArray[np.uint8]:
        """The file's bytes.

        Raises:
            InputError: it cannot be read.
        """
        try:
            return np.fromfile(path, np.uint8)
        except OSError as error:
            raise InputError(
                f"weights must be a state dict of tensors, but {path} cannot be read: {error.strerror}"
            ) from error


def on_this_node(weights: str, *, here: str, identity: str, files: Any, cache: NodeCache) -> str:
    """What this node calls these weights: as the head does, or a copy's path where it has no such file.

    Args:
        weights: what the head calls them, see `Recipe.weights`.
        here: what tells those of this name on this node from others.
        identity: the same of those on the head.
        files: the `WeightsFiles` process; None where no weights are a file.
        cache: this node's.
    """
    if here == identity:
        return weights
    name = f"weights-{identity}{Path(weights).suffix}"
    with cache.making(name):
        if (copy := cache.find(name)) is None:
            content: NDArray[np.uint8] = ray.get(files.read.remote(weights))
            cache.make_room(content.nbytes)
            with cache.new(name) as partial:
                content.tofile(partial)
            copy = cache.find(name)
    assert copy, "it has just been written"
    return str(copy)
