"""Where a fine-tune starts: a backbone with its weights, random where these lack layers, on disk once and mapped."""

import hashlib
import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from genre_core.models.backbones import Blocks, StateDict, blocks_and_head, torchvision_model
from genre_core.models.pretrained import Weights, imagenet_file, load_weights
from genre_core.system.disk_cache import NodeCache

FORMAT_VERSION = 1
"""Changes when the tensors of a starting point would: it is part of the name that one is found by."""
HEADER_BYTES = 64 * 1024
"""More than a file takes before its tensors."""


@dataclass(frozen=True, kw_only=True)
class InitialWeights:
    """The blocks of a backbone before any training."""

    state: StateDict
    """By `block.layer...` name. Of a file they are mapped: reading touches only what is used."""
    digests: Mapping[str, str]
    """Block -> hash of its tensors."""


def initial_weights(backbone: str, *, weights: Weights, seed: int, node_cache: NodeCache) -> InitialWeights:
    """The backbone with these weights; layers that they lack are random from the seed.

    Raises:
        InputError: the weights cannot be had or do not fit.
    """
    if not node_cache.budget_bytes:
        return _make(backbone, weights, seed)
    key = [FORMAT_VERSION, torch.__version__, backbone, weights_identity(backbone, weights), seed]
    name = f"{backbone}-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]}.safetensors"
    try:
        with node_cache.lock(name):
            if found := _found(node_cache.find(name)):
                return found
            made = _make(backbone, weights, seed)
            _keep(made, name, node_cache)
            return made
    except OSError as error:  # such as a full disk: nothing is shared then
        node_cache.record_error(error)
        return _make(backbone, weights, seed)


def _found(path: Path | None) -> InitialWeights | None:
    """What a file of the cache holds; None where it is damaged, or has been dropped in this moment."""
    if path is None:
        return None
    try:
        with safe_open(path, framework="pt") as file:
            state = {layer: file.get_tensor(layer) for layer in file.keys()}  # noqa: SIM118  # no mapping
            return InitialWeights(state=state, digests=file.metadata())
    except (FileNotFoundError, SafetensorError):  # cut short when the power failed
        return None


def _keep(made: InitialWeights, name: str, node_cache: NodeCache) -> None:
    """Store a starting point for others, if the cache can have it."""
    size = HEADER_BYTES + sum(tensor.nbytes for tensor in made.state.values())
    try:
        with node_cache.reserve(name, size) as partial:
            if partial is not None:
                save_file(dict(made.state), partial, metadata=dict(made.digests))
    except (OSError, SafetensorError) as error:  # the latter carries the system's error as text
        node_cache.record_error(error)


def blocks_without_weights(backbone: str) -> tuple[Blocks, int]:
    """The blocks as modules whose tensors take no room, and the number of features that the head sees."""
    pickled, features = _pickled_blocks(backbone)
    blocks: Blocks = pickle.loads(pickled)
    return blocks, features


@cache
def _pickled_blocks(backbone: str) -> tuple[bytes, int]:
    """To be made again from: to build DenseNet takes 25 times as long, for its layers are initialised."""
    with torch.device("meta"):
        blocks, head = blocks_and_head(backbone, torchvision_model(backbone))
    return pickle.dumps(blocks), head.in_features


def _make(backbone: str, weights: Weights, seed: int) -> InitialWeights:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = torchvision_model(backbone)
    load_weights(model, backbone, weights)
    blocks, _ = blocks_and_head(backbone, model)
    state = nn.Sequential(blocks).state_dict()
    digests = {name: _digest(block.state_dict()) for name, block in blocks.items()}
    return InitialWeights(state=state, digests=digests)


def _digest(state: StateDict) -> str:
    hashed = hashlib.sha256()
    for name, tensor in state.items():
        hashed.update(name.encode())
        hashed.update(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().data)
    return hashed.hexdigest()


def weights_identity(backbone: str, weights: Weights) -> str:
    """What tells weights from others: a file's content, or the name under which torchvision publishes them."""
    if isinstance(weights, bytes):
        return hashlib.sha256(weights).hexdigest()
    if weights == "random":
        return weights
    if weights == "imagenet":
        return imagenet_file(backbone).name  # it holds the beginning of the file's hash
    path = Path(weights)
    if not path.is_file():
        return weights  # the reader of weights says what is wrong with it
    status = path.stat()
    return _content(path, status.st_size, status.st_mtime_ns)


@cache
def _content(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
