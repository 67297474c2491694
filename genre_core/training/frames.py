"""Segments as an index into memory-mapped frames, read batch by batch and ahead of their use."""

import math
import mmap
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FRAME_DTYPE = np.dtype(np.float16)
AHEAD_BYTES = 32 * 2**20
"""Bytes of a mapped file that are requested from the disk before they are used."""
BUFFERS = 3
"""Batches in pinned memory: one that is copied to the GPU, and those that are gathered meanwhile."""


@dataclass(frozen=True, kw_only=True)
class FrameShard:
    """Consecutive frames in a file, float16 [frames, channels, mels]; no segment extends beyond them."""

    path: Path
    offset: int
    """Position in the file, bytes."""
    frames: int
    name: str
    """Equal only for shards with the same content."""


@dataclass(frozen=True, kw_only=True)
class FrameFiles:
    """The frames of a corpus in one or several files, which are mapped when they are first read.

    Only the names of the files are pickled, not their content.
    """

    shards: tuple[FrameShard, ...]
    channels: int
    mels: int

    def __getstate__(self) -> dict[str, Any]:
        """The fields without the maps."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def frame_bytes(self) -> int:
        """Bytes of a frame."""
        return self.channels * self.mels * FRAME_DTYPE.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all frames."""
        return self.frame_bytes * sum(shard.frames for shard in self.shards)

    def view(self, first: int, count: int) -> NDArray[np.float16]:
        """Frames of one shard without a copy, [count, channels, mels]."""
        number = int(np.searchsorted(self._starts, first, side="right")) - 1
        at = first - int(self._starts[number])
        return self._maps[number].frames[at : at + count]

    def read(self, firsts: NDArray[np.int64], out: NDArray[np.float16]) -> None:
        """Copy the segments that begin with these frames to `out`, [segments, channels, mels, frames]."""
        maps, count = self._maps, out.shape[-1]
        for row, number, at in zip(out, *self._located(firsts), strict=True):
            row[...] = maps[number].frames[at : at + count].transpose(1, 2, 0)

    def will_need(self, firsts: NDArray[np.int64], count: int) -> None:
        """Ask the system to read segments of `count` frames from the disk; does not wait."""
        maps, size = self._maps, self.frame_bytes
        for number, at in zip(*self._located(firsts), strict=True):
            maps[number].will_need(at * size, count * size)

    def _located(self, firsts: NDArray[np.int64]) -> tuple[list[int], list[int]]:
        """The shard of each frame, and its position there."""
        numbers = np.searchsorted(self._starts, firsts, side="right") - 1
        return numbers.tolist(), (firsts - self._starts[numbers]).tolist()

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """The number of each shard's first frame."""
        return np.cumsum([0, *(shard.frames for shard in self.shards[:-1])])

    @cached_property
    def _maps(self) -> list["_Map"]:
        return [_Map(shard, channels=self.channels, mels=self.mels) for shard in self.shards]


class _Map:
    """A shard in memory: pages are read on access and shared by all processes."""

    def __init__(self, shard: FrameShard, *, channels: int, mels: int) -> None:
        size = shard.frames * channels * mels * FRAME_DTYPE.itemsize
        before = shard.offset % mmap.ALLOCATIONGRANULARITY
        with shard.path.open("rb") as file:
            self._map = mmap.mmap(
                file.fileno(), before + size, access=mmap.ACCESS_READ, offset=shard.offset - before
            )
        self._before = before
        # segments are read in random order: reading ahead of the accessed page would read the file many times
        self._map.madvise(mmap.MADV_RANDOM)
        values = np.frombuffer(self._map, FRAME_DTYPE, offset=before, count=size // FRAME_DTYPE.itemsize)
        self.frames: NDArray[np.float16] = values.reshape(shard.frames, channels, mels)

    def will_need(self, start: int, size: int) -> None:
        start += self._before
        page = start - start % mmap.PAGESIZE
        self._map.madvise(mmap.MADV_WILLNEED, page, start + size - page)


@dataclass(frozen=True, kw_only=True)
class FrameArray:
    """Frames in memory, float16 [frames, channels, mels]."""

    frames: NDArray[np.float16]

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.frames.shape[1])

    @property
    def mels(self) -> int:
        """Number of mel bands."""
        return int(self.frames.shape[2])

    def read(self, firsts: NDArray[np.int64], out: NDArray[np.float16]) -> None:
        """See `FrameFiles.read`."""
        for row, first in zip(out, firsts.tolist(), strict=True):
            row[...] = self.frames[first : first + out.shape[-1]].transpose(1, 2, 0)

    def will_need(self, firsts: NDArray[np.int64], count: int) -> None:
        """Do nothing."""


class Rows(Protocol):
    """An array on the host whose rows are looked up."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape, [rows, ...]."""

    @property
    def dtype(self) -> torch.dtype:
        """The type of its values."""

    def gather(self, rows: Tensor, out: Tensor) -> None:
        """Copy the rows with these indices, int64 [batch], to `out`."""

    def will_need(self, rows: Tensor) -> None:
        """Start to read these rows if they are on disk."""


@dataclass(frozen=True, kw_only=True)
class SegmentReader:
    """Segments of equal length, each given by its first frame; a row is float16 [channels, mels, frames], dB."""

    frames: FrameFiles | FrameArray
    first: NDArray[np.int64]
    """int64 [segments]"""
    length: int
    """Frames of a segment."""

    @classmethod
    def of(cls, mels: NDArray[np.float16]) -> "SegmentReader":
        """Segments in memory, [segments, channels, mels, frames]."""
        count, channels, bands, length = mels.shape
        frames = np.ascontiguousarray(mels.transpose(0, 3, 1, 2)).reshape(count * length, channels, bands)
        return cls(frames=FrameArray(frames=frames), first=np.arange(count) * length, length=length)

    def __len__(self) -> int:
        return len(self.first)

    @property
    def shape(self) -> tuple[int, ...]:
        """[segments, channels, mels, frames]"""
        return (len(self.first), self.frames.channels, self.frames.mels, self.length)

    @property
    def dtype(self) -> torch.dtype:
        """float16."""
        return torch.float16

    @property
    def nbytes(self) -> int:
        """Bytes of all segments once gathered."""
        return math.prod(self.shape) * FRAME_DTYPE.itemsize

    def __getitem__(self, segments: Tensor) -> Tensor:
        """The segments with these indices, int64 [batch] on the CPU -> [batch, channels, mels, frames]."""
        out = torch.empty((len(segments), *self.shape[1:]), dtype=self.dtype)
        self.gather(segments, out)
        return out

    def gather(self, rows: Tensor, out: Tensor) -> None:
        """See `Rows`."""
        self.frames.read(self.first[rows.numpy()], out.numpy())

    def will_need(self, rows: Tensor) -> None:
        """See `Rows`."""
        self.frames.will_need(self.first[rows.numpy()], self.length)


@dataclass(frozen=True, kw_only=True)
class TensorRows:
    """The rows of a tensor on the host, which may be a mapped file."""

    tensor: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Rows`."""
        return tuple(self.tensor.shape)

    @property
    def dtype(self) -> torch.dtype:
        """See `Rows`."""
        return self.tensor.dtype

    def gather(self, rows: Tensor, out: Tensor) -> None:
        """See `Rows`."""
        torch.index_select(self.tensor, 0, rows, out=out)

    def will_need(self, rows: Tensor) -> None:
        """Do nothing: only what fits into memory is stored."""


Sent = tuple[Tensor, Callable[[], object]]
"""A batch on the device, and a function that waits until its source may be overwritten."""


def in_batches(rows: Rows, batches: Sequence[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Read rows in batches, so that reading and copying the next ones overlap with the use of one.

    Args:
        rows: where to read.
        batches: indices, int64 [batch] each, on any device.
        device: of the yielded batches.

    Yields:
        [batch, ...] on the device, for each batch.
    """
    if not batches:
        return
    wanted = _on_host(batches)
    if device.type == "cpu":
        # here, not in another thread: what a thread gains on the disk, it costs when all pages are in memory
        requested = _Requested(rows, wanted)
        for batch in wanted:
            yield requested.gather(batch, torch.empty((len(batch), *rows.shape[1:]), dtype=rows.dtype))
        return
    shape = (max(map(len, wanted)), *rows.shape[1:])
    buffers = [torch.empty(shape, dtype=rows.dtype, pin_memory=True) for _ in range(BUFFERS)]
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    yield from sent_ahead(rows, wanted, buffers, partial(_send, stream=stream))


def in_order(rows: Rows, size: int, device: torch.device) -> Iterator[Tensor]:
    """All rows in order, `size` at a time, on the device."""
    return in_batches(rows, torch.split(torch.arange(rows.shape[0]), size), device)


def sent_ahead(
    rows: Rows, batches: Sequence[Tensor], buffers: Sequence[Tensor], send: Callable[[Tensor], Sent]
) -> Iterator[Tensor]:
    """Gather batches into buffers in another thread, and send each when it is asked for.

    The thread does nothing but read, since CUDA calls of another thread would break the capture of a graph.
    """
    left, free, requested = iter(batches), deque(buffers), _Requested(rows, batches)
    gathering: deque[Future[Tensor]] = deque()

    def gather(batch: Tensor, buffer: Tensor) -> Tensor:
        requested.gather(batch, buffer[: len(batch)])
        return buffer

    with ThreadPoolExecutor(1) as thread:
        for batch in islice(left, len(free)):
            gathering.append(thread.submit(gather, batch, free.popleft()))
        for batch in batches:
            buffer = gathering.popleft().result()
            on_device, wait = send(buffer[: len(batch)])
            yield on_device
            wait()
            if (later := next(left, None)) is not None:
                gathering.append(thread.submit(gather, later, buffer))


class _Requested:
    """Rows that are gathered in batches, in order, and requested from the disk some batches before."""

    def __init__(self, rows: Rows, batches: Sequence[Tensor]) -> None:
        self._rows, self._left = rows, iter(batches)
        batch_bytes = len(batches[0]) * math.prod(rows.shape[1:]) * rows.dtype.itemsize
        self._ahead = 1 + AHEAD_BYTES // batch_bytes

    def gather(self, batch: Tensor, out: Tensor) -> Tensor:
        for later in islice(self._left, self._ahead):
            self._rows.will_need(later)
        self._ahead = 1
        self._rows.gather(batch, out)
        return out


def _send(source: Tensor, *, stream: torch.cuda.Stream) -> Sent:
    """Copy from pinned memory on a stream of its own; work that is queued later waits for the copy."""
    with torch.cuda.stream(stream):
        copied = source.to(stream.device, non_blocking=True)
        event = stream.record_event()
    current = torch.cuda.current_stream(stream.device)
    current.wait_event(event)
    copied.record_stream(current)
    return copied, event.synchronize


def _on_host(batches: Sequence[Tensor]) -> Sequence[Tensor]:
    """The batches in host memory; those of a GPU in one copy."""
    if batches[0].device.type == "cpu":
        return batches
    return torch.split(torch.cat(list(batches)).cpu(), [len(batch) for batch in batches])
