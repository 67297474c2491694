"""Spectrograms through a storage: uploaded once and only on request, found by other searches, Ray as the way out."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow.fs
import pytest
import torch
from s3_server import SECRET, Server, until

from genre_core.system.disk_cache import NodeCache
from genre_core.training.frames import FrameFiles, FrameShard, SegmentReader
from genre_core.training.segments import SegmentArrays
from search.run.remote_folder import RemoteFolder
from search.tune.frame_shipping import StoreShards, on_this_node
from search.tune.stored_frames import AHEAD_SHARDS, FOLDER, GIVE_UP_SHARDS, ShardUploads, StoredFrames

PLENTY = 2**30
SHARDS, FRAMES, CHANNELS, MELS = 6, 40, 1, 16
SIZE = FRAMES * CHANNELS * MELS * 2
"""Bytes of a shard."""


@pytest.fixture(params=["file", "s3"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder, and a bucket that tests share."""
    if request.param == "file":
        return (tmp_path / "storage").as_uri()
    real: Server = request.getfixturevalue("server")
    return real.address()


@pytest.fixture
def frames(tmp_path: Path, request: pytest.FixtureRequest) -> FrameFiles:
    """The files of a store on the head; the names of its shards are the test's own."""
    generator = np.random.default_rng(0)
    shards = []
    for number in range(SHARDS):
        name = f"{abs(hash(request.node.name)):x}-{number}.f16"
        path = tmp_path / "head" / name
        path.parent.mkdir(exist_ok=True)
        generator.standard_normal(FRAMES * CHANNELS * MELS).astype(np.float16).tofile(path)
        shards.append(FrameShard(path=path, offset=0, frames=FRAMES, name=name))
    return FrameFiles(shards=tuple(shards), channels=CHANNELS, mels=MELS)


def _parts(frames: FrameFiles, *, elsewhere: bool = True) -> SegmentArrays:
    """A segment of each shard, as a node sees it that lacks the files."""
    if elsewhere:
        frames = replace(
            frames, shards=tuple(replace(s, path=Path("/nowhere") / s.name) for s in frames.shards)
        )
    reader = SegmentReader(frames=frames, first=np.arange(SHARDS) * FRAMES, length=20)
    ones = np.arange(SHARDS)
    return SegmentArrays(mels=reader, track=ones, genre=ones, n_genres=SHARDS, digest="these")


def _values(parts: SegmentArrays) -> torch.Tensor:
    return parts.mels[torch.arange(SHARDS)]


@contextmanager
def _uploading(
    head: StoreShards, frames: FrameFiles, address: str, said: list[str] | None = None
) -> Iterator[None]:
    say = print if said is None else said.append
    with ShardUploads(head, frames, address, say=say, poll_seconds=0.01):
        yield


def _source(head: StoreShards, address: str, patience_seconds: float = 60.0) -> StoredFrames:
    return StoredFrames(
        head, address, waiting=nullcontext, poll_seconds=0.01, patience_seconds=patience_seconds
    )


def _fetch(head: StoreShards, frames: FrameFiles, address: str, folder: Path) -> None:
    """Let a node without the store fetch it, and compare what it reads."""
    cache = NodeCache(folder, budget_bytes=PLENTY)
    copied = on_this_node(_parts(frames), source=_source(head, address), cache=cache)
    assert torch.equal(_values(copied), _values(_parts(frames, elsewhere=False)))


def _stored(address: str, frames: FrameFiles) -> dict[str, int]:
    """The shards at an address, read by pyarrow alone."""
    system, path = pyarrow.fs.FileSystem.from_uri(address)
    selector = pyarrow.fs.FileSelector(f"{path}/{FOLDER}", recursive=True, allow_not_found=True)
    own = {shard.name for shard in frames.shards}
    return {i.base_name: i.size for i in system.get_file_info(selector) if i.base_name in own}


def test_every_node_and_a_later_search_read_what_was_uploaded_once(
    address: str, frames: FrameFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploaded: list[str] = []
    upload = RemoteFolder.upload

    def remember(folder: RemoteFolder, name: str, source: BinaryIO) -> None:
        uploaded.append(name)
        upload(folder, name, source)

    monkeypatch.setattr(RemoteFolder, "upload", remember)
    head = StoreShards(frames)
    with _uploading(head, frames, address):
        for node in ("one", "two"):
            _fetch(head, frames, address, tmp_path / node)
    assert head.traffic() == (0, 2 * SHARDS * SIZE)
    assert _stored(address, frames) == {shard.name: SIZE for shard in frames.shards}
    later = StoreShards(frames)
    _fetch(later, frames, address, tmp_path / "three")  # without a driver that uploads
    assert later.traffic() == (0, SHARDS * SIZE)
    assert later.requested() == []
    assert uploaded == [shard.name for shard in frames.shards]


class PolledHead(StoreShards):
    """Counts how often the driver has looked for requests."""

    polls = 0

    def requested(self) -> list[str]:
        self.polls += 1
        return super().requested()


def test_nothing_is_uploaded_before_a_node_lacks_something(frames: FrameFiles, tmp_path: Path) -> None:
    head = PolledHead(frames)
    address = (tmp_path / "storage").as_uri()
    with _uploading(head, frames, address):
        here = _parts(frames, elsewhere=False)
        nowhere = NodeCache(tmp_path, budget_bytes=0)
        assert on_this_node(here, source=_source(head, address), cache=nowhere) is here
        until(lambda: head.polls > 3)
    assert not (tmp_path / "storage").exists()


def test_a_shard_of_another_size_in_the_storage_is_uploaded_again(frames: FrameFiles, tmp_path: Path) -> None:
    cut = tmp_path / "storage" / FOLDER / frames.shards[0].name
    cut.parent.mkdir(parents=True)
    cut.write_bytes(b"half")
    head, address = StoreShards(frames), (tmp_path / "storage").as_uri()
    with _uploading(head, frames, address):
        _fetch(head, frames, address, tmp_path / "node")
    assert head.traffic() == (0, SHARDS * SIZE)
    assert cut.stat().st_size == SIZE


@pytest.mark.parametrize("kind", ["wrong secret", "another folder"])
def test_a_node_that_cannot_read_the_storage_reads_through_ray_and_the_user_hears_it_once(
    kind: str, frames: FrameFiles, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if kind == "another folder":
        address, seen = (tmp_path / "storage").as_uri(), (tmp_path / "not-mounted").as_uri()
    else:
        server: Server = request.getfixturevalue("server")
        address, seen = server.address(), server.address(secret="wrong-and-hidden")
    said: list[str] = []
    head = StoreShards(frames)
    with _uploading(head, frames, address, said):
        for node in ("one", "two"):
            _fetch(head, frames, seen, tmp_path / node)
    assert head.traffic() == (2 * SHARDS * SIZE, 0)
    assert len(said) == 1
    assert "--storage" in said[0]
    assert "Ray" in said[0]
    assert "hidden" not in said[0]
    assert SECRET not in said[0]
    assert len(_stored(address, frames)) <= AHEAD_SHARDS, "a node that cannot read them asks for few"


def test_shards_that_cannot_be_uploaded_are_read_through_ray_and_given_up_after_a_few(
    frames: FrameFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def refuse(folder: RemoteFolder, name: str, source: BinaryIO) -> None:
        tried.append(name)
        raise OSError("no space left")

    monkeypatch.setattr(RemoteFolder, "upload", refuse)
    said: list[str] = []
    head, address = StoreShards(frames), (tmp_path / "storage").as_uri()
    with _uploading(head, frames, address, said):
        _fetch(head, frames, address, tmp_path / "node")
    assert head.traffic() == (SHARDS * SIZE, 0)
    assert len(tried) == GIVE_UP_SHARDS
    assert len(said) == 1
    assert "no space left" in said[0]


def test_a_node_does_not_wait_forever_for_a_driver_that_uploads_nothing(
    frames: FrameFiles, tmp_path: Path
) -> None:
    head = StoreShards(frames)
    source = _source(head, (tmp_path / "storage").as_uri(), patience_seconds=0.02)
    cache = NodeCache(tmp_path / "node", budget_bytes=PLENTY)
    copied = on_this_node(_parts(frames), source=source, cache=cache)
    assert torch.equal(_values(copied), _values(_parts(frames, elsewhere=False)))
    assert head.traffic() == (SHARDS * SIZE, 0)


def test_a_restarted_actor_is_asked_again(frames: FrameFiles, tmp_path: Path) -> None:
    address = (tmp_path / "storage").as_uri()
    head = StoreShards(frames)
    is_uploaded: Callable[[str], bool | None] = head.is_uploaded
    forgot: list[str] = []

    def forget_once(name: str) -> bool | None:
        if not forgot:
            forgot.append(name)
            head._uploaded.clear()
        return is_uploaded(name)

    head.is_uploaded = forget_once  # type: ignore[method-assign]
    with _uploading(head, frames, address):
        _fetch(head, frames, address, tmp_path / "node")
    assert forgot
    assert head.traffic() == (0, SHARDS * SIZE)
