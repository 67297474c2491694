"""The segments of a set of tracks, each knowing its track and each track its genre; resident, or sent in batches."""

import hashlib
import warnings
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_CHUNK = 256
"""Segments whose levels are summed up at a time: as 64-bit numbers they take four times their room."""
GPU_SHARE = 0.5
"""Most of a GPU's free memory that segments may take; where they do not fit, batches are sent to it."""


@dataclass(frozen=True, kw_only=True)
class Segments:
    """Equal cuts of tracks' mels, in track order."""

    mels: Tensor
    """float16 [segments, channels, mels, frames], dB; on the CPU where a GPU has no room for them."""
    track: Tensor
    """int64 [segments]: which track a segment belongs to."""
    genre: Tensor
    """int64 [tracks]: index of the track's genre."""
    n_genres: int
    digest: str
    """Of the mels; see `SegmentArrays.digest`."""

    def __len__(self) -> int:
        return len(self.mels)

    @property
    def n_tracks(self) -> int:
        """How many tracks the segments come from."""
        return len(self.genre)

    @property
    def resident(self) -> bool:
        """Whether the mels are on the device that works on them."""
        return self.mels.device == self.genre.device

    def mels_of(self, segments: Tensor) -> Tensor:
        """Mels of the segments with these indices, on the device that works on them."""
        return self.mels[segments.to(self.mels.device)].to(self.genre.device)


@dataclass(frozen=True, kw_only=True)
class SegmentArrays:
    """The fields of `Segments` as arrays on the host: Ray hands them to all workers of a node without a copy."""

    mels: NDArray[np.float16]
    track: NDArray[np.int64]
    genre: NDArray[np.int64]
    n_genres: int

    @cached_property
    def digest(self) -> str:
        """Hash of the mels: what tells their activations from those of others."""
        hashed = hashlib.sha256(str(self.mels.shape).encode())
        hashed.update(np.ascontiguousarray(self.mels).data)
        return hashed.hexdigest()

    def to(self, device: torch.device) -> Segments:
        """On the device; on the CPU they are these arrays' own memory, not to be written to."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            mels, track, genre = (torch.from_numpy(array) for array in (self.mels, self.track, self.genre))
        fits = device.type == "cpu" or mels.nbytes <= GPU_SHARE * torch.cuda.mem_get_info(device)[0]
        return Segments(
            mels=mels.to(device) if fits else mels,
            track=track.to(device),
            genre=genre.to(device),
            n_genres=self.n_genres,
            digest=self.digest,
        )


def level_statistics(segments: Segments) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the segments' levels in dB, each [channels]; of training segments only."""
    count = segments.mels[:, 0].numel()
    total = squares = torch.zeros(segments.mels.shape[1], dtype=torch.float64, device=segments.mels.device)
    for chunk in torch.split(segments.mels, _CHUNK):
        levels = chunk.double()
        total = total + levels.sum(dim=(0, 2, 3))
        squares = squares + levels.square().sum(dim=(0, 2, 3))
    mean = total / count
    return mean, (squares / count - mean.square()).clamp_min(1.0).sqrt()
