"""The weights that a fine-tune starts from, pretrained or random, cached on each node."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from genre_core.models.artifact import block_digest
from genre_core.models.blocks import StateDict, blocks_of, code_digest, new_model
from genre_core.models.pretrained import Weights, imagenet_file, load_weights
from genre_core.models.registry import block_of
from genre_core.system.disk_cache import NodeCache

FORMAT_VERSION = 2
"""Part of the cached files' names; increase it when the cached tensors would change."""
HEADER_BYTES = 64 * 1024
"""Upper bound on the size of a cached file's header."""


@dataclass(frozen=True, kw_only=True)
class InitialWeights:
    """The tensors of a backbone's blocks before any training."""

    state: StateDict
    """By `block.layer...` name. Memory-mapped if they come from the cache: only what is used is read."""
    contents: Mapping[str, str]
    """Block -> digest of its tensors."""
    code: str
    """Hash of the code of a backbone that is not built in; empty for a built-in one."""

    @property
    def digests(self) -> dict[str, str]:
        """Block -> hash of everything that its output depends on: its tensors and its code."""
        return {
            block: hashlib.sha256((self.code + content).encode()).hexdigest() if self.code else content
            for block, content in self.contents.items()
        }


def initial_weights(backbone: str, *, weights: Weights, seed: int, node_cache: NodeCache) -> InitialWeights:
    """The backbone with the given weights; layers that these lack are initialized randomly from the seed.

    Raises:
        InputError: the weights are not available or do not fit.
    """
    if not node_cache.budget_bytes:
        return _create(backbone, weights, seed)
    key = [FORMAT_VERSION, torch.__version__, backbone, weights_identity(backbone, weights), seed]
    if code := code_digest(backbone):
        key.append(code)
    name = f"{backbone.replace(':', '.')}-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]}.safetensors"
    try:
        with node_cache.lock(name):
            if cached := _load(node_cache.find(name), code):
                return cached
            created = _create(backbone, weights, seed)
            _store(created, name, node_cache)
            return created
    except OSError as error:  # for example a full disk: continue without the cache
        node_cache.record_error(error)
        return _create(backbone, weights, seed)


def _load(path: Path | None, code: str) -> InitialWeights | None:
    """Memory-map a cached file; None if it is damaged, or was evicted just now."""
    if path is None:
        return None
    try:
        with safe_open(path, framework="pt") as file:
            state = {layer: file.get_tensor(layer) for layer in file.keys()}  # noqa: SIM118  # not a mapping
            return InitialWeights(state=state, contents=file.metadata(), code=code)
    except (FileNotFoundError, SafetensorError):  # truncated by a power failure
        return None


def _store(created: InitialWeights, name: str, node_cache: NodeCache) -> None:
    """Store initial weights in the cache if it has room."""
    size = HEADER_BYTES + sum(tensor.nbytes for tensor in created.state.values())
    try:
        with node_cache.reserve(name, size) as partial:
            if partial is not None:
                save_file(dict(created.state), partial, metadata=dict(created.contents))
    except (OSError, SafetensorError) as error:  # safetensors wraps the OSError of a full disk
        node_cache.record_error(error)


def _create(backbone: str, weights: Weights, seed: int) -> InitialWeights:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = new_model(backbone)
    load_weights(model, backbone, weights)
    blocks = blocks_of(backbone, model)
    state = nn.Sequential(blocks).state_dict()
    contents = {
        block: block_digest({name: value.numpy() for name, value in state.items() if block_of(name) == block})
        for block in blocks
    }
    return InitialWeights(state=state, contents=contents, code=code_digest(backbone))


def weights_identity(backbone: str, weights: Weights) -> str:
    """A string that identifies weights: the hash of a file's content, or the file name of published ones."""
    if isinstance(weights, bytes):
        return hashlib.sha256(weights).hexdigest()
    if weights == "random":
        return weights
    if weights == "imagenet":
        return imagenet_file(backbone).name  # which contains the first digits of the file's hash
    path = Path(weights)
    if not path.is_file():
        return weights  # load_weights reports what is wrong with the path
    status = path.stat()
    return _content_hash(path, status.st_size, status.st_mtime_ns)


@cache
def _content_hash(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
