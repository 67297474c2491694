"""Safe extraction of archives: no file outside the folder, no links or devices, no decompression bombs."""

# tarfile's data filter (PEP 706) does not replace these checks: it keeps links within the folder and Windows paths,
# bounds no sizes, writes no file atomically, and does not cover zip files.

import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from genre_core.datasets.download import BLOCK_BYTES, mebibytes
from genre_core.errors import ErrorCode, InputError
from genre_core.system.atomic import atomic_file
from genre_core.system.progress import ProgressCallback

MAX_RATIO = 20
"""Largest ratio of unpacked to packed size; audio hardly compresses, tables by up to 5."""
ALWAYS_ALLOWED_BYTES = 2**20
"""Unpacked bytes allowed whatever the ratio."""
HEADER_BYTES = 512
"""Bytes counted for each file in addition to its content, which bounds the number of empty files."""


@dataclass(frozen=True)
class _Member:
    """A file in an archive, as its header describes it."""

    name: str
    size: int  # bytes
    content: IO[bytes]


def unpack(archive: Path, folder: Path, progress: ProgressCallback | None = None) -> None:
    """Extract the files of a zip or a (compressed) tar archive into `folder`, each atomically.

    Files that already exist with their full size are kept, so that an interrupted call can be resumed; files written
    by this call are deleted if the archive is rejected. Permissions, owners and times are not restored.

    Args:
        archive: the file.
        folder: where to extract; created if necessary.
        progress: called with the read and the total MiB of the archive.

    Raises:
        InputError: a path leads out of the folder, a member is not a regular file, the content is larger than
            declared or than MAX_RATIO times the archive, or the archive is damaged.
    """
    written: list[Path] = []
    try:
        with archive.open("rb") as raw:
            for member in _bounded(archive, raw, progress or (lambda done, total: None)):
                target = folder / _inside(archive, member.name)
                if not (target.is_file() and target.stat().st_size == member.size):
                    _write(archive, member, target)
                    written.append(target)
    except InputError:
        for path in written:
            path.unlink(missing_ok=True)
        raise


def _bounded(archive: Path, raw: IO[bytes], progress: ProgressCallback) -> Iterator[_Member]:
    """Yield the files while their declared sizes stay within bounds."""
    packed, unpacked = archive.stat().st_size, 0
    for member in _members(archive, raw):
        unpacked += member.size + HEADER_BYTES
        if unpacked > max(ALWAYS_ALLOWED_BYTES, MAX_RATIO * packed):
            raise _rejected(
                archive, f"would unpack to more than {MAX_RATIO} times its size", ErrorCode.ARCHIVE_TOO_LARGE
            )
        yield member
        progress(min(mebibytes(raw.tell()), mebibytes(packed)), mebibytes(packed))


def _write(archive: Path, member: _Member, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(target, durable=False) as partial:
        with partial.open("wb") as file:
            for block in _blocks(archive, member.content):
                file.write(block)
        if (size := partial.stat().st_size) != member.size:
            fault = f"declares {member.size} bytes for {member.name!r}, but contains {size}"
            raise _rejected(archive, fault, ErrorCode.ARCHIVE_DAMAGED)


def _blocks(archive: Path, source: IO[bytes]) -> Iterator[bytes]:
    while True:
        with _reading(archive):
            block = source.read(BLOCK_BYTES)
        if not block:
            return
        yield block


def _members(archive: Path, raw: IO[bytes]) -> Iterator[_Member]:
    """Yield the files in their order, without folders."""
    with _reading(archive):
        zipped = raw.read(2) == b"PK"
        raw.seek(0)
        yield from _zip_members(archive, raw) if zipped else _tar_members(archive, raw)


def _tar_members(archive: Path, raw: IO[bytes]) -> Iterator[_Member]:
    with tarfile.open(fileobj=raw, mode="r:*") as tar:
        for info in tar:
            if info.isdir():
                continue
            content = tar.extractfile(info) if info.isreg() else None
            if content is None:
                raise _not_a_file(archive, info.name)
            yield _Member(info.name, info.size, content)
        # tarfile treats an invalid header as the end; and the checksum of compressed data is at its end
        rest = tar.fileobj.read(BLOCK_BYTES) if tar.fileobj else b""
        if len(rest) == BLOCK_BYTES or rest.strip(b"\0"):
            raise _rejected(archive, "is damaged (it ends within its files)", ErrorCode.ARCHIVE_DAMAGED)


def _zip_members(archive: Path, raw: IO[bytes]) -> Iterator[_Member]:
    with zipfile.ZipFile(raw) as packed:
        for info in packed.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)  # 0 if the archive was not created on Unix
            if info.is_dir():
                continue
            if kind not in (0, stat.S_IFREG):
                raise _not_a_file(archive, info.filename)
            with packed.open(info) as content:
                yield _Member(info.filename, info.file_size, content)


def _inside(archive: Path, name: str) -> Path:
    """The relative path that a member's name stands for, whatever system wrote it."""
    parts = re.split(r"[/\\]", name)
    if parts[0] == "" or ".." in parts or re.match(r"[A-Za-z]:", name) or "\0" in name:
        raise _rejected(
            archive,
            f"contains the path {name!r}, which leads out of the folder",
            ErrorCode.ARCHIVE_UNSAFE_PATH,
        )
    return Path(*parts)


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    """Turn the errors that tarfile and zipfile raise for damaged archives into InputError."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:  # from the system, not from a decompressor
            raise
        raise _rejected(archive, f"is damaged ({error})", ErrorCode.ARCHIVE_DAMAGED) from error
    except (
        tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError,
        NotImplementedError, UnicodeError, ValueError, OverflowError,
    ) as error:  # fmt: skip
        raise _rejected(
            archive, f"is damaged or not supported ({error})", ErrorCode.ARCHIVE_DAMAGED
        ) from error


def _not_a_file(archive: Path, name: str) -> InputError:
    fault = f"contains {name!r}, which is a link or a device, not a regular file"
    return _rejected(archive, fault, ErrorCode.ARCHIVE_SPECIAL_FILE)


def _rejected(archive: Path, fault: str, code: ErrorCode) -> InputError:
    return InputError(f"{archive} {fault}: download it again, or from another source", code=code)
