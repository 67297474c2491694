"""Which tracks exist: path, genre, group (artist or recording), split."""

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

import pyarrow as pa
import pyarrow.parquet as pq

from genre_core.corpus.manifest import (
    HUGGING_FACE,
    MANIFEST_COLUMNS,
    MANIFEST_SUFFIXES,
    Files,
    Manifest,
    column_names,
    read_manifest,
)
from genre_core.corpus.manifest import MANIFESTS as MANIFESTS  # the folder's names for one
from genre_core.errors import InputError
from genre_core.system.atomic import atomic_file

HIDDEN = "hidden file"  # the reason against what was never meant as audio
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
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")  # of Hugging Face's audio folders

# Names that mean audio; some of formats that libsndfile does not decode, so that the audit names those files
AUDIO_NAME = re.compile(
    r"\.(wave?|flac|og[ga]|opus|mp[23]|aif[fc]?|aiff|au|snd|caf|w64|rf64|voc"
    r"|m4[abv]|mp4|mov|3gp|aac|adts|ac3|amr|wma|asf|ape|wv|mpc|tta|tak|ds[fd]|dff|mka|mkv|webm|ra|rm)\Z",
    re.IGNORECASE,
)

# Folders that a system, a desktop, an editor or a network drive keeps for itself
SYSTEM_FOLDER = re.compile(
    r"(\..*|__macosx|\$recycle\.bin|recycler|recycled|system volume information|found\.\d{3}|lost\+found"
    r"|network trash folder|temporary items|@eadir|@recycle|@recently-snapshot|[#~]recycle|[#~]snapshot)\Z",
    re.IGNORECASE,
)
ARCHIVE_NAME = re.compile(r"\.(zip|rar|7z|tar|t?gz|tar\.\w+|tgz)\Z", re.IGNORECASE)

SCHEMA_VERSION = b"1"
SCHEMA = pa.schema(
    [
        pa.field("track_id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("genre", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("split", pa.string()),
        pa.field("seconds", pa.float64(), metadata={"unit": "s"}),
        pa.field("content", pa.string()),
        pa.field("excluded_reason", pa.string()),
    ],
    metadata={"schema_version": SCHEMA_VERSION},
)


@dataclass(frozen=True, kw_only=True)
class Track:
    """One audio file. `seconds` and `content` are None until an audit has decoded it."""

    track_id: str  # path relative to the corpus, with forward slashes
    path: Path  # absolute
    genre: str
    group: str  # what must stay on one side of a split: an artist, a recording, or the file itself
    split: str | None = None  # one of SPLITS
    seconds: float | None = None
    content: str | None = None  # equal for files that decode to the same samples
    excluded_reason: str | None = None  # "kind" or "kind: detail"; None for a usable track
    warnings: tuple[str, ...] = field(default=(), compare=False)  # of the last audit; corpus.parquet has none


@dataclass(frozen=True)
class Corpus:
    """All tracks found, by track_id; the excluded ones too, so that they can be named."""

    tracks: tuple[Track, ...]
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What the user should know of how they were read, a sentence each; only `read_corpus` knows."""

    @cached_property
    def usable(self) -> tuple[Track, ...]:
        """The tracks that nothing speaks against."""
        return tuple(track for track in self.tracks if track.excluded_reason is None)

    @cached_property
    def excluded(self) -> tuple[Track, ...]:
        """The other tracks."""
        return tuple(track for track in self.tracks if track.excluded_reason)

    @cached_property
    def genres(self) -> tuple[str, ...]:
        """Names of the genres that have usable tracks, sorted: a genre's place here is its class index."""
        return tuple(sorted({track.genre for track in self.usable}))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the usable audio alone: sha256 over the sorted contents, whatever the names and genres."""
        contents = sorted(track.content for track in self.usable if track.content)
        assert len(contents) == len(self.usable), "the fingerprint is of an audited corpus"
        return hashlib.sha256("\n".join(contents).encode()).hexdigest()

    def part(self, split: str) -> tuple[Track, ...]:
        """The usable tracks of one of SPLITS."""
        return tuple(track for track in self.usable if track.split == split)


def read_corpus(source: Path) -> Corpus:
    """The tracks of a manifest, or of a folder: by its manifest, otherwise one sub-folder per genre.

    A manifest (in a folder: manifest.csv, .tsv or .parquet) has the columns path (relative to its folder, or
    absolute) and genre, and may have group and split; so does a metadata.csv of Hugging Face's, in the folder or in
    one for each part. Without one, source/GENRE/track.wav is its own group and source/GENRE/ARTIST/.../track.wav is
    in group ARTIST, the same in every genre. Hidden and system folders are skipped at every depth. Genres and groups
    are named in Unicode's form NFC; paths are as they are on disk. Raises InputError. No audio file is opened.
    """
    root = source.absolute()
    try:
        listed = root.suffix.lower() in MANIFEST_SUFFIXES and root.is_file()
        tracks, notes = _listed(root, root.parent) if listed else _of_folder(root, source)
    except OSError as error:
        raise InputError(f"cannot list {error.filename}: {error.strerror}; mend it or take it out") from error
    tracks.sort(key=lambda track: track.track_id)
    for one, other in pairwise(tracks):
        if one.track_id == other.track_id:  # a name in escapes may be another file's real name
            raise InputError(f"{source} has two files called {one.track_id!r}; rename one")
    return Corpus(tuple(tracks), tuple(notes))


Found = tuple[list[Track], list[str]]
"""Tracks, and what there is to say of how they were found."""


def _of_folder(root: Path, source: Path) -> Found:
    """The tracks of a folder, by its manifest or by its genre folders; `source` is what the user called it."""
    if not root.is_dir():
        unpack = "unpack it and " if ARCHIVE_NAME.search(root.name) and root.is_file() else ""
        raise InputError(
            f"a corpus is a folder or a manifest ({', '.join(MANIFEST_SUFFIXES)}), and {source} is neither: "
            f"{unpack}give a folder of genre folders"
        )
    names = sorted(path.name for path in root.iterdir())
    manifests = [name for name in names if name.lower() in MANIFESTS]
    if len(manifests) > 1:
        raise InputError(f"{source} has {' and '.join(manifests)}: keep the one that is meant")
    if manifests:
        return _listed(root / manifests[0], root)
    tracks, notes = _of_audio_folder(root, names)
    if not tracks:
        tracks, more = _found(root)
        notes += more
    if not tracks:
        packed = [name for name in names if ARCHIVE_NAME.search(name)]
        raise InputError(
            f"no audio in {source}: expected GENRE/track.wav in it, or a {MANIFESTS[0]}"
            + (f"; unpack {packed[0]} first" if packed else "")
        )
    return tracks, notes


def _of_audio_folder(root: Path, names: list[str]) -> Found:
    """The tracks of an audio folder as Hugging Face has it, with a metadata.csv in it or in a folder for each part."""
    parts = [name for name in names if name.lower() in SPLIT_ALIASES and (root / name).is_dir()]
    places = [root, *(root / part for part in parts)]
    tracks: dict[str, Track] = {}
    notes: list[str] = []
    for place in places:
        for path in sorted(path for path in place.iterdir() if path.name.lower() in METADATA):
            columns = _columns_of(path)
            if "file_name" not in columns:
                continue  # another table that is called so
            if not {"genre", "label"} & set(columns):
                notes.append(
                    f"{path.relative_to(root)} is not read: it has file_name and neither genre nor label"
                )
                continue
            split = "" if place == root else SPLIT_ALIASES[place.name.lower()]
            found, more = _listed(path, root, HUGGING_FACE, split)
            tracks |= {track.track_id: track for track in found}
            notes += [f"{path.relative_to(root)} is read as Hugging Face's, its file_name as path", *more]
    return list(tracks.values()), list(dict.fromkeys(notes))


def _columns_of(path: Path) -> list[str]:
    """A table's columns; none where it cannot be read, for it need not be meant for us."""
    try:
        return column_names(path)
    except InputError:
        return []


def _track(root: Path, path: Path, genre: str, group: str = "", split: str | None = None) -> Track:
    """A track, excluded where its name alone forbids it; a name that is not Unicode is kept in escapes."""
    name = _unicode(path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix())
    excluded = None if _unicode(str(path)) == str(path) else "name is not Unicode"
    return Track(
        track_id=name,
        path=Path(_unicode(str(path))),
        genre=_comparable(genre),
        group=_comparable(group) or name,
        split=split,
        excluded_reason=HIDDEN if path.name.startswith(".") else excluded,
    )


def _comparable(name: str) -> str:
    """A name in the one form of Unicode in which equal names are equal."""
    return unicodedata.normalize("NFC", _unicode(name))


def _words(error: Exception) -> str:
    return " ".join(str(error).split())


def _unicode(name: str) -> str:
    return name.encode(errors="backslashreplace").decode()


def _found(root: Path) -> Found:
    """The audio files of a folder of genre folders."""
    tracks = []
    skipped: list[Path] = []
    for entry in root.iterdir():
        if entry.is_dir() and not SYSTEM_FOLDER.match(entry.name):
            for path in audio_below(entry, skipped):
                folders = path.relative_to(entry).parts[:-1]
                tracks.append(_track(root, path, entry.name, folders[0] if folders else ""))
        elif AUDIO_NAME.search(entry.name) and not entry.is_dir():
            tracks.append(replace(_track(root, entry, ""), excluded_reason="outside a genre folder"))
    notes = []
    if skipped:
        first = _unicode(str(min(skipped).relative_to(root)))
        notes.append(f"skipped hidden and system folders: {len(skipped)}, the first {first!r}")
    return tracks, notes


def audio_below(folder: Path, skipped: list[Path] | None = None) -> Iterator[Path]:
    """The files below a folder whose names mean audio, in order, but for those in hidden and system folders.

    Follows linked folders, each real folder once, so that a link to a parent comes to an end. The folders that are
    skipped are added to `skipped`.
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


def _listed(path: Path, root: Path, aliases: Mapping[str, str] | None = None, split: str = "") -> Found:
    """The tracks of a manifest, named from `root` on; without a split of their own they are in `split`."""
    manifest: Manifest = read_manifest(path, aliases)
    files = Files(path.parent)
    tracks: dict[str, Track] = {}
    for number, row in enumerate(manifest.rows, 1):
        where = f"{path}, row {number}"
        track = _listed_track(root, files, row | {"split": row["split"] or split}, where)
        if track.track_id in tracks:
            raise InputError(f"{where}: {track.track_id!r} is listed before; keep one row")
        tracks[track.track_id] = track
    return list(tracks.values()), list(manifest.notes)


def _listed_track(root: Path, files: Files, row: Mapping[str, str], where: str) -> Track:
    path, genre, group, split = (row[name] for name in MANIFEST_COLUMNS)
    if not path.strip() or not genre.strip() or "\0" in path:
        raise InputError(f"{where}: path and genre must name something, but got {path!r} and {genre!r}")
    part = SPLIT_ALIASES.get(split.strip().lower())
    if split.strip() and not part:
        raise InputError(f"{where}: a split is one of {', '.join(SPLITS)}, but got {split.strip()!r}")
    return _track(root, files.meant(path, where), genre.strip(), group.strip(), part)


def write_corpus(corpus: Corpus, path: Path) -> None:
    """Write corpus.parquet: a row per track, the excluded ones too. It appears whole or not at all."""
    rows = [vars(track) | {"path": str(track.path)} for track in corpus.tracks]
    with atomic_file(path) as partial:
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), partial)


def load_corpus(path: Path) -> Corpus:
    """Read what write_corpus wrote. Raises InputError for anything else."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read as a corpus ({_words(error)}): write it anew") from error
    if table.schema != SCHEMA or (table.schema.metadata or {}).get(b"schema_version") != SCHEMA_VERSION:
        raise InputError(f"{path} is no corpus table of version {SCHEMA_VERSION.decode()}: write it anew")
    return Corpus(tuple(Track(**row | {"path": Path(row["path"])}) for row in table.to_pylist()))
