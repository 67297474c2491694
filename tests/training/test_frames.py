"""Segments read from mapped files: the same bits as stacked copies, in any order, ahead of their use."""

import pickle
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import noise
import numpy as np
import pytest
import torch
from noise import RECIPE, TRAIN, VALIDATION
from numpy.typing import NDArray
from torch import Tensor

from genre_core.system.disk_cache import NodeCache
from genre_core.training import frames, segments
from genre_core.training.fine_tune import FineTune
from genre_core.training.frames import (
    FrameFiles,
    FrameShard,
    SegmentReader,
    Sent,
    TensorRows,
    in_batches,
    in_order,
    sent_ahead,
)
from genre_core.training.segments import Segments, level_statistics, shared_level_statistics

CPU = torch.device("cpu")
LENGTHS = (10, 25, 7, 40, 12)
"""Frames of each track."""
LENGTH = 6
"""Frames of a segment."""


def _tracks(channels: int) -> list[NDArray[np.float16]]:
    """Mels of tracks, [frames, channels, 5] each."""
    random = np.random.default_rng(0)
    return [random.normal(-50, 15, (length, channels, 5)).astype(np.float16) for length in LENGTHS]


def _written(
    tracks: Sequence[NDArray[np.float16]], cuts: Sequence[Sequence[int]], folder: Path
) -> FrameFiles:
    """The tracks in files: `cuts` has the numbers of tracks in each shard, for each file."""
    left, shards = iter(tracks), []
    for number, counts in enumerate(cuts):
        path, offset = folder / f"{number}.f16", 14
        with path.open("wb") as file:
            file.write(bytes(offset))
            for count in counts:
                own = np.concatenate([next(left) for _ in range(count)])
                own.tofile(file)
                shards.append(
                    FrameShard(path=path, offset=offset, frames=len(own), name=f"{number}-{offset}")
                )
                offset += own.nbytes
    return FrameFiles(shards=tuple(shards), channels=tracks[0].shape[1], mels=tracks[0].shape[2])


def _reader(frames: FrameFiles) -> tuple[SegmentReader, list[tuple[int, int]]]:
    """Each track's first and last segment, and their tracks and first frames there."""
    places = [(track, first) for track, length in enumerate(LENGTHS) for first in (0, length - LENGTH)]
    begins = np.cumsum([0, *LENGTHS])
    first = np.array([begins[track] + first for track, first in places])
    return SegmentReader(frames=frames, first=first, length=LENGTH), places


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "cuts", [[[5]], [[2, 3]], [[1], [1, 2], [1]]], ids=["one", "two parts", "three files"]
)
def test_segments_in_files_equal_stacked_copies(cuts: list[list[int]], channels: int, tmp_path: Path) -> None:
    tracks = _tracks(channels)
    frames = _written(tracks, cuts, tmp_path)
    reader, places = _reader(frames)
    stacked = np.stack([tracks[track][at : at + LENGTH].transpose(1, 2, 0) for track, at in places])
    assert reader.shape == stacked.shape
    assert reader.nbytes == stacked.nbytes
    order = torch.randperm(len(reader))
    assert np.array_equal(reader[order].numpy(), stacked[order.numpy()])
    assert np.array_equal(frames.view(sum(LENGTHS[:3]), LENGTHS[3]), tracks[3])


@pytest.mark.parametrize("sizes", [[10], [1, 9], [4, 3, 3], [3, 1, 1, 5]])
def test_batches_of_any_size_equal_a_lookup(sizes: list[int], tmp_path: Path) -> None:
    reader, _ = _reader(_written(_tracks(1), [[2, 3]], tmp_path))
    batches = torch.split(torch.randperm(len(reader)), sizes)
    read = list(in_batches(reader, batches, CPU))
    assert [len(part) for part in read] == sizes
    assert all(torch.equal(part, reader[batch]) for part, batch in zip(read, batches, strict=True))
    assert torch.equal(torch.cat(list(in_order(reader, 4, CPU))), reader[torch.arange(len(reader))])


class _Rows(TensorRows):
    """Rows that say when the second batch is gathered."""

    def gather(self, rows: Tensor, out: Tensor) -> None:
        super().gather(rows, out)
        if 2 in rows:
            SECOND.set()


SECOND = threading.Event()


@pytest.mark.parametrize("buffers", [1, 2, 3, 9])
def test_a_buffer_is_not_overwritten_until_its_batch_was_sent(buffers: int) -> None:
    """The batch given out is the buffer itself, and is looked at before the next one is asked for."""
    rows = TensorRows(tensor=torch.rand(20, 3))
    batches = torch.split(torch.randperm(20), [3, 3, 3, 3, 3, 3, 2])
    waited = []

    def send(source: Tensor) -> Sent:
        return source, lambda: waited.append(len(source))

    spare = [torch.empty(3, 3) for _ in range(buffers)]
    sent = [part.clone() for part in sent_ahead(rows, batches, spare, send)]
    assert torch.equal(torch.cat(sent), rows.tensor[torch.cat(batches)])
    assert waited == [len(batch) for batch in batches]


def test_the_next_batch_is_gathered_while_one_is_used() -> None:
    rows, batches = _Rows(tensor=torch.rand(4, 3)), torch.split(torch.arange(4), 2)
    SECOND.clear()
    sent = sent_ahead(rows, batches, [torch.empty(2, 3) for _ in range(2)], lambda source: (source, bool))
    next(sent)
    assert SECOND.wait(60)


def test_files_are_sent_to_other_processes_by_name(tmp_path: Path) -> None:
    frames = _written([np.zeros((10_000, 1, 64), np.float16)], [[1]], tmp_path)
    frames.view(0, 1)
    sent = pickle.dumps(frames)
    assert len(sent) < 1000
    assert pickle.loads(sent).view(9_000, 2).shape == (2, 1, 64)


def _in_file(of: Segments, path: Path) -> Segments:
    """The same segments in a file."""
    mels = noise.mels(of).numpy()
    mels.transpose(0, 3, 1, 2).tofile(path)
    count, channels, bands, length = mels.shape
    shard = FrameShard(path=path, offset=0, frames=count * length, name=path.name)
    frames = FrameFiles(shards=(shard,), channels=channels, mels=bands)
    reader = SegmentReader(frames=frames, first=np.arange(count) * length, length=length)
    return replace(of, mels=reader)


@pytest.mark.parametrize("frozen_blocks", [0, 2, 5])
@pytest.mark.parametrize("augment_at", ["cut", "input"])
def test_a_fine_tune_from_files_has_the_bits_of_one_from_stacked_copies(
    frozen_blocks: int, augment_at: str, tmp_path: Path
) -> None:
    recipe = replace(RECIPE, frozen_blocks=frozen_blocks, augment_at=augment_at, masking=0.2, mixup=0.2)
    stacked = [replace(part, mels=noise.mels(part)) for part in (TRAIN, VALIDATION)]
    in_files = [_in_file(part, tmp_path / f"{n}.f16") for n, part in enumerate((TRAIN, VALIDATION))]
    mean, std = level_statistics(in_files[0])
    assert (mean.tolist(), std.tolist()) == tuple(s.tolist() for s in level_statistics(stacked[0]))
    found = []
    for name, (train, validation) in {"stacked": stacked, "files": in_files}.items():
        cache = NodeCache(tmp_path / name, budget_bytes=2**30)
        tune = FineTune(
            noise.network(recipe, cache, train), recipe, train=train, validation=validation, node_cache=cache
        )
        found.append([(r.train_loss, r.val_loss, r.predicted) for r in (tune.epoch(), tune.epoch())])
    assert found[0] == found[1]


def test_levels_are_computed_once_on_a_node_and_have_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = NodeCache(tmp_path, budget_bytes=2**20)
    expected = level_statistics(TRAIN)
    first = shared_level_statistics(TRAIN, cache)
    (file,) = tmp_path.glob("levels-*")
    monkeypatch.delattr(segments, "level_statistics")
    second = shared_level_statistics(TRAIN, cache)
    for found in (first, second):
        assert [torch.equal(one, other) for one, other in zip(found, expected, strict=True)] == [True, True]
    monkeypatch.undo()
    file.write_bytes(file.read_bytes()[:-9])
    assert torch.equal(shared_level_statistics(TRAIN, cache)[0], expected[0])
    other = shared_level_statistics(VALIDATION, cache)
    assert torch.equal(other[0], level_statistics(VALIDATION)[0])


class _Recorded(TensorRows):
    """Rows in a file of which it is recorded in which order they are requested and read."""

    def will_need(self, rows: Tensor) -> None:
        CALLS.append(("request", int(rows[0])))

    def gather(self, rows: Tensor, out: Tensor) -> None:
        CALLS.append(("read", int(rows[0])))
        super().gather(rows, out)


CALLS: list[tuple[str, int]] = []


@pytest.mark.parametrize("sent", [False, True], ids=["read by the CPU", "sent to a GPU"])
@pytest.mark.parametrize(("ahead_bytes", "ahead"), [(0, 1), (2 * 12, 3), (10**6, 7)])
def test_batches_are_requested_once_and_a_bounded_number_ahead(
    ahead_bytes: int, ahead: int, sent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "AHEAD_BYTES", ahead_bytes)
    rows, batches = _Recorded(tensor=torch.rand(7, 3)), torch.split(torch.arange(7), 1)
    CALLS.clear()
    if sent:
        buffers = [torch.empty(1, 3) for _ in range(2)]
        read = [b.clone() for b in sent_ahead(rows, batches, buffers, lambda source: (source, bool))]
    else:
        read = list(in_batches(rows, batches, CPU))
    assert torch.equal(torch.cat(read), rows.tensor)
    assert [number for call, number in CALLS if call == "request"] == list(range(7))
    assert [number for call, number in CALLS if call == "read"] == list(range(7))
    at = [CALLS.index(("read", number)) for number in range(7)]
    requested = [sum(call == "request" for call, _ in CALLS[:place]) for place in at]
    assert requested == [min(7, number + ahead) for number in range(7)]


class _Unreadable(TensorRows):
    """Rows in a file that breaks in the second batch."""

    def gather(self, rows: Tensor, out: Tensor) -> None:
        if 2 in rows:
            raise OSError("the disk is broken")
        super().gather(rows, out)


@pytest.mark.parametrize("broken", [True, False])
def test_an_epoch_that_fails_or_is_given_up_leaves_no_thread_and_shows_its_error(broken: bool) -> None:
    rows = (_Unreadable if broken else TensorRows)(tensor=torch.rand(8, 3))
    before, buffers = threading.active_count(), [torch.empty(2, 3) for _ in range(2)]
    batches = torch.split(torch.arange(8), 2)
    sent = sent_ahead(rows, batches, buffers, lambda source: (source, bool))
    assert torch.equal(next(sent), rows.tensor[:2])
    assert threading.active_count() == before + 1
    if broken:
        with pytest.raises(OSError, match="broken"):
            next(sent)
    del sent
    assert threading.active_count() == before
