"""An archive -> a folder: nothing of it lands outside, is a link or a device, or is larger than it may be."""

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

from genre_core.datasets.download import BLOCK, mebibytes
from genre_core.errors import InputError
from genre_core.system.atomic import atomic_file
from genre_core.system.progress import ProgressCallback

EXPANSION = 20  # times its own size that an archive may unpack to; audio gains little, tables up to 5
SMALL = 2**20  # bytes that any archive may unpack to
HEADER = 512  # bytes that a file counts for besides its content, so that empty ones cannot be without number


@dataclass(frozen=True)
class _Member:
    """A file in an archive, as the archive announces it."""

    name: str
    size: int  # bytes
    content: IO[bytes]


def unpack(archive: Path, folder: Path, report: ProgressCallback | None = None) -> None:
    """Write the files of a zip, or of a tar however compressed, below `folder`, each whole or not at all.

    What is there already in its full size stays, so that an interrupted call is gone on with; what this call wrote
    goes again when the archive is refused. Permissions, owners and times are not taken over. `report` hears how many
    MiB of the archive are read.

    Raises:
        InputError: a name leads out of the folder, a member is no plain file, the content is more than was
            announced or than EXPANSION times the archive, or the archive is damaged.
    """
    fresh: list[Path] = []
    try:
        with archive.open("rb") as raw:
            for member in _bounded(archive, raw, report or (lambda done, total: None)):
                target = folder / _inside(archive, member.name)
                if not (target.is_file() and target.stat().st_size == member.size):
                    _write(archive, member, target)
                    fresh.append(target)
    except InputError:
        for path in fresh:
            path.unlink(missing_ok=True)
        raise


def _bounded(archive: Path, raw: IO[bytes], report: ProgressCallback) -> Iterator[_Member]:
    """The files, as long as what they announce stays within bounds."""
    length, unpacked = archive.stat().st_size, 0
    for member in _members(archive, raw):
        unpacked += member.size + HEADER
        if unpacked > max(SMALL, EXPANSION * length):
            raise _refused(archive, f"would unpack to more than {EXPANSION} times its own size")
        yield member
        report(min(mebibytes(raw.tell()), mebibytes(length)), mebibytes(length))


def _write(archive: Path, member: _Member, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(target, durable=False) as partial:
        with partial.open("wb") as file:
            for block in _blocks(archive, member.content):
                file.write(block)
        if (written := partial.stat().st_size) != member.size:
            raise _refused(archive, f"says {member.size} bytes of {member.name!r} and holds {written}")


def _blocks(archive: Path, source: IO[bytes]) -> Iterator[bytes]:
    while True:
        with _reading(archive):
            block = source.read(BLOCK)
        if not block:
            return
        yield block


def _members(archive: Path, raw: IO[bytes]) -> Iterator[_Member]:
    """The files, in their order; folders come with the files in them."""
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
                raise _refused(archive, f"holds {info.name!r}, which is no plain file but a link or a device")
            yield _Member(info.name, info.size, content)
        # tarfile takes a header that makes no sense for the end; and what is compressed has its checksum there
        rest = tar.fileobj.read(BLOCK) if tar.fileobj else b""
        if len(rest) == BLOCK or rest.strip(b"\0"):
            raise _refused(archive, "is damaged (it ends within its files)")


def _zip_members(archive: Path, raw: IO[bytes]) -> Iterator[_Member]:
    with zipfile.ZipFile(raw) as packed:
        for info in packed.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive was not made on Unix
            if info.is_dir():
                continue
            if kind not in (0, stat.S_IFREG):
                raise _refused(
                    archive, f"holds {info.filename!r}, which is no plain file but a link or a device"
                )
            with packed.open(info) as content:
                yield _Member(info.filename, info.file_size, content)


def _inside(archive: Path, name: str) -> Path:
    """The path below a folder that a name means, on whatever system it was written."""
    parts = re.split(r"[/\\]", name)
    if parts[0] == "" or ".." in parts or re.match(r"[A-Za-z]:", name) or "\0" in name:
        raise _refused(archive, f"holds {name!r}, which leads out of the folder")
    return Path(*parts)


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    """What the readers of archives raise at damaged ones, as one line."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:  # the system's, not a decompressor's
            raise
        raise _refused(archive, f"is damaged ({error})") from error
    except (
        tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError,
        NotImplementedError, UnicodeError, ValueError, OverflowError,
    ) as error:  # fmt: skip
        raise _refused(archive, f"is damaged or of a kind that is not read ({error})") from error


def _refused(archive: Path, fault: str) -> InputError:
    return InputError(f"{archive} {fault}: get it anew, or from another place")
