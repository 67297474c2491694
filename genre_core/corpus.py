"""Which tracks exist: path, genre, group (artist or recording), split."""

import csv
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq

from genre_core.errors import InputError
from genre_core.whole_file import whole_file

HIDDEN = "hidden file"  # the reason against what was never meant as audio
SPLITS = ("train", "validation", "test")
SPLIT_ALIASES = {"val": "validation", "valid": "validation", "dev": "validation"}
MANIFEST_SUFFIXES = (".csv", ".parquet")
MANIFEST_COLUMNS = ("path", "genre", "group", "split")  # the first two are needed, others than these not read
MANIFESTS = tuple(f"manifest{suffix}" for suffix in MANIFEST_SUFFIXES)

# Names that mean audio; some of formats that libsndfile does not decode, so that the audit names those files
AUDIO_NAME = re.compile(
    r"\.(wave?|flac|og[ga]|opus|mp[23]|aif[fc]?|aiff|au|snd|caf|w64|rf64|voc"
    r"|m4[ab]|mp4|aac|wma|ape|wv|mka|webm|ra)\Z",
    re.IGNORECASE,
)

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


@dataclass(frozen=True)
class Corpus:
    """All tracks found, by track_id; the excluded ones too, so that they can be named."""

    tracks: tuple[Track, ...]

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

    A manifest (in a folder: manifest.csv or manifest.parquet) has the columns path (relative to its folder,
    or absolute) and genre, and may have group and split. Without one, source/GENRE/track.wav is its own group
    and source/GENRE/ARTIST/.../track.wav is in group ARTIST, the same in every genre. Raises InputError. No
    audio file is opened.
    """
    root = source.absolute()
    try:
        listed = root.suffix in MANIFEST_SUFFIXES and root.is_file()
        tracks = _listed(root) if listed else _of_folder(root, source)
    except OSError as error:
        raise InputError(f"cannot list {error.filename}: {error.strerror}; mend it or take it out") from error
    tracks.sort(key=lambda track: track.track_id)
    for one, other in pairwise(tracks):
        if one.track_id == other.track_id:  # a name in escapes may be another file's real name
            raise InputError(f"{source} has two files called {one.track_id!r}; rename one")
    return Corpus(tuple(tracks))


def _of_folder(root: Path, source: Path) -> list[Track]:
    """The tracks of a folder, by its manifest or by its genre folders; `source` is what the user called it."""
    if not root.is_dir():
        raise InputError(
            f"a corpus is a folder or a manifest (.csv, .parquet), and {source} is neither: "
            "give a folder of genre folders"
        )
    manifests = [root / name for name in MANIFESTS if os.path.lexists(root / name)]
    if len(manifests) > 1:
        raise InputError(f"{source} has {' and '.join(MANIFESTS)}: keep the one that is meant")
    tracks = _listed(manifests[0]) if manifests else _found(root)
    if not tracks:
        raise InputError(f"no audio in {source}: expected GENRE/track.wav in it, or a {MANIFESTS[0]}")
    return tracks


def _track(root: Path, path: Path, genre: str, group: str = "", split: str | None = None) -> Track:
    """A track, excluded where its name alone forbids it; a name that is not Unicode is kept in escapes."""
    name = _unicode(path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix())
    excluded = None if _unicode(str(path)) == str(path) else "name is not Unicode"
    return Track(
        track_id=name,
        path=Path(_unicode(str(path))),
        genre=_unicode(genre),
        group=_unicode(group) or name,
        split=split,
        excluded_reason=HIDDEN if path.name.startswith(".") else excluded,
    )


def _words(error: Exception) -> str:
    return " ".join(str(error).split())


def _unicode(name: str) -> str:
    return name.encode(errors="backslashreplace").decode()


def _found(root: Path) -> list[Track]:
    """The audio files of a folder of genre folders."""
    tracks = []
    for entry in root.iterdir():
        if entry.is_dir() and not entry.name.startswith("."):
            for path in audio_below(entry):
                folders = path.relative_to(entry).parts[:-1]
                tracks.append(_track(root, path, entry.name, folders[0] if folders else ""))
        elif AUDIO_NAME.search(entry.name) and not entry.is_dir():
            tracks.append(replace(_track(root, entry, ""), excluded_reason="outside a genre folder"))
    return tracks


def audio_below(folder: Path) -> Iterator[Path]:
    """The files below a folder whose names mean audio, in order.

    Follows linked folders, each real folder once, so that a link to a parent comes to an end.
    """

    def refuse(error: OSError) -> NoReturn:
        raise error

    seen = set()
    for here, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        folders.sort()
        if (real := os.path.realpath(here)) in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(here, name) for name in sorted(names) if AUDIO_NAME.search(name))


def _listed(manifest: Path) -> list[Track]:
    """The tracks of a manifest."""
    columns, rows = _manifest_rows(manifest)
    if missing := [name for name in MANIFEST_COLUMNS[:2] if name not in columns]:
        raise InputError(
            f"{manifest} needs the columns path and genre, and lacks {' and '.join(missing)}: "
            f"it has {', '.join(map(repr, columns)) or 'none'}"
        )
    if twice := [name for name in MANIFEST_COLUMNS if columns.count(name) > 1]:
        raise InputError(f"{manifest} has the column {twice[0]} more than once: keep the one that is meant")
    if not rows:
        raise InputError(f"{manifest} has no rows: list a track in each, or take it away")
    tracks: dict[str, Track] = {}
    for number, row in enumerate(rows, 1):
        track = _listed_track(manifest, number, row)
        if track.track_id in tracks:
            raise InputError(f"{manifest}, row {number}: {track.track_id!r} is listed before; keep one row")
        tracks[track.track_id] = track
    return list(tracks.values())


def _manifest_rows(manifest: Path) -> tuple[Sequence[str], list[dict[str, Any]]]:
    """Column names and rows; row 1 is the first below the header."""
    if not manifest.is_file():  # opening a pipe would wait for ever
        raise InputError(f"{manifest} is no file: write a manifest there, or take it away")
    try:
        if manifest.suffix == ".parquet":
            with pq.ParquetFile(manifest) as file:
                names = file.schema_arrow.names
                return names, file.read([name for name in MANIFEST_COLUMNS if name in names]).to_pylist()
        with manifest.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            return reader.fieldnames or [], list(reader)
    except (OSError, ValueError, LookupError, OverflowError, csv.Error, pa.ArrowException) as error:
        raise InputError(f"{manifest} cannot be read ({_words(error)}): write it anew, as UTF-8") from error


def _listed_track(manifest: Path, number: int, row: dict[str, Any]) -> Track:
    cells = {name: "" if cell is None else str(cell) for name, cell in row.items()}
    path, genre, group, split = (cells.get(name, "") for name in ("path", "genre", "group", "split"))
    where = f"{manifest}, row {number}"
    if None in row:
        raise InputError(f"{where}: more cells than the header has; quote a cell that holds a comma")
    if not path.strip() or not genre.strip() or "\0" in path:
        raise InputError(f"{where}: path and genre must name something, but got {path!r} and {genre!r}")
    split = SPLIT_ALIASES.get(split.strip(), split.strip())
    if split and split not in SPLITS:
        raise InputError(f"{where}: a split is one of {', '.join(SPLITS)}, but got {split!r}")
    # normpath, so that one file under two spellings is seen as listed twice
    location = Path(os.path.normpath(manifest.parent / path))
    return _track(manifest.parent, location, genre.strip(), group.strip(), split or None)


def write_corpus(corpus: Corpus, path: Path) -> None:
    """Write corpus.parquet: a row per track, the excluded ones too. It appears whole or not at all."""
    rows = [vars(track) | {"path": str(track.path)} for track in corpus.tracks]
    with whole_file(path) as partial:
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
