"""Position and size of the samples in chunked audio files: WAV, RF64, Wave64, AIFF, CAF and AU.

The size in the header can be wrong if a recorder crashed, a download was interrupted or a program streamed the
file, so it is compared with the bytes that exist.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

_STREAMED = 0x7FFF_0000
"""Bytes. A declared size that is at least this and exceeds the file means "unknown": streaming programs write it."""


@dataclass(frozen=True, kw_only=True)
class SampleData:
    """Position and size of the samples in a chunked file."""

    size_offset: int
    """Byte offset of the size field."""
    size_format: str
    """`struct` format of the size field."""
    declared: int | None
    """Bytes of samples according to the header; None if it leaves the size open, as streams do."""
    available: int
    """Bytes from the first sample to the end of the file."""
    undeclared: int
    """Bytes after the declared samples that are neither chunks nor tags nor zeros."""


@dataclass(frozen=True)
class _Layout:
    """How a file format arranges its chunks."""

    begin: int
    """Byte offset of the first chunk."""
    id_bytes: int
    size: str
    """`struct` format of a chunk's size."""
    align: int
    data: bytes
    """Id of the chunk with the samples."""
    preamble: int = 0
    """Bytes in that chunk before the samples."""
    header_counts: bool = False
    """Whether a chunk's size includes its id and size fields."""


_W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0O\x8e\xdb\x8a"
_LAYOUTS = {
    b"RIFF": _Layout(12, 4, "<I", 2, b"data"),
    b"RIFX": _Layout(12, 4, ">I", 2, b"data"),
    b"RF64": _Layout(12, 4, "<I", 2, b"data"),
    b"FORM": _Layout(12, 4, ">I", 2, b"SSND", preamble=8),
    b"riff": _Layout(40, 16, "<Q", 8, _W64_DATA, header_counts=True),
    b"caff": _Layout(8, 4, ">Q", 1, b"data", preamble=4),
}
CHUNKED_MAGIC = frozenset(_LAYOUTS)
"""The first four bytes of a chunked file; AU is not among them, as it has one header and no chunks."""


@dataclass(frozen=True)
class _Chunk:
    name: bytes
    begin: int
    """Byte offset of its id."""
    content: int
    """Byte offset of its content."""
    declared: int
    """Bytes of its content, according to its header."""


def find_sample_data(file: BinaryIO, size: int) -> SampleData | None:
    """Locate the samples in an open file of `size` bytes; None if it has no chunk of samples."""
    file.seek(0)
    head = file.read(12)
    if head[:4] == b".snd" and len(head) == 12:
        begin, declared = struct.unpack(">II", head[4:])
        return SampleData(
            size_offset=8,
            size_format=">I",
            declared=_unless_streamed(declared, size - begin),
            available=max(0, size - begin),
            undeclared=0,
        )
    layout = _LAYOUTS.get(head[:4])
    if layout is None:
        return None
    for chunk in _chunks(file, layout, layout.begin, size):
        if chunk.name == layout.data:
            return _sample_data(file, layout, chunk, size, rf64_size=_rf64_size(file, head))
    return None


def _chunks(file: BinaryIO, layout: _Layout, position: int, size: int) -> Iterator[_Chunk]:
    """Iterate over the chunks from a byte offset on, up to the first implausible one."""
    header = layout.id_bytes + struct.calcsize(layout.size)
    while position + header <= size:
        file.seek(position)
        head = file.read(header)
        name, declared = head[: layout.id_bytes], struct.unpack(layout.size, head[layout.id_bytes :])[0]
        if not all(32 <= byte < 127 for byte in name[:4]):
            return
        declared -= header if layout.header_counts else 0
        if declared < 0:
            return
        yield _Chunk(name, position, position + header, declared)
        position = _aligned(position + header + declared, layout)


def _aligned(position: int, layout: _Layout) -> int:
    return position + -position % layout.align


def _sample_data(
    file: BinaryIO, layout: _Layout, chunk: _Chunk, size: int, rf64_size: int | None
) -> SampleData:
    begin = chunk.content + layout.preamble
    available = max(0, size - begin)
    declared = max(0, (chunk.declared if rf64_size is None else rf64_size) - layout.preamble)
    return SampleData(
        size_offset=chunk.begin + layout.id_bytes,
        size_format=layout.size,
        declared=_unless_streamed(declared, available),
        available=available,
        undeclared=_undeclared(file, layout, begin + declared, size),
    )


def _unless_streamed(declared: int, available: int) -> int | None:
    return None if declared > available and declared >= _STREAMED else declared


def _rf64_size(file: BinaryIO, head: bytes) -> int | None:
    """Bytes of samples according to the ds64 chunk of an RF64 file, whose other sizes have only 32 bits."""
    if head[:4] != b"RF64":
        return None
    file.seek(12)
    first = file.read(24)
    return int.from_bytes(first[16:24], "little") if first[:4] == b"ds64" else None


def _undeclared(file: BinaryIO, layout: _Layout, end: int, size: int) -> int:
    """Bytes between the end of the declared samples and the end of the file that are in no chunk."""
    position = _aligned(end, layout)
    for chunk in _chunks(file, layout, position, size):
        if chunk.content + chunk.declared > size:
            break
        position = _aligned(chunk.content + chunk.declared, layout)
    file.seek(min(position, size))
    rest = file.read(2**16)
    tags = (b"ID3", b"TAG", b"APETAGEX", *_LAYOUTS)
    return 0 if not rest.strip(b"\0") or rest.startswith(tags) else size - position
