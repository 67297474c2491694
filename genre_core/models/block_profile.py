"""Checks of the blocks of a user's backbone, and measurement of their arithmetic and parameters."""

from dataclasses import dataclass
from functools import cache
from itertools import combinations

import torch
from torch.utils.flop_counter import FlopCounterMode

from genre_core.errors import ErrorCode, InputError
from genre_core.models.blocks import Blocks, blocks_without_weights
from genre_core.models.registry import find_backbone

MELS, FRAMES = 224, (224, 448)
"""Size of the two images that are passed through the blocks; a backbone with its own front end has its mel bands."""


@dataclass(frozen=True, kw_only=True)
class BlockProfile:
    """Parameters and arithmetic of a block."""

    parameters: int
    fixed: float
    """Multiply-adds of a forward pass that do not depend on the size of the image."""
    per_pixel: float
    """Multiply-adds of a forward pass per pixel of the image: mels x frames."""


@cache
def block_profiles(backbone: str) -> tuple[BlockProfile, ...]:
    """Measure each block of a backbone on the meta device, which computes shapes only.

    Raises:
        InputError: the blocks do not fit together, or their output is not [segments, features].
    """
    own, blocks = find_backbone(backbone), blocks_without_weights(backbone)
    for (first, one), (second, other) in combinations(blocks.items(), 2):
        if shared := set(one.parameters()) & set(other.parameters()):
            raise _invalid(backbone, f"share no tensors, but {first} and {second} share {len(shared)}")
    mels = own.front_end.n_mels if own.front_end else max(MELS, own.min_side)
    small, large = (_multiply_adds(backbone, blocks, mels, frames) for frames in FRAMES)
    profiles = []
    for block, less, more in zip(blocks.values(), small, large, strict=True):
        per_pixel = (more - less) / (mels * (FRAMES[1] - FRAMES[0]))
        profiles.append(
            BlockProfile(
                parameters=sum(p.numel() for p in block.parameters()),
                fixed=max(0.0, less - per_pixel * mels * FRAMES[0]),
                per_pixel=per_pixel,
            )
        )
    return tuple(profiles)


@torch.no_grad()
def _multiply_adds(backbone: str, blocks: Blocks, mels: int, frames: int) -> list[float]:
    """Multiply-adds of one image in each block."""
    own, counted = find_backbone(backbone), list[float]()
    activations = torch.empty(2, own.channels, mels, frames, device="meta")
    for name, block in blocks.items():
        given = list(activations.shape)
        try:
            with FlopCounterMode(display=False) as counter:
                activations = block.eval()(activations)
            counted.append(counter.get_total_flops() / 2 / len(activations))
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            raise _invalid(backbone, f"fit together, but {name}, given {given}, raised {why}") from error
    if activations.shape != (2, own.features):
        shape = f"{list(activations.shape)} for 2 segments, with features={own.features}"
        raise _invalid(backbone, f"return [segments, features], but return {shape}")
    return counted


def _invalid(backbone: str, rule: str) -> InputError:
    return InputError(
        f"the blocks of {backbone} must {rule}; correct the backbone", code=ErrorCode.BACKBONE_INVALID
    )
