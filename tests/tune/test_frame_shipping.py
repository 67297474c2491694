"""Shipping of spectrograms to a node without the store: once per node, found again, and bounded."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from stores import in_one_file

from genre_core.audio.mel import front_end
from genre_core.corpus import mel_parts, spectrogram_store
from genre_core.corpus.audit import audit
from genre_core.corpus.spectrogram_store import SpectrogramStore, open_or_build, open_store
from genre_core.corpus.tracks import read_corpus
from genre_core.errors import InputError
from genre_core.synthetic.corpus import SyntheticCorpus, write
from genre_core.system.disk_cache import NodeCache
from genre_core.training.frames import FrameFiles, SegmentReader
from genre_core.training.segments import SegmentArrays
from search.errors import SearchErrorCode
from search.tune.frame_shipping import StoreShards, on_this_node

MEL64 = front_end("mel64")
PLENTY = 2**30


class Head:
    """The store's machine, which remembers what was read."""

    def __init__(self, frames: FrameFiles) -> None:
        self._files = StoreShards(frames)
        self.read_names: list[str] = []

    def expect(self, sizes: Mapping[str, int]) -> None:
        self.expected = dict(sizes)

    def read(self, name: str) -> NDArray[np.uint8]:
        self.read_names.append(name)
        return self._files.read(name)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a store of ten tracks in parts of three."""
    music = tmp_path_factory.mktemp("music")
    write(SyntheticCorpus(tracks_per_genre=1, seconds=4.0, tracks_per_recording=1), music)
    tracks = audit(read_corpus(music), minimum_seconds=3.0, cache=None, workers=2).usable
    with patch.object(mel_parts, "PART_TRACKS", 3):
        return open_or_build(tracks, MEL64, cache=tmp_path_factory.mktemp("cache"), workers=2).folder


@pytest.fixture
def parts(store: Path) -> SegmentArrays:
    """The segments of the store."""
    return _segments(open_store(store, MEL64))


def _segments(opened: SpectrogramStore) -> SegmentArrays:
    """The first segment of each of ten tracks."""
    frames = opened.frames
    assert len(frames.shards) == 4
    first = np.array([first for first, _ in opened.places.values()])
    reader = SegmentReader(frames=frames, first=first, length=64)
    return SegmentArrays(
        mels=reader, track=np.arange(10), genre=np.arange(10), n_genres=10, digest="of these tracks"
    )


def _elsewhere(parts: SegmentArrays) -> SegmentArrays:
    """The same segments as another node sees them, which lacks the files."""
    frames = parts.mels.frames
    assert isinstance(frames, FrameFiles)
    shards = tuple(replace(shard, path=Path("/nowhere") / shard.path.name) for shard in frames.shards)
    return replace(parts, mels=replace(parts.mels, frames=replace(frames, shards=shards)))


def _head(parts: SegmentArrays) -> Head:
    assert isinstance(parts.mels.frames, FrameFiles)
    return Head(parts.mels.frames)


def _all(parts: SegmentArrays) -> torch.Tensor:
    return parts.mels[torch.arange(len(parts.mels))]


def test_a_node_that_sees_the_store_reads_it_in_place(parts: SegmentArrays, tmp_path: Path) -> None:
    assert on_this_node(parts, source=None, cache=NodeCache(tmp_path, budget_bytes=0)) is parts


def test_another_node_gets_each_shard_once_and_only_those_that_it_has_lost(
    parts: SegmentArrays, tmp_path: Path
) -> None:
    head, cache = _head(parts), NodeCache(tmp_path, budget_bytes=PLENTY)
    for _ in range(2):
        copied = on_this_node(_elsewhere(parts), source=head, cache=cache)
        assert torch.equal(_all(copied), _all(parts))
    assert copied.digest == parts.digest
    assert len(head.read_names) == len(set(head.read_names)) == 4
    lost, cut = sorted(path for path in tmp_path.iterdir() if not path.name.startswith("."))[:2]
    assert list(head.expected) == head.read_names
    lost.unlink()
    cut.write_bytes(cut.read_bytes()[:-1])
    assert torch.equal(_all(on_this_node(_elsewhere(parts), source=head, cache=cache)), _all(parts))
    assert sorted(head.read_names[4:]) == sorted(head.expected) == [lost.name, cut.name]


def test_a_store_in_one_file_with_another_layout_at_the_same_path_is_not_read_in_place(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spectrogram_store, "SHARD_BYTES", 3 * 80 * 64 * 2)
    opened = open_store(store, MEL64)
    parts = _segments(open_store(in_one_file(opened, tmp_path / "one"), MEL64))
    assert on_this_node(parts, source=None, cache=NodeCache(tmp_path, budget_bytes=0)) is parts
    index = tmp_path / "one" / "index.json"
    index.write_text(index.read_text().replace("[0, ", "[1, ", 1))
    head, cache = _head(parts), NodeCache(tmp_path / "cache", budget_bytes=PLENTY)
    copied = on_this_node(parts, source=head, cache=cache)
    assert torch.equal(_all(copied), _all(_segments(opened)))
    assert len(head.read_names) == 4


def test_copies_beyond_the_budget_are_refused_with_the_size_that_is_needed(
    parts: SegmentArrays, tmp_path: Path
) -> None:
    head = _head(parts)
    with pytest.raises(InputError) as refused:
        on_this_node(_elsewhere(parts), source=head, cache=NodeCache(tmp_path, budget_bytes=1000))
    assert refused.value.code == SearchErrorCode.DATA_CACHE_TOO_SMALL
    assert "data_cache" in str(refused.value)
    assert head.read_names == []
