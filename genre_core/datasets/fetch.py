"""A published data set -> a folder with its audio and a manifest: what is not there is downloaded and unpacked."""

import csv
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from genre_core.corpus.manifest import MANIFEST_COLUMNS
from genre_core.corpus.tracks import Track
from genre_core.datasets import fma, gtzan
from genre_core.datasets.download import DownloadFailed, Remote, download
from genre_core.datasets.unpack import unpack
from genre_core.errors import InputError
from genre_core.system.atomic import atomic_file
from genre_core.system.progress import ProgressCallback

NAMES = ("gtzan", *(f"fma_{subset}" for subset in fma.SUBSETS))
MIRRORS = Path(__file__).with_name("mirrors.yaml")
OTHER_ARCHIVES = {
    "gtzan": ("archive.zip",)
}  # names of archives of the same audio that are not downloaded: Kaggle's
DOWNLOADS = ".downloads"  # in the data set's folder: archives of ours, which go when they are unpacked

Progress = Callable[[str], AbstractContextManager[ProgressCallback]]
Notes = list[str]


def get(
    name: str, folder: Path, *, split: str | None = None, mirrors: Path | None = None, progress: Progress
) -> tuple[tuple[Track, ...], Notes]:
    """Bring one of NAMES into a folder, and write its manifest.csv: the tracks listed, and what there is to say.

    Audio that is there already is left as it is, and an archive that lies there is unpacked; an interrupted call is
    gone on with. Raises InputError.
    """
    if name not in NAMES:
        raise InputError(f"NAME must be one of {', '.join(NAMES)}, but got {name}")
    if split is not None and name != "gtzan":
        raise InputError(
            f"--split is for gtzan, and {name} has one split of its own: leave --split {split} out"
        )
    if folder.is_file():
        raise InputError(f"DIR must be a folder, but got the file {folder}; put it into one, and give that")
    archives = read_mirrors(mirrors or MIRRORS, name)
    try:
        (folder / DOWNLOADS).mkdir(parents=True, exist_ok=True)
        with FileLock(folder / DOWNLOADS / "lock", timeout=0):
            notes = [note for archive in archives for note in _provide(name, archive, folder, progress)]
            found, more = _tracks(name, folder, split)
            _write_manifest(found, folder)
    except Timeout as error:
        raise InputError(f"another data get is at work in {folder}: wait for its end") from error
    except OSError as error:
        raise InputError(
            f"{error.filename or folder} cannot be written: {error.strerror or error}; mend that and run the same "
            "command again, it goes on from here"
        ) from error
    return found, notes + more


def read_mirrors(path: Path, name: str) -> tuple[Remote, ...]:
    """The archives of a data set in a file of the form of data_sets.yaml. Raises InputError."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"--mirrors must be a readable YAML file, but {path} is not: {error}") from error
    rows = content.get(name) if isinstance(content, dict) else None
    if not (isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows)):
        raise InputError(f"--mirrors must list archives under {name}, but {path} does not; see {MIRRORS}")
    return tuple(_remote(path, row) for row in rows)


def _remote(path: Path, row: dict[Any, Any]) -> Remote:
    try:
        if unknown := [key for key in row if key not in Remote.__dataclass_fields__]:
            raise InputError(f"an archive has no {unknown[0]}")
        urls = row.get("urls")
        return Remote(**{"name": None} | row | {"urls": tuple(urls) if isinstance(urls, list) else ()})
    except InputError as error:
        raise InputError(f"--mirrors {path}: {error}; see {MIRRORS}") from error


def _provide(name: str, archive: Remote, folder: Path, progress: Progress) -> Notes:
    """What is in an archive, in the folder: unpacked from there, or downloaded if it is not unpacked already."""
    notes = []
    names = (archive.name, *OTHER_ARCHIVES.get(name, ()))
    given = next((folder / each for each in names if (folder / each).exists()), folder / archive.name)
    own = folder / DOWNLOADS / archive.name
    if not (given.exists() or own.exists()):
        if _is_there(name, archive, folder):
            return []
        with progress(f"Downloading {archive.name}, MiB") as report:
            try:
                download(archive, own.parent, report=report)
            except DownloadFailed as error:
                raise InputError(f"{error}; run it again later, or put the file into {folder}") from error
        if not archive.checksums:
            size = "no checksum is known for it; its size is as announced"
            notes.append(
                f"{archive.name}: {size if archive.size else 'neither a checksum nor a size is known for it'}"
            )
    packed = given if given.exists() else own
    with progress(f"Unpacking {packed.name}, MiB") as report:
        try:
            unpack(packed, folder, report)
        except InputError:
            own.unlink(missing_ok=True)
            raise
    own.unlink(missing_ok=True)
    return notes


def _is_there(name: str, archive: Remote, folder: Path) -> bool:
    """Whether an archive's content is in the folder, if not all of it."""
    if name == "gtzan":
        return bool(gtzan.recordings(folder))
    if archive.name.startswith(fma.METADATA.parent.name):
        return (folder / fma.METADATA).exists()
    return next((folder / name).rglob("*.mp3"), None) is not None


def _tracks(name: str, folder: Path, split: str | None) -> tuple[tuple[Track, ...], Notes]:
    if name == "gtzan":
        return gtzan.tracks(folder, split or gtzan.SPLITS[0])
    return fma.tracks(folder, name.removeprefix("fma_"))


def _write_manifest(tracks: tuple[Track, ...], folder: Path) -> None:
    rows = [(track.track_id, track.genre, track.group, track.split) for track in tracks]
    with (
        atomic_file(folder / "manifest.csv") as partial,
        partial.open("w", encoding="utf-8", newline="") as file,
    ):
        csv.writer(file, lineterminator="\n").writerows([MANIFEST_COLUMNS, *rows])
