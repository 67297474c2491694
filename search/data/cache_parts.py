"""The parts of the cache folder: their sizes, and how to delete them."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil

from genre_core.errors import InputError
from search.errors import SearchErrorCode
from search.run.overview import folder_bytes

_PARTS = {
    "spectrograms": (("spectrograms",), True),
    "activations, initial weights and copies of spectrograms": (("shared", "nodes", "data"), True),
    "built-in corpora": (("synthetic",), True),
    "audits of audio files": (("audit-*.parquet",), True),
    "measured costs": (("costs.json",), False),
}
"""Title -> patterns of names, and whether searches recreate it."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of the cache."""

    title: str
    size_bytes: int
    recreated: bool
    """Whether it can be deleted, since searches recreate it."""


def parts(cache: Path) -> list[Part]:
    """The parts of a cache folder, which need not exist."""
    return [
        Part(title=title, size_bytes=sum(map(_size, _paths(cache, patterns))), recreated=recreated)
        for title, (patterns, recreated) in _PARTS.items()
    ]


def clean_cache(cache: Path) -> None:
    """Delete all parts that searches recreate.

    Raises:
        InputError: a process uses files of the cache.
    """
    if (user := _user(cache)) is not None:
        raise InputError(
            f"--clean needs a cache that no process uses, but process {user} has files of {cache} open; "
            "wait for it to end",
            code=SearchErrorCode.CACHE_IN_USE,
        )
    for patterns, recreated in _PARTS.values():
        for path in _paths(cache, patterns) if recreated else ():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _paths(cache: Path, patterns: tuple[str, ...]) -> list[Path]:
    return [path for pattern in patterns for path in cache.glob(pattern)]


def _size(path: Path) -> int:
    return folder_bytes(path) if path.is_dir() else path.stat().st_size


def _user(cache: Path) -> int | None:
    """The first process that has a file of the cache open or mapped, as far as this user may see."""
    inside = f"{cache.resolve()}/"
    for process in psutil.process_iter():
        try:
            opened = [file.path for file in process.open_files()]
            paths = opened + [mapped.path for mapped in process.memory_maps(grouped=True)]
        except psutil.Error:  # it has ended, or belongs to another user
            continue
        if any(path.startswith(inside) for path in paths):
            return process.pid
    return None
