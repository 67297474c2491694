"""The segments of a set of tracks, resident on one device, each knowing its track and each track its genre."""

from dataclasses import dataclass

import torch
from torch import Tensor

_CHUNK = 256
"""Segments whose levels are summed up at a time: as 64-bit numbers they take four times their room."""


@dataclass(frozen=True, kw_only=True)
class Segments:
    """Equal cuts of tracks' mels, in track order."""

    mels: Tensor
    """float16 [segments, channels, mels, frames], dB."""
    track: Tensor
    """int64 [segments]: which track a segment belongs to."""
    genre: Tensor
    """int64 [tracks]: index of the track's genre."""
    n_genres: int

    def __len__(self) -> int:
        return len(self.mels)

    @property
    def n_tracks(self) -> int:
        """How many tracks the segments come from."""
        return len(self.genre)


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
