"""Samples in memory as a source, which decodes like a file with the same samples."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genre_core.audio.decode import SAMPLE_RATES
from genre_core.audio.source import Samples, Source
from genre_core.errors import ErrorCode, InputError

MAX_CHANNELS = 64
"""Most channels of an array; a longer second axis is a mistake, such as a batch."""
_BLOCK_VALUES = 2**18
"""Values of a block that is mixed at a time."""


def source_of(samples: ArrayLike, sample_rate: int) -> Source:
    """A source of samples in memory.

    Args:
        samples: [samples], [channels, samples] or [samples, channels]: the shorter axis holds the channels. Floats with
            full scale 1, or integers with the full scale of their type.
        sample_rate: Hz.

    Raises:
        InputError: the samples have another shape or type, or the sample rate is impossible.
    """
    if isinstance(sample_rate, bool) or sample_rate != int(sample_rate) or sample_rate not in SAMPLE_RATES:
        raise InputError(
            f"the sample rate must be a whole number of Hz from {SAMPLE_RATES[0]:,} to {SAMPLE_RATES[-1]:,}, but got "
            f"{sample_rate!r}; give (samples, sample_rate)",
            code=ErrorCode.WAVEFORM_INVALID,
        )
    frames = _frames(np.asarray(samples))
    return Source(sample_rate=int(sample_rate), channels=frames.shape[1], blocks=_blocks(frames))


def _frames(samples: NDArray[np.generic]) -> NDArray[np.generic]:
    """The samples as [samples, channels]."""
    shape = samples.shape
    kind = samples.dtype.kind
    if kind not in "fiu" or samples.ndim not in (1, 2) or (samples.ndim == 2 and min(shape) > MAX_CHANNELS):
        raise InputError(
            "samples must be floats or integers of shape [samples], [channels, samples] or [samples, channels], with "
            f"at most {MAX_CHANNELS} channels, but got {samples.dtype} {list(shape)}; give one track at a time, or a "
            "list of (samples, sample_rate)",
            code=ErrorCode.WAVEFORM_INVALID,
        )
    if samples.ndim == 1:
        return samples[:, None]
    return samples.T if shape[0] < shape[1] else samples


def _blocks(frames: NDArray[np.generic]) -> Iterator[Samples]:
    """Blocks of float32 with full scale 1, [samples, channels]."""
    size = max(1, _BLOCK_VALUES // max(1, frames.shape[1]))
    for start in range(0, len(frames), size):
        yield _scaled(frames[start : start + size])


def _scaled(block: NDArray[np.generic]) -> Samples:
    if block.dtype.kind == "f":
        return np.ascontiguousarray(block, np.float32)
    half = 2 ** (8 * block.dtype.itemsize - 1)
    offset = half if block.dtype.kind == "u" else 0
    return np.ascontiguousarray((block.astype(np.float64) - offset) / half, np.float32)
