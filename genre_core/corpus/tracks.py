"""The tracks of a corpus, discovered in a folder or listed in a manifest."""

import hashlib
import os
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

from genre_core.corpus.manifest import (
    MANIFEST_COLUMNS,
    MANIFEST_SUFFIXES,
    column_names,
    read_manifest,
)
from genre_core.corpus.manifest import MANIFEST_NAMES as MANIFEST_NAMES
from genre_core.corpus.manifest_paths import PathResolver
from genre_core.corpus.manifest_tables import HUGGING_FACE_COLUMNS
from genre_core.corpus.remote_music import RemoteMusic, RemotePlace, listed, with_copies
from genre_core.errors import ErrorCode, InputError
from genre_core.system.addresses import child, is_address, readable, source_of
from genre_core.system.remote_files import FileVersion


class Exclusion(StrEnum):
    """Kinds of reasons for excluding a file, in addition to `genre_core.audio.bad_audio.Reason`."""

    HIDDEN = "hidden file"
    """The file was never meant as audio."""
    OUTSIDE_GENRE_FOLDER = "outside a genre folder"
    NAME_NOT_UNICODE = "name is not Unicode"
    TOO_SHORT = "shorter than a segment"
    DUPLICATE = "duplicate"
    DUPLICATE_ACROSS_GENRES = "duplicate across genres"


SPLITS = ("train", "validation", "test")
SPLIT_ALIASES = {
    **{split: split for split in SPLITS},
    **{
        "training": "train",
        "val": "validation",
        "valid": "validation",
        "dev": "validation",
        "testing": "test",
    },
}
METADATA_NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Names of the manifest in Hugging Face's audio folders."""

AUDIO_NAME = re.compile(
    r"\.(wave?|flac|og[ga]|opus|mp[23]|aif[fc]?|aiff|au|snd|caf|w64|rf64|voc"
    r"|m4[abv]|mp4|mov|3gp|aac|adts|ac3|amr|wma|asf|ape|wv|mpc|tta|tak|ds[fd]|dff|mka|mkv|webm|ra|rm)\Z",
    re.IGNORECASE,
)
"""Names of audio files, including formats that no decoder supports, so that the audit reports those files."""

SYSTEM_FOLDER = re.compile(
    r"(\..*|__macosx|\$recycle\.bin|recycler|recycled|system volume information|found\.\d{3}|lost\+found"
    r"|network trash folder|temporary items|@eadir|@recycle|@recently-snapshot|[#~]recycle|[#~]snapshot)\Z",
    re.IGNORECASE,
)
"""Names of hidden folders and of those that a system, a desktop, an editor or a network drive creates."""
ARCHIVE_NAME = re.compile(r"\.(zip|rar|7z|tar|t?gz|tar\.\w+|tgz)\Z", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Track:
    """One audio file. `seconds` and `content` are None until an audit has decoded it."""

    track_id: str
    """Path relative to the corpus, with forward slashes."""
    location: str
    """Absolute path of the file, or its address, such as s3://BUCKET/rock/one.wav."""
    genre: str
    group: str
    """Tracks of a group stay in one split: an artist, a recording, or the file itself."""
    split: str | None = None
    """One of SPLITS."""
    seconds: float | None = None
    content: str | None = None
    """Content hash, equal for files that decode to the same samples."""
    excluded_reason: str | None = None
    """Reason for exclusion, "kind" or "kind: detail"; None for a usable track."""
    file_hash: str | None = None
    """Hash of the file's bytes; None in corpora that an earlier version audited."""
    warnings: tuple[str, ...] = field(default=(), compare=False)
    """Warnings of the last audit; they are not stored in corpus.parquet."""
    version: FileVersion | None = field(default=None, compare=False)
    """The version in a listing of a storage, which spares a request; not stored. None for any other file."""

    @property
    def path(self) -> Path:
        """The location of a file on this machine."""
        assert not self.is_remote, "a file at an address has no path"
        return Path(self.location)

    @property
    def is_remote(self) -> bool:
        """Whether the file is at an address, not at a path."""
        return is_address(self.location)

    @property
    def identity(self) -> str:
        """A string that identifies the audio of an audited track, even if decoders of two machines differ by a bit."""
        identity = self.file_hash or self.content
        assert identity, "only an audited track has an identity"
        return identity

    def is_same_audio(self, other: "Track") -> bool:
        """Whether two audited tracks are the same file, or files that decode to the same samples."""
        same_file = self.file_hash is not None and self.file_hash == other.file_hash
        return same_file or (self.content is not None and self.content == other.content)


@dataclass(frozen=True)
class Corpus:
    """All tracks that were found, sorted by track_id, including excluded ones so that they can be reported."""

    tracks: tuple[Track, ...]
    notes: tuple[str, ...] = field(default=(), compare=False)
    """Remarks to the user on how the tracks were found, one sentence each; only set by `read_corpus`."""

    @cached_property
    def usable(self) -> tuple[Track, ...]:
        """Tracks that are not excluded."""
        return tuple(track for track in self.tracks if track.excluded_reason is None)

    @cached_property
    def excluded(self) -> tuple[Track, ...]:
        """Tracks that are not used, with their reason."""
        return tuple(track for track in self.tracks if track.excluded_reason)

    @cached_property
    def genres(self) -> tuple[str, ...]:
        """Genres with usable tracks, sorted by name; the position of a genre is its class index."""
        return tuple(sorted({track.genre for track in self.usable}))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the usable audio, independent of names and genres."""
        return fingerprint_of([track.content for track in self.usable])

    def part(self, split: str) -> tuple[Track, ...]:
        """Return the usable tracks of one of SPLITS."""
        return tuple(track for track in self.usable if track.split == split)


def fingerprint_of(contents: Sequence[str | None]) -> str:
    """Hash of the usable audio of a corpus: sha256 of the sorted content hashes of its tracks."""
    known = sorted(filter(None, contents))
    assert len(known) == len(contents), "only an audited corpus has a fingerprint"
    return hashlib.sha256("\n".join(known).encode()).hexdigest()


def read_corpus(source: Path | str) -> Corpus:
    """Find the tracks of a data set by names alone; no audio file is opened.

    - A manifest (manifest.csv, .tsv or .parquet in a folder, or `source` itself) has the columns path (relative to its
      folder, or absolute) and genre, and optionally group and split.
    - A metadata.csv, .jsonl or .parquet of a Hugging Face audio folder is in the folder or in one folder per split.
    - Otherwise each subfolder is a genre: source/GENRE/track.wav is its own group, source/GENRE/ARTIST/.../track.wav
      belongs to group ARTIST, which is the same group in every genre. Hidden and system folders are skipped.

    The folder or manifest may be at an address, and the paths in a manifest may be addresses. A folder at an address is
    listed once, with the versions of its files.

    Genres and groups are normalized to Unicode NFC, paths are kept as on disk.

    Args:
        source: path or address of a folder or a manifest.

    Raises:
        InputError: there is no corpus, or a manifest is invalid.
    """
    given = source_of(source)
    try:
        tracks, notes = _from_address(given) if isinstance(given, str) else _from_path(given)
    except OSError as error:
        raise InputError(
            f"cannot list {error.filename}: {error.strerror}; check the folder and its permissions, or remove it",
            code=ErrorCode.CORPUS_FOLDER_UNREADABLE,
        ) from error
    tracks.sort(key=lambda track: track.track_id)
    for one, other in pairwise(tracks):
        if one.track_id == other.track_id:  # an escaped name may equal the real name of another file
            raise InputError(
                f"{source} has two files called {one.track_id!r}; rename one", code=ErrorCode.DUPLICATE_TRACK
            )
    return Corpus(tuple(tracks), tuple(notes))


Found = tuple[list[Track], list[str]]
"""Tracks, and notes on how they were found."""


def _from_path(source: Path) -> Found:
    root = source.absolute()
    if root.suffix.lower() in MANIFEST_SUFFIXES and root.is_file():
        return _from_manifest(root, root.parent)
    if not root.is_dir():
        unpack = "unpack it and " if ARCHIVE_NAME.search(root.name) and root.is_file() else ""
        raise InputError(
            f"a corpus is a folder or a manifest ({', '.join(MANIFEST_SUFFIXES)}), but {source} "
            f"{'is neither' if os.path.lexists(root) else 'does not exist'}: "
            f"{unpack}give a folder with one subfolder per genre",
            code=ErrorCode.CORPUS_NOT_FOUND,
        )
    return _from_folder(root, source, sorted(path.name for path in root.iterdir()))


def _from_address(address: str) -> Found:
    """Find the tracks of a folder or a manifest at an address."""
    music = listed(address, MANIFEST_SUFFIXES)
    tables = (
        [name for name in music.versions if _may_be_table(name)]
        if music.manifest is None
        else [music.manifest]
    )
    with with_copies(music, tables) as root:
        if music.manifest is not None:
            return _from_manifest(root / music.manifest, root, music=music)
        names = sorted({name.partition("/")[0] for name in music.versions})
        return _from_folder(root, readable(address), names, music)


def _may_be_table(name: str) -> bool:
    """Whether a file may be a manifest, or the metadata of a Hugging Face audio folder or of one of its splits."""
    folder, _, own = name.lower().rpartition("/")
    return (
        own in METADATA_NAMES and (not folder or folder in SPLIT_ALIASES)
    ) or name.lower() in MANIFEST_NAMES


def _from_folder(root: Path, source: Path | str, names: list[str], music: RemoteMusic | None = None) -> Found:
    """Find the tracks of a folder by its manifest or its genre folders.

    Args:
        root: the folder, or copies of the tables of `music`.
        source: the folder in messages.
        names: of the files and folders in it.
        music: what is listed at an address; None for a folder of this machine.
    """
    manifests = [name for name in names if name.lower() in MANIFEST_NAMES]
    if len(manifests) > 1:
        raise InputError(
            f"a folder must have at most one manifest, but {source} has {' and '.join(manifests)}: remove all but one",
            code=ErrorCode.MANIFEST_AMBIGUOUS,
        )
    if manifests:
        return _from_manifest(root / manifests[0], root, music=music)
    tracks, notes = _from_hugging_face(root, names, music)
    if not tracks:
        tracks, more = _from_genre_folders(root) if music is None else _from_listing(music)
        notes += more
    if not tracks:
        packed = [name for name in names if ARCHIVE_NAME.search(name)]
        raise InputError(
            f"no audio in {source}: expected GENRE/track.wav in it, or a {MANIFEST_NAMES[0]}"
            + (f"; unpack {packed[0]} first" if packed else ""),
            code=ErrorCode.CORPUS_WITHOUT_AUDIO,
        )
    return tracks, notes


def _from_hugging_face(root: Path, names: list[str], music: RemoteMusic | None) -> Found:
    """Find the tracks of a Hugging Face audio folder, whose metadata is in the folder or in one folder per split."""
    splits = [name for name in names if name.lower() in SPLIT_ALIASES and (root / name).is_dir()]
    tracks: dict[str, Track] = {}
    notes: list[str] = []
    for folder in [root, *(root / name for name in splits)]:
        for path in sorted(path for path in folder.iterdir() if path.name.lower() in METADATA_NAMES):
            columns = _columns_of(path)
            if "file_name" not in columns:
                continue  # another table with this name
            if not {"genre", "label"} & set(columns):
                notes.append(
                    f"{path.relative_to(root)} is not used: it has the column file_name but neither genre nor label"
                )
                continue
            split = "" if folder == root else SPLIT_ALIASES[folder.name.lower()]
            found, more = _from_manifest(path, root, HUGGING_FACE_COLUMNS, split, music=music)
            tracks |= {track.track_id: track for track in found}
            notes += [f"{path.relative_to(root)} is read as Hugging Face metadata, file_name as path", *more]
    return list(tracks.values()), list(dict.fromkeys(notes))


def _columns_of(path: Path) -> list[str]:
    """Columns of a table; none if it cannot be read, since it may not be metadata at all."""
    try:
        return column_names(path)
    except InputError:
        return []


def _from_genre_folders(root: Path) -> Found:
    """Find the audio files in a folder with one subfolder per genre."""
    tracks = []
    skipped: list[Path] = []
    for entry in root.iterdir():
        if entry.is_dir() and not SYSTEM_FOLDER.match(entry.name):
            for path in audio_below(entry, skipped):
                folders = path.relative_to(entry).parts[:-1]
                tracks.append(_track(root, path, entry.name, folders[0] if folders else ""))
        elif AUDIO_NAME.search(entry.name) and not entry.is_dir():
            tracks.append(
                replace(_track(root, entry, ""), excluded_reason=Exclusion.OUTSIDE_GENRE_FOLDER.value)
            )
    notes = []
    if skipped:
        notes.append(_skipped_note(len(skipped), _escaped(str(min(skipped).relative_to(root)))))
    return tracks, notes


def _skipped_note(count: int, first: str) -> str:
    return f"skipped {count} hidden or system folders, among them {first!r}"


def _from_listing(music: RemoteMusic) -> Found:
    """Find the audio files in a folder at an address with one subfolder per genre."""
    tracks, skipped = [], set[str]()
    for name, version in music.versions.items():
        *folders, own = name.split("/")
        hidden = next(
            (number for number, folder in enumerate(folders, 1) if SYSTEM_FOLDER.match(folder)), None
        )
        if hidden:
            skipped.add("/".join(folders[:hidden]))
        elif AUDIO_NAME.search(own):
            place = RemotePlace(name=name, location=child(music.address, name), version=version)
            genre, group = ([*folders, "", ""])[:2]
            track = _remote_track(place, genre, group if len(folders) > 1 else "")
            outside = None if folders else Exclusion.OUTSIDE_GENRE_FOLDER.value
            tracks.append(replace(track, excluded_reason=outside or track.excluded_reason))
    inside = [folder for folder in skipped if "/" in folder]
    return tracks, [_skipped_note(len(inside), min(inside))] if inside else []


def audio_below(folder: Path, skipped: list[Path] | None = None) -> Iterator[Path]:
    """Iterate over the audio files below a folder, by name and in order.

    Hidden and system folders are skipped, and added to `skipped` if that is given. Linked folders are followed, each
    real folder once, so that a link to a parent folder does not cause an endless loop.
    """

    def refuse(error: OSError) -> NoReturn:
        raise error

    seen = set()
    for here, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        if skipped is not None:
            skipped += [Path(here, name) for name in folders if SYSTEM_FOLDER.match(name)]
        folders[:] = sorted(name for name in folders if not SYSTEM_FOLDER.match(name))
        if (real := os.path.realpath(here)) in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(here, name) for name in sorted(names) if AUDIO_NAME.search(name))


def _from_manifest(
    path: Path,
    root: Path,
    aliases: Mapping[str, str] | None = None,
    split: str = "",
    *,
    music: RemoteMusic | None = None,
) -> Found:
    """Read the tracks of a manifest.

    Args:
        path: the manifest.
        root: the folder to which track ids are relative.
        aliases: see `read_manifest`.
        split: default split.
        music: what is listed at the address that the manifest was copied from; None if it is not a copy.
    """
    manifest = read_manifest(path, aliases)
    resolver = PathResolver(path.parent)
    folder = path.parent.relative_to(root).as_posix()

    def locate(written: str, where: str) -> Path | RemotePlace:
        if is_address(written.strip()):
            return RemotePlace.of(written.strip())
        if music is None or written.startswith("/"):
            return resolver.resolve(written, where)
        return music.place(folder, written)

    tracks: dict[str, Track] = {}
    for number, row in enumerate(manifest.rows, 1):
        where = f"{path}, row {number}"
        track = _from_row(root, locate, row | {"split": row["split"] or split}, where)
        if track.track_id in tracks:
            raise InputError(
                f"{where}: {track.track_id!r} is already listed above; keep one row",
                code=ErrorCode.DUPLICATE_TRACK,
            )
        tracks[track.track_id] = track
    return list(tracks.values()), list(manifest.notes)


def _from_row(
    root: Path, locate: Callable[[str, str], Path | RemotePlace], row: Mapping[str, str], where: str
) -> Track:
    path, genre, group, split = (row[name] for name in MANIFEST_COLUMNS)
    if not path.strip() or not genre.strip() or "\0" in path:
        raise InputError(
            f"{where}: path and genre must not be empty, but got {path!r} and {genre!r}; fill in or remove the row",
            code=ErrorCode.MANIFEST_EMPTY_CELL,
        )
    part = SPLIT_ALIASES.get(split.strip().lower())
    if split.strip() and not part:
        raise InputError(
            f"{where}: split must be one of {', '.join(SPLITS)}, but got {split.strip()!r}",
            code=ErrorCode.MANIFEST_UNKNOWN_SPLIT,
        )
    place = locate(path, where)
    if isinstance(place, RemotePlace):
        return _remote_track(place, genre.strip(), group.strip(), part)
    return _track(root, place, genre.strip(), group.strip(), part)


def _remote_track(place: RemotePlace, genre: str, group: str = "", split: str | None = None) -> Track:
    hidden = place.name.rpartition("/")[2].startswith(".")
    return Track(
        track_id=place.name,
        location=place.location,
        genre=_normalized(genre),
        group=_normalized(group) or place.name,
        split=split,
        excluded_reason=Exclusion.HIDDEN.value if hidden else None,
        version=place.version,
    )


def _track(root: Path, path: Path, genre: str, group: str = "", split: str | None = None) -> Track:
    """Make a track, excluded if its name forbids that; a name that is not Unicode is kept in escaped form."""
    name = _escaped(path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix())
    excluded: Exclusion | None = None
    if path.name.startswith("."):
        excluded = Exclusion.HIDDEN
    elif _escaped(str(path)) != str(path):
        excluded = Exclusion.NAME_NOT_UNICODE
    return Track(
        track_id=name,
        location=_escaped(str(path)),
        genre=_normalized(genre),
        group=_normalized(group) or name,
        split=split,
        excluded_reason=excluded and excluded.value,
    )


def _normalized(name: str) -> str:
    """Convert a name to Unicode NFC, in which equal names are equal strings, and one object for all their tracks."""
    return sys.intern(unicodedata.normalize("NFC", _escaped(name)))


def _escaped(name: str) -> str:
    return name.encode(errors="backslashreplace").decode()
