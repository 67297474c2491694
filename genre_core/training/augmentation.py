"""Mixup and masking: what a fine-tune sees of its training segments, varied from epoch to epoch."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Mixed(NamedTuple):
    """A batch in which each segment is mixed with a partner."""

    activations: Tensor
    """[batch, ...]"""
    partner: Tensor
    """int64 [batch]: the position of each segment's partner."""
    share: float
    """Of the segment itself; the rest is its partner's, in the activations and in the loss."""


def mixup(activations: Tensor, *, alpha: float, random: np.random.Generator) -> Mixed:
    """Mix each segment with another one of the batch.

    Zhang et al. 2018, "mixup"; between layers it is the manifold mixup of Verma et al. 2019.

    Args:
        activations: float [batch, ...].
        alpha: of the symmetric beta distribution that the batch's share is drawn from, above 0.
        random: draws on the CPU, so that a GPU is not waited for.
    """
    share = float(random.beta(alpha, alpha))
    partner = torch.from_numpy(random.permutation(len(activations))).to(activations.device)
    return Mixed(share * activations + (1 - share) * activations[partner], partner, share)


def spec_augment(activations: Tensor, *, share: float, empty: Tensor, random: np.random.Generator) -> Tensor:
    """Empty a band of mel rows and a stretch of time columns of each segment; of flat activations, single units.

    Park et al. 2019, "SpecAugment", with one mask a direction.

    Args:
        activations: float [batch, channels, height, width] or [batch, units].
        share: of a direction's length, or of the units, at most: a mask's width is drawn evenly up to it.
        empty: the value of what is masked, [] or [channels, 1, 1].
        random: draws on the CPU, so that a GPU is not waited for.
    """
    batch = len(activations)
    if activations.dim() == 2:
        gone = random.random(activations.shape) < share * random.random((batch, 1))
    else:
        rows, columns = (_bands(batch, length, share, random) for length in activations.shape[2:])
        gone = (rows[:, :, None] | columns[:, None, :])[:, None]
    empty = empty.to(activations.dtype)
    return torch.where(torch.from_numpy(gone).to(activations.device), empty, activations)


def _bands(batch: int, length: int, share: float, random: np.random.Generator) -> NDArray[np.bool_]:
    """[batch, length]: one band of each, of a width from 0 to `share` of the length."""
    width = np.floor(random.random((batch, 1)) * (share * length + 1))
    first = np.floor(random.random((batch, 1)) * (length - width + 1))
    place = np.arange(length)
    inside: NDArray[np.bool_] = (place >= first) & (place < first + width)
    return inside
