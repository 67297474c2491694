"""Archives are extracted unchanged; malicious and damaged ones are rejected and leave no files."""

import io
import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from genre_core.datasets.unpack import unpack
from genre_core.errors import ErrorCode, InputError

FILES = {
    "genres/jazz/jazz.00000.wav": os.urandom(70_000),
    "genres/jazz/empty.wav": b"",
    "genres/schöne Musik/日本 🎵.wav": b"sound " * 1000,
    "notes.txt": b"two dots within a name are allowed: a..b",
}


def tarred(path: Path, mode: Literal["w", "w:gz", "w:bz2", "w:xz"], *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, mode) as tar:
        for name, content in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in members:
            tar.addfile(info, io.BytesIO(b"x" * info.size))
    return path


def zipped(path: Path, method: int = zipfile.ZIP_STORED, *members: zipfile.ZipInfo) -> Path:
    with zipfile.ZipFile(path, "w", method) as packed:
        for name, content in FILES.items():
            packed.writestr(name, content)
        for info in members:
            packed.writestr(info, b"/etc/passwd")
    return path


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


KINDS: dict[str, Callable[[Path], Path]] = {
    "tar": lambda path: tarred(path, "w"),
    "tar.gz": lambda path: tarred(path, "w:gz"),
    "tar.bz2": lambda path: tarred(path, "w:bz2"),
    "tar.xz": lambda path: tarred(path, "w:xz"),
    "stored": lambda path: zipped(path, zipfile.ZIP_STORED),
    "deflated": lambda path: zipped(path, zipfile.ZIP_DEFLATED),
    "bzip2": lambda path: zipped(path, zipfile.ZIP_BZIP2),
    "lzma": lambda path: zipped(path, zipfile.ZIP_LZMA),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_archive_is_extracted_unchanged(tmp_path: Path, kind: str) -> None:
    reported: list[tuple[int, int]] = []
    unpack(KINDS[kind](tmp_path / "archive"), tmp_path / "out", lambda *counts: reported.append(counts))
    assert tree(tmp_path / "out") == FILES
    assert reported
    assert all(0 <= done <= total == 1 for done, total in reported)


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, size
    return info


def zip_member(name: str, mode: int = 0) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("x")
    info.filename = name  # set afterwards: the constructor would sanitize it
    info.external_attr = mode << 16
    return info


OUTSIDE = [
    "/tmp/x.wav",
    "../x.wav",
    "a/../../x.wav",
    "a/b/..",
    "..\\x.wav",
    "\\x.wav",
    "C:\\x.wav",
    "C:x.wav",
]
SPECIAL = [
    member("jazz", tarfile.SYMTYPE, "/etc"),
    member("jazz", tarfile.SYMTYPE, ".."),
    member("a.wav", tarfile.SYMTYPE, "notes.txt"),
    member("a.wav", tarfile.LNKTYPE, "../secret"),
    member("a.wav", tarfile.LNKTYPE, "notes.txt"),
    member("a.wav", tarfile.CHRTYPE),
    member("a.wav", tarfile.BLKTYPE),
    member("a.wav", tarfile.FIFOTYPE),
]


def tar_of(info: tarfile.TarInfo) -> Callable[[Path], Path]:
    return lambda path: tarred(path, "w", info)


def zip_of(info: zipfile.ZipInfo) -> Callable[[Path], Path]:
    return lambda path: zipped(path, 0, info)


MALICIOUS: dict[str, tuple[Callable[[Path], Path], ErrorCode]] = {
    **{f"tar {n}": (tar_of(member(n, size=1)), ErrorCode.ARCHIVE_UNSAFE_PATH) for n in OUTSIDE},
    **{f"zip {n}": (zip_of(zip_member(n)), ErrorCode.ARCHIVE_UNSAFE_PATH) for n in OUTSIDE},
    **{f"{m.type!r} to {m.linkname}": (tar_of(m), ErrorCode.ARCHIVE_SPECIAL_FILE) for m in SPECIAL},
    **{
        f"zip of kind {kind:o}": (zip_of(zip_member("a", kind)), ErrorCode.ARCHIVE_SPECIAL_FILE)
        for kind in (stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO)
    },
}  # fmt: skip


@pytest.mark.parametrize("case", MALICIOUS)
def test_paths_out_of_the_folder_links_and_devices_are_rejected(tmp_path: Path, case: str) -> None:
    make, code = MALICIOUS[case]
    archive = make(tmp_path / "archive")
    with pytest.raises(InputError) as error:
        unpack(archive, tmp_path / "deep/out")
    assert error.value.code is code
    assert str(archive) in str(error.value)
    assert sorted(tmp_path.iterdir()) == [archive, tmp_path / "deep"]
    assert list((tmp_path / "deep").iterdir()) == [tmp_path / "deep/out"]
    assert tree(tmp_path / "deep/out") == {}
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


def bomb(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a.wav", bytes(30_000_000))
    return path


def flood(path: Path) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for number in range(5_000):
            tar.addfile(member(f"{number}.wav"))
    return path


@pytest.mark.parametrize("make", [bomb, flood])
def test_decompression_bombs_are_rejected(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    with pytest.raises(InputError) as error:
        unpack(make(tmp_path / "archive"), tmp_path / "out")
    assert error.value.code is ErrorCode.ARCHIVE_TOO_LARGE
    assert str(tmp_path / "archive") in str(error.value)
    assert tree(tmp_path / "out") == {}


def corrupted(path: Path, place: int, content: bytes) -> Path:
    data = bytearray(path.read_bytes())
    data[place : place + len(content)] = content
    path.write_bytes(data)
    return path


def holding(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def with_header(path: Path, place: int, form: str, value: int) -> Path:
    """A zip of one file whose entry in the central directory is wrong."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a.wav", b"sound " * 1000)
    entry = path.read_bytes().rindex(b"PK\1\2")
    return corrupted(path, entry + place, struct.pack(form, value))


DAMAGED: dict[str, Callable[[Path], Path]] = {
    "a tar.gz cut off": lambda path: cut(tarred(path, "w:gz"), 0.5),
    "a tar cut off": lambda path: cut(tarred(path, "w"), 0.5),
    "a tar.xz cut off": lambda path: cut(tarred(path, "w:xz"), 0.5),
    "a tar.gz with other bytes": lambda path: corrupted(tarred(path, "w:gz"), 9_000, bytes(90)),
    "a tar.bz2 with other bytes": lambda path: corrupted(tarred(path, "w:bz2"), 9_000, bytes(90)),
    "a tar with an invalid second header": lambda path: corrupted(tarred(path, "w"), 70_656 + 100, b"12345678"),
    "a zip cut off": lambda path: cut(zipped(path), 0.9),
    "a zip with other bytes": lambda path: corrupted(zipped(path), 9_000, bytes(90)),
    "a zip that is encrypted": lambda path: with_header(path, 8, "<H", 1),
    "a zip by an unknown method": lambda path: with_header(path, 10, "<H", 9),
    "a zip with more bytes than declared": lambda path: with_header(path, 24, "<I", 10),
    "a zip with fewer bytes than declared": lambda path: with_header(path, 24, "<I", 7_000),
    "no archive": lambda path: holding(path, b"<html>not here"),
    "an empty file": lambda path: holding(path, b""),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_archives_are_rejected_and_leave_no_files(tmp_path: Path, case: str) -> None:
    archive = DAMAGED[case](tmp_path / "archive")
    with pytest.raises(InputError) as error:
        unpack(archive, tmp_path / "out")
    assert error.value.code is ErrorCode.ARCHIVE_DAMAGED
    assert str(archive) in str(error.value)
    assert "\n" not in str(error.value)
    assert tree(tmp_path / "out") == {}


def test_unpacking_again_completes_the_files_and_keeps_complete_ones(tmp_path: Path) -> None:
    archive = tarred(tmp_path / "archive", "w:gz")
    unpack(archive, tmp_path / "out")
    kept, half = (tmp_path / "out" / name for name in ("genres/jazz/jazz.00000.wav", "notes.txt"))
    half.write_text("two dots")
    before = kept.stat()
    unpack(archive, tmp_path / "out")
    assert tree(tmp_path / "out") == FILES
    assert (kept.stat().st_ino, kept.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
