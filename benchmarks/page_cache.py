"""Compare training from a store that the page cache does not keep with training from one that it keeps.

    python benchmarks/page_cache.py [--front-end mel64] [--tracks 20000] [--threads 1] [--folder DIR] [--cgroup DIR]

writes a store of noise without audio, and trains random segments of it with networks of the usual size and with a tiny
one (`corpus_size.PROBED`). In one process epochs alternate between two readers of the same segments: one whose pages
are all in the cache, and one that drops each segment's pages from the cache as soon as they were read, so that the next
epoch reads everything from the disk. A page cache of half the store's
size would still have some of the segments. This needs no rights and takes no memory from other processes. "read" is
the ratio of bytes that came from the disk (/proc/self/io) to those of the segments.

With `--cgroup`, the process joins an empty memory control group (version 1 or 2; creating one needs root), whose limit
is set so that half of the store fits besides the memory that training needs. The second reader is then an ordinary one
of other segments in each epoch, about half of which are in the cache, and reading has to free pages:

    mkdir /sys/fs/cgroup/memory/half
    python benchmarks/page_cache.py --cgroup /sys/fs/cgroup/memory/half
    rmdir /sys/fs/cgroup/memory/half
"""

import argparse
import gc
import json
import math
import mmap
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from genre_core.audio.mel import FrontEnd, front_end
from genre_core.models.network import ToImage, build
from genre_core.models.registry import block_names
from genre_core.recipe import Recipe
from genre_core.system.disk_cache import NodeCache
from genre_core.training.fine_tune import FineTune
from genre_core.training.frames import FrameFiles, FrameShard, SegmentReader
from genre_core.training.segments import Segments

sys.path.append(str(Path(__file__).parent))  # where PROBED is found by its name

NETWORKS = ("resnet18", "alexnet", "corpus_size:PROBED")
GENRES, SECONDS, SEGMENT_SECONDS, SEGMENTS_PER_TRACK = 10, 30.0, 3.0, 10
PART_TRACKS = 64
"""Tracks in a file of the store."""
EPOCH_SECONDS, REPEATS = 2.0, 5
"""About how long an epoch takes, and how often each reader is measured."""
WARM_UP = 256
"""Images of the first epochs."""
PAGE = os.sysconf("SC_PAGESIZE")


class Evicted(FrameFiles):
    """Frames of which the page cache keeps nothing that was read."""

    def read(self, firsts: NDArray[np.int64], out: NDArray[np.float16]) -> None:
        """See `FrameFiles.read`."""
        super().read(firsts, out)
        size, count = self.frame_bytes, out.shape[-1]
        for number, at in zip(*self._located(firsts), strict=True):
            page = at * size // PAGE * PAGE
            length = math.ceil(((at + count) * size - page) / PAGE) * PAGE
            self._maps[number]._map.madvise(
                mmap.MADV_DONTNEED, page, length
            )  # mapped pages stay in the cache
            os.posix_fadvise(self._files[number], page, length, os.POSIX_FADV_DONTNEED)

    @cached_property
    def _files(self) -> list[int]:
        return [os.open(shard.path, os.O_RDONLY) for shard in self.shards]


def write_store(folder: Path, tracks: int, settings: FrontEnd) -> FrameFiles:
    """Files of noise as the parts of a store are."""
    frames = 1 + int(SECONDS * settings.sample_rate) // settings.hop_length
    shape = (PART_TRACKS * frames, len(settings.windows), settings.n_mels)
    noise = np.random.default_rng(0).normal(-50, 15, shape).astype(np.float16)
    shards = []
    for number in range(math.ceil(tracks / PART_TRACKS)):
        path = folder / f"{number}.f16"
        with path.open("wb") as file:
            np.roll(noise, number, axis=0).tofile(file)
            os.fsync(file.fileno())
        shards.append(FrameShard(path=path, offset=0, frames=len(noise), name=path.name))
    return FrameFiles(shards=tuple(shards), channels=shape[1], mels=shape[2])


def drop(frames: FrameFiles) -> None:
    """Remove the files from the page cache."""
    for shard in frames.shards:
        file = os.open(shard.path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def reader(frames: FrameFiles, settings: FrontEnd) -> SegmentReader:
    """All segments of the store's tracks."""
    length = 1 + int(SEGMENT_SECONDS * settings.sample_rate) // settings.hop_length
    track = 1 + int(SECONDS * settings.sample_rate) // settings.hop_length
    tracks = np.arange(0, sum(shard.frames for shard in frames.shards), track)
    steps = np.linspace(0, track - length, SEGMENTS_PER_TRACK).astype(np.int64)
    return SegmentReader(frames=frames, first=(tracks[:, None] + steps).ravel(), length=length)


class ControlGroup:
    """A memory control group, version 1 or 2, that this process joins."""

    def __init__(self, folder: Path) -> None:
        """Join."""
        self._folder = folder
        (folder / "cgroup.procs").write_text(str(os.getpid()))

    def limit_cache(self, bytes: int) -> None:
        """Set a limit that leaves so much for the page cache if the process needs as much as it has now."""
        version_1 = self._folder / "memory.usage_in_bytes"
        used = version_1 if version_1.exists() else self._folder / "memory.current"
        limit = self._folder / ("memory.limit_in_bytes" if version_1.exists() else "memory.max")
        limit.write_text(str(bytes + int(used.read_text()) - self.cached_bytes))

    @property
    def cached_bytes(self) -> int:
        """Page cache of the group."""
        facts = dict(line.split() for line in (self._folder / "memory.stat").read_text().splitlines())
        return int(facts.get("cache") or facts["file"])

    def leave(self) -> None:
        """Move to the parent group, so that this one can be removed."""
        (self._folder.parent / "cgroup.procs").write_text(str(os.getpid()))


def read_once(whole: SegmentReader) -> None:
    """Read all segments in random order, after which the page cache holds as much as it may."""
    order = np.random.default_rng(1).permutation(len(whole))
    for rows in torch.split(torch.from_numpy(order), WARM_UP):
        whole.will_need(rows)
        whole[rows]


def segments(whole: SegmentReader, count: int, seed: int = 0) -> Segments:
    """A random choice of the segments, each a track of its own."""
    chosen = np.random.default_rng(seed).choice(len(whole), count, replace=False)
    return Segments(
        mels=replace(whole, first=whole.first[chosen]),
        track=torch.arange(len(chosen)),
        genre=torch.arange(len(chosen)) % GENRES,
        n_genres=GENRES,
        digest=str(len(chosen)),
    )


def fine_tune(backbone: str, frozen_blocks: int, train: Segments, cache: NodeCache) -> FineTune:
    """A fine-tune that stores no activations, as for a corpus whose activations are larger than memory."""
    recipe = Recipe(
        backbone=backbone,
        weights="random",
        frozen_blocks=frozen_blocks,
        learning_rate=1e-4,
        momentum=0.9,
        batch_size=256 if ":" in backbone else 32,
    )
    network = build(
        backbone,
        weights="random",
        n_genres=GENRES,
        frozen_blocks=frozen_blocks,
        image=ToImage(torch.tensor([-50.0]), torch.tensor([15.0])),
        seed=0,
        node_cache=cache,
    )
    return FineTune(network, recipe, train=train, validation=None, node_cache=cache)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """An epoch."""

    images_per_second: float
    reading: float
    """Microseconds per image outside forward, backward and optimiser."""
    from_disk: int
    """Bytes."""


def epoch(tune: FineTune) -> Measured:
    """Train an epoch."""
    count, before, began = len(tune.train_segments), read_bytes(), time.perf_counter()
    tune.train()
    seconds = time.perf_counter() - began
    return Measured(
        images_per_second=count / seconds,
        reading=1e6 * (seconds - tune._arithmetic) / count,
        from_disk=read_bytes() - before,
    )


def read_bytes() -> int:
    """Bytes that this process has caused to be read from the disk."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def compare(
    backbone: str, frozen_blocks: int, frames: FrameFiles, settings: FrontEnd, group: ControlGroup | None
) -> dict[str, object]:
    """Epochs with pages in the cache and without, in turn."""
    second = "evicted" if group is None else "half"
    measured: dict[str, list[Measured]] = {name: [] for name in ("kept", second)}
    with tempfile.TemporaryDirectory(prefix="gspc") as folder:
        cache = NodeCache(Path(folder), budget_bytes=0)
        few = segments(reader(replace(frames), settings), WARM_UP)
        tunes = [fine_tune(backbone, frozen_blocks, few, cache) for _ in range(2)]
        count = int(EPOCH_SECONDS * max(epoch(tune).images_per_second for tune in tunes))
        if group:
            group.limit_cache(frames.nbytes // 2)
            read_once(reader(frames, settings))
        del few, tunes  # pages that are mapped cannot be dropped
        cached = []
        for number, name in product(range(REPEATS), measured):
            if group is None:
                drop(frames)
            else:
                cached.append(group.cached_bytes)
            own = Evicted(**frames.__getstate__()) if name == "evicted" else replace(frames)
            seed = 1 + number if name == "half" else 0
            part = segments(reader(own, settings), count, seed)
            if name == "kept":
                for _ in part.in_order(256):
                    pass
            measured[name].append(epoch(fine_tune(backbone, frozen_blocks, part, cache)))
            size = part.mels.nbytes
            del part, own
            gc.collect()
    resident = [one.images_per_second for one in measured["kept"]]
    return {
        "images": count,
        **({"cache of the store": round(statistics.median(cached) / frames.nbytes, 2)} if cached else {}),
        **{
            name: {
                "images/s": round(statistics.median(one.images_per_second for one in found)),
                "ratio": round(
                    statistics.median(
                        one.images_per_second / other for one, other in zip(found, resident, strict=True)
                    ),
                    3,
                ),
                "reading us/image": round(statistics.median(one.reading for one in found)),
                "read": round(statistics.median(one.from_disk for one in found) / size, 2),
            }
            for name, found in measured.items()
        },
    }


def main() -> None:
    """Print one line for each network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--front-end", default="mel64")
    parser.add_argument("--tracks", type=int, default=20_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--cgroup", type=Path, help="empty memory control group to join")
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    settings = front_end(arguments.front_end)
    with tempfile.TemporaryDirectory(prefix="gspc", dir=arguments.folder) as folder:
        frames = write_store(Path(folder), arguments.tracks, settings)
        print(
            f"{platform.machine()}, {arguments.threads} threads, a store of {frames.nbytes / 1e9:.2f} GB",
            flush=True,
        )
        group = None
        if arguments.cgroup:
            drop(frames)  # pages belong to the group in which they were written
            group = ControlGroup(arguments.cgroup)
        try:
            measure(arguments.networks, frames, settings, group)
        finally:
            if group:
                group.leave()


def measure(
    networks: Sequence[str], frames: FrameFiles, settings: FrontEnd, group: ControlGroup | None
) -> None:
    """Print one line for each network and freeze depth."""
    for backbone in networks:
        blocks = len(block_names(backbone))
        for frozen_blocks in sorted({0, blocks // 2}):
            found = compare(backbone, frozen_blocks, frames, settings, group)
            print(f"{backbone}, {frozen_blocks} of {blocks} blocks frozen:", json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
