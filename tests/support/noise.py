"""Segments of noise, which train like music, and networks for them."""

import torch
from torch import Tensor

from genre_core.models.network import Network, ToImage, build
from genre_core.recipe import Recipe
from genre_core.system.disk_cache import NodeCache
from genre_core.training.segments import SegmentArrays, Segments, level_statistics

GENRES = 3
RECIPE = Recipe(
    backbone="resnet18",
    weights="random",
    frozen_blocks=2,
    learning_rate=0.02,
    momentum=0.8,
    batch_size=8,
    epochs=2,
    patience=4,
)


def arrays(tracks: int, *, seed: int = 0, side: int = 64) -> SegmentArrays:
    """Noise on the host, [tracks, 1, side, side] in dB, one segment per track."""
    mels = torch.randn(tracks, 1, side, side, generator=torch.Generator().manual_seed(seed)) * 15 - 50
    numbers = torch.arange(tracks)
    return SegmentArrays.of(
        mels.half().numpy(), track=numbers.numpy(), genre=(numbers % GENRES).numpy(), n_genres=GENRES
    )


def segments(tracks: int, *, seed: int = 0, side: int = 64) -> Segments:
    """The same as tensors."""
    return arrays(tracks, seed=seed, side=side).to(torch.device("cpu"))


def mels(of: Segments) -> Tensor:
    """The mels of all segments, float16 [segments, 1, side, side]."""
    return of.mels_of(torch.arange(len(of)))


TRAIN, VALIDATION = segments(21), segments(11, seed=1)
"""Sizes that are not multiples of the batch size or of the chunk size."""


def network(recipe: Recipe, node_cache: NodeCache, train: Segments = TRAIN) -> Network:
    """The network of a recipe, for these segments."""
    return build(
        recipe.backbone,
        weights=recipe.weights,
        n_genres=train.n_genres,
        frozen_blocks=recipe.frozen_blocks,
        image=ToImage(*level_statistics(train)),
        seed=recipe.seed,
        node_cache=node_cache,
        precision=recipe.precision,
    )
