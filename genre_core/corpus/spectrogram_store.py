"""SpectrogramStore, a memory-mapped cache of log-mel spectrograms that is keyed by content hashes."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray

from genre_core.audio import decode
from genre_core.audio.decode import BadAudio
from genre_core.audio.mel import FrontEnd, cut_segments, segment_starts, stored_mel
from genre_core.corpus.tracks import Track
from genre_core.system.atomic import sync_file, sync_folder
from genre_core.system.progress import ProgressCallback
from genre_core.system.threads import ALL_CORES, map_in_threads
from genre_core.training.segments import SegmentArrays

FORMAT_VERSION = 1
"""Part of a store's name, changed with the format of its files."""

_MELS, _INDEX = "mels.f16", "index.json"


@dataclass(frozen=True, kw_only=True)
class SpectrogramStore:
    """Memory-mapped log-mel spectrograms, in dB, of a set of tracks by one front end."""

    folder: Path
    front_end: FrontEnd
    places: Mapping[str, tuple[int, int]]
    """Content hash of a track -> its first frame in the file and its number of frames."""
    mels: NDArray[np.float16]
    """[frames of all tracks, channels, mels]"""

    def mel(self, content: str) -> NDArray[np.float16]:
        """Return the log-mel of one track in dB, [frames, channels, mels], as a view into the file.

        Raises:
            KeyError: the store has no track with this content hash.
        """
        first, count = self.places[content]
        return self.mels[first : first + count]

    def segments(
        self,
        tracks: Sequence[Track],
        *,
        genres: Sequence[str],
        segment_frames: int,
        segments_per_track: int,
    ) -> SegmentArrays:
        """Cut tracks into at most `segments_per_track` segments of `segment_frames` frames without overlap."""
        mels: list[NDArray[np.float16]] = []
        owners: list[int] = []
        for position, track in enumerate(tracks):
            mel = self.mel(str(track.content))
            own = cut_segments(
                mel, segment_starts(len(mel), segment_frames, segments_per_track), segment_frames
            )
            mels += own
            owners += [position] * len(own)
        return SegmentArrays(
            mels=np.stack(mels),
            track=np.array(owners),
            genre=np.array([genres.index(track.genre) for track in tracks]),
            n_genres=len(genres),
        )


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
        tracks: usable tracks with content hashes.
        front_end: settings of the spectrograms.
        cache: folder of the cache.
        workers: number of threads.
        progress: called with (tracks done, all tracks).
    """
    wanted = _folder(tracks, front_end, cache)
    if not wanted.exists():
        wanted.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{wanted}.lock"):
            if not wanted.exists():
                wanted = _build(tracks, front_end, wanted, workers, progress)
    return open_store(wanted, front_end)


def is_stored(tracks: Sequence[Track], front_end: FrontEnd, *, cache: Path) -> bool:
    """Return whether the cache has the store of these tracks, so that their files are not needed."""
    return _folder(tracks, front_end, cache).exists()


def _folder(tracks: Sequence[Track], front_end: FrontEnd, cache: Path) -> Path:
    contents = [track.content or "" for track in tracks]
    assert all(contents), "tracks must be audited before they are stored"
    return cache / "spectrograms" / _name(contents, front_end)


def _name(contents: Sequence[str], front_end: FrontEnd) -> str:
    settings = asdict(front_end)
    if front_end.level == "absolute":
        del settings["level"]  # keeps the names of stores that predate the setting
    key = json.dumps([FORMAT_VERSION, settings, sorted(contents)])
    return f"{front_end.name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def open_store(folder: Path, front_end: FrontEnd) -> SpectrogramStore:
    """Open the store that `open_or_build` created in a folder."""
    places = {k: (first, count) for k, (first, count) in json.loads((folder / _INDEX).read_text()).items()}
    shape = (-1, len(front_end.windows), front_end.n_mels)
    mels = np.memmap(folder / _MELS, dtype=np.float16, mode="r").reshape(shape)
    return SpectrogramStore(folder=folder, front_end=front_end, places=places, mels=mels)


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
                places[str(track.content)] = (first, len(mel))
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
        waveform = decode.read(track.path, front_end.sample_rate, content=track.content)
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
