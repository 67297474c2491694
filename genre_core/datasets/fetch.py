"""Published data sets as a folder of audio with a manifest, downloaded and unpacked if missing."""

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
from genre_core.errors import ErrorCode, InputError
from genre_core.system.atomic import atomic_file
from genre_core.system.progress import ProgressCallback

NAMES = ("gtzan", *(f"fma_{subset}" for subset in fma.SUBSETS))
"""Supported data sets."""
MIRRORS = Path(__file__).with_name("mirrors.yaml")
"""The default archives and mirrors of each data set."""
OTHER_ARCHIVES = {"gtzan": ("archive.zip",)}
"""File names of archives that users may have downloaded themselves: Kaggle's."""
DOWNLOADS = ".downloads"
"""Subfolder for archives that this module downloads; each is deleted once unpacked."""

ProgressBar = Callable[[str], AbstractContextManager[ProgressCallback]]
"""Opens a progress bar with a title."""
Notes = list[str]
"""Messages for the user, one line each."""


def get(
    name: str, folder: Path, *, split: str | None = None, mirrors: Path | None = None, progress: ProgressBar
) -> tuple[tuple[Track, ...], Notes]:
    """Download and unpack a data set into a folder and write its manifest.csv.

    Audio and archives that are already in the folder are used instead of a download; an interrupted call can be
    repeated and resumes.

    Args:
        name: one of NAMES.
        folder: where to store the data set; created if necessary.
        split: one of gtzan.SPLITS for GTZAN [default: the first]; None for other data sets.
        mirrors: a YAML file in the format of mirrors.yaml, which it replaces.
        progress: opens a progress bar for each download and each archive.

    Returns:
        The listed tracks, and messages for the user.

    Raises:
        InputError: an argument is invalid, the folder cannot be used, or the data set cannot be obtained.
    """
    _check_arguments(name, folder, split)
    archives = read_mirrors(mirrors or MIRRORS, name)
    try:
        (folder / DOWNLOADS).mkdir(parents=True, exist_ok=True)
        with FileLock(folder / DOWNLOADS / "lock", timeout=0):
            notes = [note for archive in archives for note in _provide(name, archive, folder, progress)]
            found, more = _tracks(name, folder, split)
            _write_manifest(found, folder)
    except Timeout as error:
        raise InputError(
            f"{folder} is in use by another `data get`; wait until it has finished",
            code=ErrorCode.FOLDER_IN_USE,
        ) from error
    except OSError as error:
        raise InputError(
            f"{error.filename or folder} cannot be written: {error.strerror or error}; fix this and repeat the "
            "command to resume",
            code=ErrorCode.FOLDER_NOT_WRITABLE,
        ) from error
    return found, notes + more


def _check_arguments(name: str, folder: Path, split: str | None) -> None:
    if name not in NAMES:
        raise InputError(
            f"NAME must be one of {', '.join(NAMES)}, but got {name}", code=ErrorCode.UNKNOWN_DATA_SET
        )
    if split is not None and name != "gtzan":
        raise InputError(
            f"--split is for gtzan only, but got --split {split} for {name}, which has its own split; leave it out",
            code=ErrorCode.SPLIT_NOT_SELECTABLE,
        )
    if split is not None:
        gtzan.require_split(split)
    if folder.is_file():
        raise InputError(
            f"DIR must be a folder, but got the file {folder}; if it is an archive, move it into a folder and give "
            "that",
            code=ErrorCode.FOLDER_IS_A_FILE,
        )


def read_mirrors(path: Path, name: str) -> tuple[Remote, ...]:
    """The archives of a data set, from a file in the format of mirrors.yaml; raises InputError if it is invalid."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "problem", None) or error
        raise InputError(
            f"--mirrors must be a readable YAML file, but got {path}: {reason}",
            code=ErrorCode.MIRRORS_UNREADABLE,
        ) from error
    rows = content.get(name) if isinstance(content, dict) else None
    if not (isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows)):
        raise InputError(
            f"--mirrors must list archives under the key {name}, but got {path}; for an example see {MIRRORS}",
            code=ErrorCode.MIRRORS_WITHOUT_DATA_SET,
        )
    return tuple(_remote(path, row) for row in rows)


def _remote(path: Path, row: dict[Any, Any]) -> Remote:
    try:
        if unknown := [key for key in row if key not in Remote.__dataclass_fields__]:
            raise InputError(
                f"an archive has no setting {unknown[0]!r}; remove it", code=ErrorCode.INVALID_ARCHIVE_ENTRY
            )
        urls = row.get("urls")
        return Remote(**{"name": None} | row | {"urls": tuple(urls) if isinstance(urls, list) else ()})
    except InputError as error:
        raise InputError(
            f"--mirrors {path}: {error}; for an example see {MIRRORS}", code=error.code
        ) from error


def _provide(name: str, archive: Remote, folder: Path, progress: ProgressBar) -> Notes:
    """Unpack an archive, downloaded if it is neither in the folder nor already unpacked there."""
    notes = []
    names = (archive.name, *OTHER_ARCHIVES.get(name, ()))
    given = next((folder / each for each in names if (folder / each).exists()), folder / archive.name)
    own = folder / DOWNLOADS / archive.name
    if not (given.exists() or own.exists()):
        if _is_unpacked(name, archive, folder):
            return []
        _download(archive, own.parent, folder, progress)
        if not archive.checksums:
            checked = "only its size was verified" if archive.size else "it was not verified"
            notes.append(f"{archive.name}: {checked}, since no checksum is known")
    packed = given if given.exists() else own
    with progress(f"Unpacking {packed.name}, MiB") as report:
        try:
            unpack(packed, folder, report)
        except InputError:
            own.unlink(missing_ok=True)
            raise
    own.unlink(missing_ok=True)
    return notes


def _download(archive: Remote, downloads: Path, folder: Path, progress: ProgressBar) -> None:
    with progress(f"Downloading {archive.name}, MiB") as report:
        try:
            download(archive, downloads, progress=report)
        except DownloadFailed as error:
            raise InputError(
                f"{error}; try again later, or put the file into {folder} yourself",
                code=ErrorCode.DOWNLOAD_FAILED,
            ) from error


def _is_unpacked(name: str, archive: Remote, folder: Path) -> bool:
    """Whether the folder has an archive's content, or at least part of it."""
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
