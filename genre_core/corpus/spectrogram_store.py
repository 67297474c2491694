"""SpectrogramStore, a memory-mapped cache of log-mel spectrograms that is keyed by hashes of the audio files."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from genre_core.audio.mel import FrontEnd, segment_starts
from genre_core.corpus.mel_parts import AudioFile, MelParts, Place, Transform, in_threads
from genre_core.corpus.tracks import Track
from genre_core.system.atomic import atomic_folder
from genre_core.system.progress import ProgressCallback
from genre_core.system.threads import ALL_CORES
from genre_core.training.frames import FRAME_DTYPE, FrameFiles, FrameShard, SegmentReader
from genre_core.training.segments import SegmentArrays

FORMAT_VERSION = 1
"""Part of a store's name, changed with the format of its files."""
SHARD_BYTES = 256 * 2**20
"""A store in one file, as earlier versions wrote it, is sent to other nodes in pieces of at least this size."""

_MELS, _INDEX = "mels.f16", "index.json"
_PARTS, _PLACES = "parts", "places"
"""Keys of the index."""


@dataclass(frozen=True, kw_only=True)
class SpectrogramStore:
    """Memory-mapped log-mel spectrograms, in dB, of a set of tracks by one front end."""

    folder: Path
    front_end: FrontEnd
    places: Mapping[str, Sequence[int]]
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
        first, count = self.places[str(track.content)] if found is None else found
        return first, count

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
        """Everything that a track's mel depends on except its audio."""
        return [FORMAT_VERSION, asdict(self.front_end)]


def open_or_build(
    tracks: Sequence[Track],
    front_end: FrontEnd,
    *,
    cache: Path,
    workers: int = ALL_CORES,
    progress: ProgressCallback | None = None,
    transform: Transform | None = None,
) -> SpectrogramStore:
    """Open the store of a set of tracks, or build it in parallel if the cache has none.

    A store refers to parts, each of which is kept once it is complete: an interrupted or killed build resumes, and
    stores share the spectrograms of tracks that they have in common. Several processes may call this at once: a store
    is created atomically, and while one process builds it, the others wait. Tracks that can no longer be
    read, or whose content has changed since the audit, are left out, and the store is keyed by those that it has.

    Args:
        tracks: usable tracks of an audited corpus.
        front_end: settings of the spectrograms.
        cache: folder of the cache.
        workers: number of threads.
        progress: called with (tracks done, tracks to compute).
        transform: computes spectrograms; None for threads of this process.
    """
    wanted = _existing(tracks, front_end, cache) or _folder(tracks, front_end, cache)
    if not wanted.exists():
        wanted.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{wanted}.lock"):
            if not wanted.exists():
                parts = mel_parts(front_end, cache)
                found = _completed(parts, tracks, transform or partial(in_threads, workers=workers), progress)
                wanted = _put_together(parts, found, wanted)
    return open_store(wanted, front_end)


def mel_parts(front_end: FrontEnd, cache: Path) -> MelParts:
    """The parts of all stores in a cache with this front end."""
    return MelParts(folder=cache / "spectrograms" / f"parts-{_name([], front_end)}", front_end=front_end)


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
    index = json.loads((folder / _INDEX).read_text())
    channels, mels = len(front_end.windows), front_end.n_mels
    frame_bytes = channels * mels * FRAME_DTYPE.itemsize
    whole = _PARTS not in index  # in one file, as earlier versions wrote it
    places = index if whole else index[_PLACES]
    if whole:
        cuts = _cut(places.values(), SHARD_BYTES // frame_bytes)
        layout = _layout(folder)
        shards = (_shard(folder / _MELS, first, count, layout, frame_bytes) for first, count in cuts)
    else:
        shards = (
            FrameShard(path=folder.parent / path, offset=0, frames=count, name=Path(path).name)
            for path, count in index[_PARTS]
        )
    frames = FrameFiles(shards=tuple(shards), channels=channels, mels=mels)
    return SpectrogramStore(folder=folder, front_end=front_end, places=places, frames=frames)


def is_stored_here(frames: FrameFiles) -> bool:
    """Whether this machine has the files of frames that were opened on another machine, perhaps on a shared disk."""
    whole = {shard.path.parent for shard in frames.shards if shard.path.name == _MELS}
    try:
        layouts = {folder: _layout(folder) for folder in whole}
        return all(
            # the name of a part identifies its tracks, that of a whole store does not
            (shard.name == shard.path.name or layouts[shard.path.parent] in shard.name)
            and shard.path.stat().st_size >= shard.offset + shard.frames * frames.frame_bytes
            for shard in frames.shards
        )
    except OSError:
        return False


def _shard(path: Path, first: int, count: int, layout: str, frame_bytes: int) -> FrameShard:
    """A part of a store in one file."""
    name = f"mels-{layout}-{first}.f16"
    return FrameShard(path=path, offset=first * frame_bytes, frames=count, name=name)


def _layout(folder: Path) -> str:
    """A hash of the index: equal for stores whose tracks have the same places."""
    with (folder / _INDEX).open("rb") as index:
        return hashlib.file_digest(index, "sha256").hexdigest()[:16]


def _cut(places: Iterable[Sequence[int]], frames: int) -> Iterator[tuple[int, int]]:
    """First frame and number of frames of each part of a file, of at least `frames` frames, between tracks."""
    began = end = 0
    for first, count in sorted(set(map(tuple, places))):
        end = first + count
        if end - began >= frames:
            yield began, end - began
            began = end
    if end > began:
        yield began, end - began


def _completed(
    parts: MelParts, tracks: Sequence[Track], transform: Transform, progress: ProgressCallback | None
) -> dict[str, Place]:
    """The places of tracks by identity, after computing what the parts lack; changed tracks have none."""
    present = parts.places(track.identity for track in tracks)
    missing = [
        AudioFile(
            location=track.location, content=track.content, file_hash=track.file_hash, version=track.version
        )
        for track in tracks
        if track.identity not in present
    ]
    if not missing:
        return present
    done = 0
    for group in transform(missing, parts.front_end):
        parts.add(group)
        done += len(group)
        if progress:
            progress(done, len(missing))
    return parts.places(track.identity for track in tracks)


def _put_together(parts: MelParts, found: Mapping[str, Place], wanted: Path) -> Path:
    """Write a store of the tracks at these places, by identity, and return its folder."""
    frames = {
        part: part.stat().st_size // parts.frame_bytes for part in sorted({p.part for p in found.values()})
    }
    begins = dict(zip(frames, np.cumsum([0, *frames.values()]).tolist(), strict=False))
    index = {
        _PARTS: [(part.relative_to(wanted.parent).as_posix(), count) for part, count in frames.items()],
        _PLACES: {name: (begins[place.part] + place.first, place.frames) for name, place in found.items()},
    }
    final = wanted.with_name(_name(list(found), parts.front_end))
    if not final.exists():
        with atomic_folder(final) as partial:
            (partial / _INDEX).write_text(json.dumps(index))
    return final
