"""The network of a backbone and its blocks, as torch modules."""

import hashlib
import importlib
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from genre_core.errors import ErrorCode, InputError
from genre_core.models.registry import find_backbone, full_name, is_own

StateDict = Mapping[str, Tensor]
Blocks = OrderedDict[str, nn.Module]


def new_model(backbone: str) -> nn.Module:
    """Build the whole network of a backbone, its own head included, with random weights."""
    return find_backbone(backbone).model()


def blocks_of(backbone: str, model: nn.Module) -> Blocks:
    """The blocks of such a network, by name and in order."""
    return OrderedDict((name, take(model)) for name, take in find_backbone(backbone).blocks.items())


def model_without_weights(backbone: str) -> nn.Module:
    """The whole network on the meta device, without storage; the global random state does not change."""
    if is_own(backbone):  # its constructor may need values, which the meta device does not have
        with torch.random.fork_rng(devices=[]):
            return new_model(backbone).to("meta")
    with torch.device("meta"):
        return new_model(backbone)


def blocks_without_weights(backbone: str) -> Blocks:
    """The blocks as modules on the meta device, without storage.

    Raises:
        InputError: the backbone's network cannot be built, or its blocks cannot be copied.
    """
    blocks: Blocks = pickle.loads(_pickled_blocks(backbone))
    return blocks


@cache
def code_digest(backbone: str) -> str:
    """Hash of the structure and the code of a backbone that is not built in; empty for a built-in one.

    It is part of cache keys, so that changing a user's network invalidates what was cached for it. The code is that of
    the modules that define the backbone and the classes of its layers, except torch's, whose version identifies them.
    """
    if not is_own(backbone):
        return ""
    layers = nn.Sequential(blocks_without_weights(backbone))
    modules = {type(layer).__module__ for layer in layers.modules()} | {full_name(backbone).partition(":")[0]}
    hashed = hashlib.sha256(repr(layers).encode())
    for name in sorted(modules):
        source = getattr(importlib.import_module(name), "__file__", None)
        if source and name.partition(".")[0] != "torch":
            hashed.update(Path(source).read_bytes())
    return hashed.hexdigest()


@cache
def _pickled_blocks(backbone: str) -> bytes:
    """Pickled, because unpickling DenseNet is 25 times as fast as building and initializing it."""
    try:
        return pickle.dumps(blocks_of(backbone, model_without_weights(backbone)))
    except Exception as error:
        if not is_own(backbone):
            raise
        raise InputError(
            f"the network of a backbone must be built without arguments, contain its blocks and be picklable, but that "
            f"of {backbone} raised {type(error).__name__}: {error}; correct {full_name(backbone)}",
            code=ErrorCode.BACKBONE_INVALID,
        ) from error
