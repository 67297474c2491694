"""SpectrogramStore, a memory-mapped cache of log-mel spectrograms that is keyed by hashes of the audio files."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray

from genre_core.audio import decode
from genre_core.audio.decode import BadAudio
from genre_core.audio.mel import FrontEnd, segment_starts, stored_mel
from genre_core.corpus.tracks import Track
from genre_core.system.atomic import sync_file, sync_folder
from genre_core.system.progress import ProgressCallback
from genre_core.system.threads import ALL_CORES, map_in_threads
from genre_core.training.frames import FRAME_DTYPE, FrameFiles, FrameShard, SegmentReader
from genre_core.training.segments import SegmentArrays

FORMAT_VERSION = 1
"""Part of a store's name, changed with the format of its files."""
SHARD_BYTES = 256 * 2**20
"""The parts of a store, which are sent to other nodes one at a time, have at least this size, except the last one."""

_MELS, _INDEX = "mels.f16", "index.json"


@dataclass(frozen=True, kw_only=True)
class SpectrogramStore:
    """Memory-mapped log-mel spectrograms, in dB, of a set of tracks by one front end."""

    folder: Path
    front_end: FrontEnd
    places: Mapping[str, tuple[int, int]]
    """Identity or content hash of a track -> its first frame and its number of frames."""
    frames: FrameFiles
    """float16 [frames of all tracks, channels, mels]"""

    def __contains__(self, track: Track) -> bool:
        return track.identity in self.places or track.content in self.places

    def place(self, track: Track) -> tuple[int, int]:
        """First frame and number of frames of a track.

        Raises:
            KeyError: the store does not have it.
        """
        found = self.places.get(track.identity)
        return self.places[str(track.content)] if found is None else found

    def mel(self, track: Track) -> NDArray[np.float16]:
        """Return the log-mel of one track in dB, [frames, channels, mels], as a view into the file.

        Raises:
            KeyError: the store does not have it.
        """
        return self.frames.view(*self.place(track))

    def segments(
        self,
        tracks: Sequence[Track],
        *,
        genres: Sequence[str],
        segment_frames: int,
        segments_per_track: int,
    ) -> SegmentArrays:
        """Cut tracks into at most `segments_per_track` segments of `segment_frames` frames without overlap.

        The segments are an index into the store, which must exist as long as they are used.
        """
        cuts = [
            first + np.array(segment_starts(count, segment_frames, segments_per_track), np.int64)
            for first, count in map(self.place, tracks)
        ]
        identities = [track.identity for track in tracks]
        index = {genre: number for number, genre in enumerate(genres)}
        key = json.dumps([self._settings, identities, segment_frames, segments_per_track])
        return SegmentArrays(
            mels=SegmentReader(frames=self.frames, first=np.concatenate(cuts), length=segment_frames),
            track=np.repeat(np.arange(len(tracks)), [len(cut) for cut in cuts]),
            genre=np.array([index[track.genre] for track in tracks]),
            n_genres=len(genres),
            digest=hashlib.sha256(key.encode()).hexdigest(),
        )

    @property
    def _settings(self) -> list[object]:
        """What the mel of a track depends on besides its audio."""
        return [FORMAT_VERSION, asdict(self.front_end)]


def open_or_build(
    tracks: Sequence[Track],
    front_end: FrontEnd,
    *,
    cache: Path,
    workers: int = ALL_CORES,
    progress: ProgressCallback | None = None,
) -> SpectrogramStore:
    """Open the store of a set of tracks, or build it in parallel if the cache has none.

    This can be interrupted and called by several processes at once: a store is created atomically, and while one
    process builds it, the others wait. Tracks that can no longer be read, or whose content has changed since the audit,
    are left out, and the store is keyed by those that it has.

    Args:
        tracks: usable tracks of an audited corpus.
        front_end: settings of the spectrograms.
        cache: folder of the cache.
        workers: number of threads.
        progress: called with (tracks done, all tracks).
    """
    wanted = _existing(tracks, front_end, cache) or _folder(tracks, front_end, cache)
    if not wanted.exists():
        wanted.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{wanted}.lock"):
            if not wanted.exists():
                wanted = _build(tracks, front_end, wanted, workers, progress)
    store = open_store(wanted, front_end)
    # a file that was converted without loss has another identity
    by_content = {str(t.content): store.places[t.identity] for t in tracks if t.identity in store.places}
    return replace(store, places={**by_content, **store.places})


def is_stored(tracks: Sequence[Track], front_end: FrontEnd, *, cache: Path) -> bool:
    """Return whether the cache has the store of these tracks, so that their files are not needed."""
    return _existing(tracks, front_end, cache) is not None


def _existing(tracks: Sequence[Track], front_end: FrontEnd, cache: Path) -> Path | None:
    """The folder of the store of these tracks; earlier versions named it by their contents."""
    earlier = cache / "spectrograms" / _name([str(track.content) for track in tracks], front_end)
    choices = (_folder(tracks, front_end, cache), earlier)
    return next((folder for folder in choices if folder.exists()), None)


def _folder(tracks: Sequence[Track], front_end: FrontEnd, cache: Path) -> Path:
    return cache / "spectrograms" / _name([track.identity for track in tracks], front_end)


def _name(identities: Sequence[str], front_end: FrontEnd) -> str:
    settings = asdict(front_end)
    if front_end.level == "absolute":
        del settings["level"]  # keeps the names of stores that predate the setting
    key = json.dumps([FORMAT_VERSION, settings, sorted(identities)])
    return f"{front_end.name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def open_store(folder: Path, front_end: FrontEnd) -> SpectrogramStore:
    """Open the store that `open_or_build` created in a folder."""
    index = (folder / _INDEX).read_text()
    places = {content: (first, count) for content, (first, count) in json.loads(index).items()}
    channels, mels = len(front_end.windows), front_end.n_mels
    frame_bytes = channels * mels * FRAME_DTYPE.itemsize
    layout = _layout(index)
    shards = tuple(
        FrameShard(
            path=folder / _MELS, offset=first * frame_bytes, frames=count, name=f"mels-{layout}-{first}.f16"
        )
        for first, count in _cut(set(places.values()), SHARD_BYTES // frame_bytes)
    )
    return SpectrogramStore(
        folder=folder,
        front_end=front_end,
        places=places,
        frames=FrameFiles(shards=shards, channels=channels, mels=mels),
    )


def is_stored_here(frames: FrameFiles) -> bool:
    """Whether this machine has the files of frames that were opened on another one, perhaps on a shared disk."""
    folders = {shard.path.parent for shard in frames.shards}
    try:
        layouts = {folder: _layout((folder / _INDEX).read_text()) for folder in folders}
        return all(
            layouts[shard.path.parent] in shard.name
            and shard.path.stat().st_size >= shard.offset + shard.frames * frames.frame_bytes
            for shard in frames.shards
        )
    except OSError:
        return False


def _layout(index: str) -> str:
    """A hash of the index: equal for stores whose tracks have the same places."""
    return hashlib.sha256(index.encode()).hexdigest()[:16]


def _cut(places: Iterable[tuple[int, int]], frames: int) -> Iterator[tuple[int, int]]:
    """First frame and number of frames of each part of a file, of at least `frames` frames, between tracks."""
    began = end = 0
    for first, count in sorted(places):
        end = first + count
        if end - began >= frames:
            yield began, end - began
            began = end
    if end > began:
        yield began, end - began


def _build(
    tracks: Sequence[Track],
    front_end: FrontEnd,
    wanted: Path,
    workers: int,
    progress: ProgressCallback | None,
) -> Path:
    """Write a store to a partial folder, which the holder of the lock owns, and rename it."""
    partial = wanted.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    places: dict[str, tuple[int, int]] = {}
    first = 0
    with (partial / _MELS).open("wb") as file:
        for done, (track, mel) in enumerate(
            zip(tracks, _mels(tracks, front_end, workers), strict=True), start=1
        ):
            if mel is not None:
                mel.tofile(file)
                places[track.identity] = (first, len(mel))
                first += len(mel)
            if progress:
                progress(done, len(tracks))
    (partial / _INDEX).write_text(json.dumps(places))
    for name in (_MELS, _INDEX):  # an existing store must be complete, even after a power failure
        sync_file(partial / name)
    sync_folder(partial)
    final = wanted.with_name(_name(list(places), front_end))
    if final.exists():
        shutil.rmtree(partial)
    else:
        partial.rename(final)
    return final


def _mels(tracks: Sequence[Track], front_end: FrontEnd, workers: int) -> Iterator[NDArray[np.float16] | None]:
    """Compute the mels in order, a few ahead of the consumer; None for a track that is left out."""
    with _one_torch_thread():
        yield from map_in_threads(partial(_mel, front_end=front_end), tracks, workers)


def _mel(track: Track, front_end: FrontEnd) -> NDArray[np.float16] | None:
    try:
        waveform = decode.read(
            track.path, front_end.sample_rate, content=track.content, file_hash=track.file_hash
        )
    except BadAudio:  # it was good when audited: the caller notices that the store lacks it
        return None
    return stored_mel(waveform, front_end)


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Limit torch to one thread, since tracks are processed in parallel."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
