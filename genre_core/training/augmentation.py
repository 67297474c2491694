"""Mixup and SpecAugment: random variations of the training segments, different in each epoch."""

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
    """int64 [batch]: index in the batch of each segment's partner."""
    weight: float
    """Weight of the segment itself, in the activations and in the loss; that of its partner is 1 - weight."""


class MixupDraw(NamedTuple):
    """The random choices of mixing a batch; see `Mixed`."""

    partner: Tensor
    """int64 [batch], on the CPU."""
    weight: float


def mixup_draw(batch: int, *, alpha: float, random: np.random.Generator) -> MixupDraw:
    """Draw partners and the weight for a batch of so many segments, without mixup if alpha is 0; see `mixup`."""
    if not alpha:
        return MixupDraw(torch.arange(batch), 1.0)
    weight = float(random.beta(alpha, alpha))
    return MixupDraw(torch.from_numpy(random.permutation(batch)), weight)


def mixup(activations: Tensor, *, alpha: float, random: np.random.Generator) -> Mixed:
    """Mix each segment with another one of the batch.

    Zhang et al. 2018, "mixup"; at a hidden layer, the manifold mixup of Verma et al. 2019.

    Args:
        activations: float [batch, ...].
        alpha: of the symmetric beta distribution from which the batch's weight is drawn, above 0.
        random: draws on the CPU, which needs no synchronization with a GPU.
    """
    partner, weight = mixup_draw(len(activations), alpha=alpha, random=random)
    partner = partner.to(activations.device, non_blocking=True)
    return Mixed(weight * activations + (1 - weight) * activations[partner], partner, weight)


def spec_augment(activations: Tensor, *, share: float, fill: Tensor, random: np.random.Generator) -> Tensor:
    """Mask one band of rows (mel bands) and one of columns (frames) per segment; in flat activations, single units.

    Park et al. 2019, "SpecAugment", with one mask per axis and no time warping.

    Args:
        activations: float [batch, channels, height, width] or [batch, units].
        share: maximum fraction of an axis, or of the units, to mask; a mask's width is uniform up to it.
        fill: value of masked elements, [] or [channels, 1, 1].
        random: draws on the CPU, which needs no synchronization with a GPU.
    """
    batch = len(activations)
    if activations.dim() == 2:
        masked = random.random(activations.shape) < share * random.random((batch, 1))
    else:
        rows, columns = (_bands(batch, length, share, random) for length in activations.shape[2:])
        masked = (rows[:, :, None] | columns[:, None, :])[:, None]
    fill = fill.to(activations.dtype)
    on_device = torch.from_numpy(masked).to(activations.device, non_blocking=True)
    return torch.where(on_device, fill, activations)


def _bands(batch: int, length: int, share: float, random: np.random.Generator) -> NDArray[np.bool_]:
    """[batch, length]: one band each, with a width from 0 to `share` of the length."""
    width = np.floor(random.random((batch, 1)) * (share * length + 1))
    first = np.floor(random.random((batch, 1)) * (length - width + 1))
    position = np.arange(length)
    inside: NDArray[np.bool_] = (position >= first) & (position < first + width)
    return inside
