"""The spectrogram store: every track's log-mel on disk once, memory-mapped, found again by content."""

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
from genre_core.audio.mel import FrontEnd, cut, segment_starts, stored_mel
from genre_core.corpus.tracks import Track
from genre_core.system.atomic import sync_file, sync_folder
from genre_core.system.progress import ProgressCallback
from genre_core.system.threads import ALL_CORES, map_in_threads
from genre_core.training.segments import SegmentArrays

FORMAT_VERSION = 1
"""Changes when the bytes of a store would: it is part of the name that a store is found by."""

_MELS, _INDEX = "mels.f16", "index.json"


@dataclass(frozen=True, kw_only=True)
class SpectrogramStore:
    """Log-mels of a set of tracks by one front end, in dB, memory-mapped."""

    folder: Path
    front_end: FrontEnd
    places: Mapping[str, tuple[int, int]]
    """Content hash of a track -> its first frame in the file, and how many frames it has."""
    mels: NDArray[np.float16]
    """[frames of all tracks, channels, mels]"""

    def mel(self, content: str) -> NDArray[np.float16]:
        """One track's log-mel in dB, [frames, channels, mels]: a view into the file.

        Raises:
            KeyError: the store has no track of this content.
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
        """The tracks cut into segments side by side, `segments_per_track` at most."""
        mels: list[NDArray[np.float16]] = []
        owners: list[int] = []
        for position, track in enumerate(tracks):
            mel = self.mel(str(track.content))
            own = cut(mel, segment_starts(len(mel), segment_frames, segments_per_track), segment_frames)
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
    """The store of these tracks: the one in the cache, or a new one, built in parallel.

    Safe to interrupt, and to call from several processes at once: a store appears whole or not at all,
    and while one process builds it, the others wait. A track that can no longer be read, or decodes to other
    samples than when it was audited, is left out: the store is then found by what it does hold.

    Args:
        tracks: usable tracks, each with its content hash.
        front_end: how a waveform becomes a mel.
        cache: the folder that stores are kept in.
        workers: threads.
        progress: told (tracks done, tracks in all).
    """
    wanted = _folder(tracks, front_end, cache)
    if not wanted.exists():
        wanted.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{wanted}.lock"):
            if not wanted.exists():
                wanted = _build(tracks, front_end, wanted, workers, progress)
    return open_store(wanted, front_end)


def is_stored(tracks: Sequence[Track], front_end: FrontEnd, *, cache: Path) -> bool:
    """Whether the cache holds the store of these tracks, so that their files are not needed."""
    return _folder(tracks, front_end, cache).exists()


def _folder(tracks: Sequence[Track], front_end: FrontEnd, cache: Path) -> Path:
    contents = [track.content or "" for track in tracks]
    assert all(contents), "tracks are audited before they are stored"
    return cache / "spectrograms" / _name(contents, front_end)


def _name(contents: Sequence[str], front_end: FrontEnd) -> str:
    settings = asdict(front_end)
    if front_end.level == "absolute":
        del settings["level"]  # stores are found by the names that they had before there was a choice
    key = json.dumps([FORMAT_VERSION, settings, sorted(contents)])
    return f"{front_end.name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def open_store(folder: Path, front_end: FrontEnd) -> SpectrogramStore:
    """Map a store that `open_or_build` left in this folder."""
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
    """Write the store beside its place, then move it there; whoever holds the lock owns the partial folder."""
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
    for name in (_MELS, _INDEX):  # a store that is there is taken for whole, also after a power cut
        sync_file(partial / name)
    sync_folder(partial)
    final = wanted.with_name(_name(list(places), front_end))
    if final.exists():
        shutil.rmtree(partial)
    else:
        partial.rename(final)
    return final


def _mels(tracks: Sequence[Track], front_end: FrontEnd, workers: int) -> Iterator[NDArray[np.float16] | None]:
    """Each track's mel in order, a few ahead of what was asked for."""
    with _one_torch_thread():
        yield from map_in_threads(partial(_mel, front_end=front_end), tracks, workers)


def _mel(track: Track, front_end: FrontEnd) -> NDArray[np.float16] | None:
    try:
        waveform = decode.read(track.path, front_end.sample_rate, content=track.content)
    except BadAudio:  # it was good when it was audited: the caller sees that the store lacks it
        return None
    return stored_mel(waveform, front_end)


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Tracks are what runs in parallel, not the arithmetic inside one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
