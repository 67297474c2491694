"""Parts of spectrogram stores: a file with the log-mel spectrograms of a few dozen tracks, made on any machine."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from genre_core.audio import decode
from genre_core.audio.decode import BadAudio
from genre_core.audio.mel import FrontEnd, stored_mel
from genre_core.audio.on_disk import on_disk
from genre_core.corpus.audit import Finding, version_of
from genre_core.system.atomic import atomic_file
from genre_core.system.remote_files import FileVersion
from genre_core.system.threads import ALL_CORES, map_in_threads
from genre_core.training.frames import FRAME_DTYPE

T = TypeVar("T")

FORMAT_VERSION = 1
"""Part of the names of parts, changed with what is stored or how it is computed."""
PART_TRACKS = 64
"""Maximum number of tracks in a part."""
PART_BYTES = 128 * 2**20
"""Size of a part, or of its audio files, above which no further track is added."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioFile:
    """A file to transform."""

    location: str
    content: str | None = None
    file_hash: str | None = None
    """The expected hashes; without any, the file is examined first."""
    minimum_seconds: float = 0.0
    """Length below which it has no spectrogram."""
    version: FileVersion | None = None
    """The version if it is known, which spares a request for files at addresses."""


@dataclass(frozen=True, kw_only=True)
class Transformed:
    """The result of transforming a file."""

    location: str
    version: FileVersion
    """The file's version before it was decoded."""
    finding: Finding
    mel: NDArray[np.float16] | None
    """[frames, channels, mels], dB; None for a file that is bad, too short or has other hashes than expected."""

    @property
    def identity(self) -> str:
        """See `Track.identity`."""
        return self.finding.file_hash or self.finding.content or ""


Transform = Callable[[Sequence[AudioFile], FrontEnd], Iterable[Sequence[Transformed]]]
"""Transforms files, each once, and yields the results in groups and in any order."""


def transform(file: AudioFile, front_end: FrontEnd) -> Transformed:
    """Decode a file once, and compute its spectrogram."""
    version, mel = version_of(file.location), None
    rate = front_end.sample_rate
    try:
        with on_disk(file.location) as path:
            if file.content or file.file_hash:
                waveform = decode.read(path, rate, content=file.content, file_hash=file.file_hash)
                finding = Finding(content=file.content, file_hash=file.file_hash)
            else:
                info, waveform = decode.examine(path, rate)
                finding = Finding.of(info)
        if finding.seconds is None or finding.seconds >= file.minimum_seconds:
            mel = stored_mel(waveform, front_end)
    except BadAudio as bad:
        finding = Finding.of_bad(bad)
    return Transformed(location=file.location, version=version, finding=finding, mel=mel)


def in_threads(
    files: Sequence[AudioFile], front_end: FrontEnd, *, workers: int = ALL_CORES
) -> Iterator[Sequence[Transformed]]:
    """Transform files on the cores of this machine."""
    with _one_torch_thread():
        transformed = map_in_threads(partial(transform, front_end=front_end), files, workers)
        yield from _grouped(transformed, lambda one: 0 if one.mel is None else one.mel.nbytes)


def in_groups(files: Sequence[AudioFile]) -> Iterator[Sequence[AudioFile]]:
    """The files in groups of similar effort, each of which makes a part."""
    return _grouped(files, lambda file: max(0, (file.version or version_of(file.location))[0]))


def transform_group(files: Sequence[AudioFile], front_end: FrontEnd) -> Sequence[Transformed]:
    """Transform files one after the other."""
    with _one_torch_thread():
        return [transform(file, front_end) for file in files]


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """The position of a track's spectrogram in a part."""

    part: Path
    first: int
    frames: int


@dataclass(frozen=True, kw_only=True)
class MelParts:
    """A folder of parts with one front end. A part is complete or absent, and is named by a hash of its tracks."""

    folder: Path
    front_end: FrontEnd

    @property
    def frame_bytes(self) -> int:
        """Bytes of a frame."""
        return len(self.front_end.windows) * self.front_end.n_mels * FRAME_DTYPE.itemsize

    def places(self, identities: Iterable[str]) -> dict[str, Place]:
        """The positions of the spectrograms of tracks, by identity; those that the parts lack are left out."""
        wanted, found = set(identities), dict[str, Place]()
        for part, rows in self._indices():
            first = 0
            for row in rows:
                identity = row["finding"]["file_hash"] or row["finding"]["content"] or ""
                if row["frames"] and identity in wanted:
                    found[identity] = Place(part=part, first=first, frames=row["frames"])
                first += row["frames"]
        return found

    def add(self, group: Sequence[Transformed]) -> None:
        """Write a part with these tracks."""
        self.folder.mkdir(parents=True, exist_ok=True)
        names = [one.location if one.mel is None else one.identity for one in group]
        key = json.dumps([FORMAT_VERSION, asdict(self.front_end), names])
        part = self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.f16"
        with atomic_file(part) as partial_file, partial_file.open("wb") as file:
            for one in group:
                if one.mel is not None:
                    one.mel.tofile(file)
        index = part.with_suffix(".json")
        with atomic_file(index) as partial_file:
            partial_file.write_text(json.dumps([_row(one) for one in group]))

    def examine(
        self, versions: Mapping[str, FileVersion], transform: Transform, *, minimum_seconds: float
    ) -> Iterator[tuple[str, Finding]]:
        """Decode files, keep their spectrograms, and yield the findings: see `audit`."""
        known = self._findings(versions)
        yield from known.items()
        files = [
            AudioFile(location=file, minimum_seconds=minimum_seconds, version=version)
            for file, version in versions.items()
            if file not in known
        ]
        for group in transform(files, self.front_end) if files else ():
            self.add(group)
            yield from ((one.location, one.finding) for one in group)

    def _findings(self, versions: Mapping[str, FileVersion]) -> dict[str, Finding]:
        """The findings on files that have been examined, and have these versions, by location."""
        found = dict[str, Finding]()
        for _, rows in self._indices():
            for row in rows:
                finding = Finding(**row["finding"] | {"warnings": tuple(row["finding"]["warnings"])})
                examined = finding.lasting and (finding.seconds is not None or finding.reason)
                if (
                    examined
                    and (file := row["path"]) in versions
                    and versions[file] == (row["size"], row["modified"])
                ):
                    found[file] = finding
        return found

    def _indices(self) -> Iterator[tuple[Path, list[dict[str, Any]]]]:
        """The file of each part, with the facts on its tracks."""
        for index in sorted(self.folder.glob("[!.]*.json")):
            if (part := index.with_suffix(".f16")).exists():
                yield part, json.loads(index.read_text())


def _row(one: Transformed) -> dict[str, Any]:
    size, modified = one.version
    frames = 0 if one.mel is None else len(one.mel)
    facts = {"path": one.location, "size": size, "modified": modified, "frames": frames}
    return facts | {"finding": asdict(one.finding)}


def _grouped(items: Iterable[T], bytes_of: Callable[[T], int]) -> Iterator[Sequence[T]]:
    """Items in groups, each of which makes a part."""
    group, size = list[T](), 0
    for item in items:
        group.append(item)
        size += bytes_of(item)
        if len(group) == PART_TRACKS or size > PART_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Limit torch to one thread inside the context, since tracks are processed in parallel."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
