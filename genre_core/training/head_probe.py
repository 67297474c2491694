"""The head of a linear probe, from which a deeper fine-tune starts (LP-FT, Kumar et al. 2022, arXiv:2202.10054)."""

import hashlib
import json
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from genre_core.models.network import Network
from genre_core.system.disk_cache import NodeCache
from genre_core.training.activation_cache import ActivationCache
from genre_core.training.segments import Segments

FORMAT_VERSION = 1
"""Part of the cached files' names; increase it when a probe's values would change."""
L2 = 0.001
"""Penalty: this times half the squared norm of the weights of features with a mean squared norm of 1."""
NORM_RATIO = 2.0
"""Maximum norm of the weights relative to that of a random head. Features that hardly vary, as those of a random
AlexNet, would get weights a hundred times as large, and the gradients of the trainable blocks would explode."""
ITERATIONS = 200
"""Maximum number of L-BFGS iterations."""
GRADIENT = 1e-7
"""Largest entry of the gradient, in nats, at which L-BFGS stops."""
MAX_VALUES = 2**28
"""Maximum number of segments times features; as float64 they take three times 2 GiB."""
HEADER_BYTES = 4096
"""Upper bound on the size of a cached file's header."""
_CHUNK = 256
"""Segments whose features are looked up at a time."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A linear classifier of a network's features."""

    weight: Tensor
    """float32 [genres, features]."""
    bias: Tensor
    """float32 [genres]."""


def probe(network: Network, train: Segments, *, genre_weights: Tensor | None, node_cache: NodeCache) -> Probe:
    """Fit the head of an untrained network to the features of its frozen blocks, or find it in the node's cache.

    All blocks count as frozen and are in eval mode, whatever the freeze depth. The result therefore depends only on
    (backbone, weights, corpus, front end), and on the seed if some weights are random: trials share it.

    Args:
        network: before its first training step, on the segments' device.
        train: the training segments; no others are used.
        genre_weights: of the loss, [genres]; None for 1.
        node_cache: where activations and the probe are stored.
    """
    with network.frozen_whole() as frozen:
        # two lookups, one of which is that of a trial that trains the head only
        fit = partial(_fit, n_features=network.head.in_features)
        activations = partial(ActivationCache, frozen, train, node_cache=node_cache, epochs=1)
        name = _name(activations(keep=False).identity, train, genre_weights)
        if not node_cache.budget_bytes:
            return fit(activations(), train, genre_weights)
        try:
            with node_cache.lock(name):
                if (stored := _load(node_cache.find(name), network.device)) is not None:
                    return stored
                fitted = fit(activations(), train, genre_weights)
                _store(fitted, name, node_cache)
                return fitted
        except OSError as error:  # such as a full disk: continue without the cache
            node_cache.record_error(error)
            return fit(activations(), train, genre_weights)


def logistic_regression(
    features: Tensor,
    genre: Tensor,
    *,
    n_genres: int,
    l2: float,
    max_norm: float = math.inf,
    genre_weights: Tensor | None = None,
) -> Probe:
    """Multinomial logistic regression with an L2 penalty, by L-BFGS in float64 from weights of 0.

    Features are centered and divided by one number, so that their mean squared norm is 1. Dividing each by its own
    deviation would give large weights to features that hardly vary, which trained blocks may change a lot.

    Args:
        features: [segments, features].
        genre: int64 [segments].
        n_genres: number of outputs.
        l2: see `L2`.
        max_norm: of the weights; larger ones are scaled down, and the logits of the mean features stay the same.
        genre_weights: of the loss, [genres]; None for 1.
    """
    inputs = features.double()
    mean = inputs.mean(dim=0)
    inputs = inputs - mean
    scale = inputs.square().sum(dim=1).mean().sqrt().clamp_min(torch.finfo(torch.float32).tiny)
    inputs = inputs / scale
    weight = inputs.new_zeros(n_genres, inputs.shape[1], requires_grad=True)
    bias = inputs.new_zeros(n_genres, requires_grad=True)
    class_weights = None if genre_weights is None else genre_weights.double()
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=ITERATIONS,
        tolerance_grad=GRADIENT,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = F.linear(inputs, weight, bias)
        total = F.cross_entropy(logits, genre, weight=class_weights) + l2 / 2 * weight.square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        own = weight / scale
        own = own * (max_norm / own.norm()).clamp(max=1.0)
        return Probe(weight=own.float(), bias=(bias - own @ mean).float())


def _fit(
    activations: ActivationCache, train: Segments, genre_weights: Tensor | None, *, n_features: int
) -> Probe:
    """Fit a probe to all segments, or to evenly spaced ones if there are too many."""
    segments = torch.arange(
        0, len(train), math.ceil(len(train) * n_features / MAX_VALUES), device=train.device
    )
    features = torch.empty((len(segments), n_features), device=train.device)
    parts = torch.split(segments, _CHUNK)
    for part, found in zip(torch.split(features, _CHUNK), activations.batches(parts), strict=True):
        part.copy_(found)
    of_random_head = math.sqrt(train.n_genres / 3)  # nn.Linear draws uniformly from ± 1 / sqrt(features)
    return logistic_regression(
        features,
        train.genre[train.track[segments]],
        n_genres=train.n_genres,
        l2=L2,
        max_norm=NORM_RATIO * of_random_head,
        genre_weights=genre_weights,
    )


def _name(features: str, train: Segments, genre_weights: Tensor | None) -> str:
    """The file name of a probe."""
    weights = None if genre_weights is None else genre_weights.tolist()
    genres = train.genre[train.track].tolist()
    key = json.dumps([FORMAT_VERSION, features, train.n_genres, genres, weights])
    return f"probe-{hashlib.sha256(key.encode()).hexdigest()[:24]}.safetensors"


def _load(path: Path | None, device: torch.device) -> Probe | None:
    """Read a cached probe; None if it is damaged, or was evicted just now."""
    try:
        return None if path is None else Probe(**load_file(path, device=str(device)))
    except (FileNotFoundError, SafetensorError):
        return None


def _store(fitted: Probe, name: str, node_cache: NodeCache) -> None:
    """Store a probe in the cache if it has room."""
    tensors = {"weight": fitted.weight.contiguous(), "bias": fitted.bias.contiguous()}
    size = HEADER_BYTES + sum(tensor.nbytes for tensor in tensors.values())
    try:
        with node_cache.reserve(name, size) as partial:
            if partial is not None:
                save_file(tensors, partial)
    except (OSError, SafetensorError) as error:  # safetensors wraps the OSError of a full disk
        node_cache.record_error(error)
