"""Segments of a set of tracks with their tracks and genres, stored on the device or read from files in batches."""

import hashlib
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genre_core.system.disk_cache import NodeCache
from genre_core.training.frames import SegmentReader, in_batches, in_order

_CHUNK = 256
"""Segments whose statistics are computed at a time, because as float64 they take four times the memory."""
_HEADER_BYTES = 128
"""Of a file of numpy."""
GPU_SHARE = 0.5
"""Maximum fraction of a GPU's free memory for segments; above it, batches are sent to the GPU."""


@dataclass(frozen=True, kw_only=True)
class Segments:
    """Segments of equal length from tracks' mels, in track order."""

    mels: Tensor | SegmentReader
    """float16 [segments, channels, mels, frames], dB; a reader on the CPU, or if a GPU has no room for them."""
    track: Tensor
    """int64 [segments]: index of the segment's track."""
    genre: Tensor
    """int64 [tracks]: index of the track's genre."""
    n_genres: int
    digest: str
    """See `SegmentArrays.digest`."""

    def __len__(self) -> int:
        return len(self.mels)

    @property
    def n_tracks(self) -> int:
        """Number of tracks that the segments come from."""
        return len(self.genre)

    @property
    def device(self) -> torch.device:
        """Device of the batches."""
        return self.genre.device

    @property
    def resident(self) -> bool:
        """Whether the mels need not be copied to the device."""
        return isinstance(self.mels, Tensor) or self.device.type == "cpu"

    def batches(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """Mels of each batch of segments, int64 [batch] -> [batch, channels, mels, frames], on the device."""
        if isinstance(self.mels, SegmentReader):
            return in_batches(self.mels, batches, self.device)
        mels = self.mels
        return (mels[batch] for batch in batches)

    def in_order(self, size: int) -> Iterator[Tensor]:
        """Mels of all segments in order, `size` segments at a time, on the device."""
        if isinstance(self.mels, SegmentReader):
            return in_order(self.mels, size, self.device)
        return iter(torch.split(self.mels, size))

    def mels_of(self, segments: Tensor) -> Tensor:
        """Mels of the segments with these indices, on the device."""
        return next(self.batches([segments]))


@dataclass(frozen=True, kw_only=True)
class SegmentArrays:
    """The fields of `Segments` in host memory or in files, which all workers of a node share without a copy."""

    mels: SegmentReader
    track: NDArray[np.int64]
    genre: NDArray[np.int64]
    n_genres: int
    digest: str
    """Equal only for equal mels in the same order: part of the identity of their activations."""

    @classmethod
    def of(
        cls, mels: NDArray[np.float16], *, track: NDArray[np.int64], genre: NDArray[np.int64], n_genres: int
    ) -> "SegmentArrays":
        """Segments in memory, [segments, channels, mels, frames]; their digest is a hash of all values."""
        hashed = hashlib.sha256(str(mels.shape).encode())
        hashed.update(np.ascontiguousarray(mels).data)
        reader = SegmentReader.of(mels)
        return cls(mels=reader, track=track, genre=genre, n_genres=n_genres, digest=hashed.hexdigest())

    def to(self, device: torch.device, *, stream: bool | None = None) -> Segments:
        """Move to a device. On the CPU the tensors share the arrays' memory and must not be written to.

        Args:
            device: the device to train on.
            stream: whether the mels stay on the host; None: if a GPU has no room for them.
        """
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            track, genre = torch.from_numpy(self.track), torch.from_numpy(self.genre)
        if device.type == "cpu":
            stays = True
        elif stream is None:
            stays = self.mels.nbytes > GPU_SHARE * torch.cuda.mem_get_info(device)[0]
        else:
            stays = stream
        return Segments(
            mels=self.mels if stays else _copied(self.mels, device),
            track=track.to(device),
            genre=genre.to(device),
            n_genres=self.n_genres,
            digest=self.digest,
        )


def level_statistics(segments: Segments) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of training segments' levels in dB, each [channels]."""
    count = segments.mels.shape[0] * segments.mels.shape[2] * segments.mels.shape[3]
    total = squares = torch.zeros(segments.mels.shape[1], dtype=torch.float64, device=segments.device)
    for chunk in segments.in_order(_CHUNK):
        levels = chunk.double()
        total = total + levels.sum(dim=(0, 2, 3))
        squares = squares + levels.square().sum(dim=(0, 2, 3))
    mean = total / count
    return mean, (squares / count - mean.square()).clamp_min(1.0).sqrt()


def _copied(reader: SegmentReader, device: torch.device) -> Tensor:
    """All segments on a device, without a second copy on the host."""
    mels = torch.empty(reader.shape, dtype=reader.dtype, device=device)
    for part, chunk in zip(torch.split(mels, _CHUNK), in_order(reader, _CHUNK, device), strict=True):
        part.copy_(chunk)
    return mels


def shared_level_statistics(segments: Segments, node_cache: NodeCache) -> tuple[Tensor, Tensor]:
    """`level_statistics`, which one worker of a node computes; the others, and later searches, read the result."""
    if not node_cache.budget_bytes:
        return level_statistics(segments)
    name = _levels_name(segments)
    try:
        with node_cache.lock(name):
            if (stored := _load_levels(node_cache.find(name))) is None:
                stored = torch.stack(level_statistics(segments)).cpu().numpy()
                with node_cache.reserve(name, stored.nbytes + _HEADER_BYTES) as partial:
                    if partial is not None:
                        with partial.open("wb") as file:
                            np.save(file, stored)
    except OSError as error:  # such as a full disk: continue without the cache
        node_cache.record_error(error)
        return level_statistics(segments)
    mean, std = torch.from_numpy(stored).to(segments.device)
    return mean, std


def _levels_name(segments: Segments) -> str:
    """A file name that is equal only for equal bits: sums depend on the kernels and the number of threads."""
    kernels = (
        [torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()]
        if segments.device.type == "cpu"
        else [torch.cuda.get_device_name(segments.device)]
    )
    key = json.dumps([torch.__version__, kernels, segments.digest])
    return f"levels-{hashlib.sha256(key.encode()).hexdigest()[:24]}.npy"


def _load_levels(path: Path | None) -> NDArray[np.float64] | None:
    """The stored levels, [2, channels]; None if there are none, or the file is damaged."""
    try:
        return None if path is None else np.load(path)
    except (OSError, ValueError, EOFError):
        return None
