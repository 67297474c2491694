"""Segments of a set of tracks with their tracks and genres, stored on the device or copied to it in batches."""

import hashlib
import warnings
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_CHUNK = 256
"""Segments whose statistics are computed at a time, because as float64 they take four times the memory."""
GPU_SHARE = 0.5
"""Maximum fraction of a GPU's free memory for segments; above it, batches are copied to the GPU."""


@dataclass(frozen=True, kw_only=True)
class Segments:
    """Segments of equal length from tracks' mels, in track order."""

    mels: Tensor
    """float16 [segments, channels, mels, frames], dB; on the CPU if a GPU has no room for them."""
    track: Tensor
    """int64 [segments]: index of the segment's track."""
    genre: Tensor
    """int64 [tracks]: index of the track's genre."""
    n_genres: int
    digest: str
    """Hash of the mels; see `SegmentArrays.digest`."""

    def __len__(self) -> int:
        return len(self.mels)

    @property
    def n_tracks(self) -> int:
        """Number of tracks that the segments come from."""
        return len(self.genre)

    @property
    def resident(self) -> bool:
        """Whether the mels are on the same device as the other tensors."""
        return self.mels.device == self.genre.device

    def mels_of(self, segments: Tensor) -> Tensor:
        """Mels of the segments with these indices, on the device."""
        return self.mels[segments.to(self.mels.device)].to(self.genre.device)


@dataclass(frozen=True, kw_only=True)
class SegmentArrays:
    """The fields of `Segments` as arrays in host memory, which Ray shares with all workers of a node without a copy."""

    mels: NDArray[np.float16]
    track: NDArray[np.int64]
    genre: NDArray[np.int64]
    n_genres: int

    @cached_property
    def digest(self) -> str:
        """Hash of the mels, part of the identity of their activations."""
        hashed = hashlib.sha256(str(self.mels.shape).encode())
        hashed.update(np.ascontiguousarray(self.mels).data)
        return hashed.hexdigest()

    def to(self, device: torch.device, *, stream: bool = False) -> Segments:
        """Move to a device. On the CPU the tensors share the arrays' memory and must not be written to.

        Args:
            device: the device to train on.
            stream: whether the mels stay on the host even if the device has room for them.
        """
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            mels, track, genre = (torch.from_numpy(array) for array in (self.mels, self.track, self.genre))
        fits = device.type == "cpu" or (
            not stream and mels.nbytes <= GPU_SHARE * torch.cuda.mem_get_info(device)[0]
        )
        return Segments(
            mels=mels.to(device) if fits else mels,
            track=track.to(device),
            genre=genre.to(device),
            n_genres=self.n_genres,
            digest=self.digest,
        )


def level_statistics(segments: Segments) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of training segments' levels in dB, each [channels]."""
    count = segments.mels[:, 0].numel()
    total = squares = torch.zeros(segments.mels.shape[1], dtype=torch.float64, device=segments.mels.device)
    for chunk in torch.split(segments.mels, _CHUNK):
        levels = chunk.double()
        total = total + levels.sum(dim=(0, 2, 3))
        squares = squares + levels.square().sum(dim=(0, 2, 3))
    mean = total / count
    return mean, (squares / count - mean.square()).clamp_min(1.0).sqrt()
