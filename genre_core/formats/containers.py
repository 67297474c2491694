"""What the bytes of a WAV, AIFF, AU, CAF, FLAC or Ogg file say of its length, read without decoding.

Headers are wrong where a recorder crashed, a download broke off or a program streamed: so the bytes are counted.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

_STREAMED = 0x7FFF_0000
"""A size in bytes from here on that the file does not have is a stream's "not known yet", not a promise."""
_FLAC_SEARCH_BYTES = 2**18
"""At a FLAC file's end, in which its last frames are looked for."""
_CRC8 = 0x07
"""Polynomial of a FLAC frame header's checksum."""
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
"""Id of the part of a Windows Media file's header with its length."""
_ASF_SEARCH_BYTES = 2**16
_BITS_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True, kw_only=True)
class SoundData:
    """Where the samples of a file made of chunks are, and how many bytes of them."""

    size_at: int
    """Byte of the field with the size."""
    size_format: str
    """Of that field, as `struct` has it."""
    declared: int | None
    """Bytes by the header; None where it leaves that open, as streams do."""
    available: int
    """Bytes from the first sample to the file's end."""
    unexplained: int
    """Bytes after the declared ones that are neither chunks nor tags nor zeros."""


@dataclass(frozen=True)
class _Layout:
    """How chunks follow each other in a kind of file."""

    begin: int
    """Byte of the first chunk."""
    id_bytes: int
    size: str
    """As `struct` has it."""
    align: int
    data: bytes
    """The id of the chunk with the samples."""
    preamble: int = 0
    """Bytes in it before the samples."""
    header_counts: bool = False
    """Whether a chunk's size includes its id and size."""


_W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0O\x8e\xdb\x8a"
_LAYOUTS = {
    b"RIFF": _Layout(12, 4, "<I", 2, b"data"),
    b"RIFX": _Layout(12, 4, ">I", 2, b"data"),
    b"RF64": _Layout(12, 4, "<I", 2, b"data"),
    b"FORM": _Layout(12, 4, ">I", 2, b"SSND", preamble=8),
    b"riff": _Layout(40, 16, "<Q", 8, _W64_DATA, header_counts=True),
    b"caff": _Layout(8, 4, ">Q", 1, b"data", preamble=4),
}


@dataclass(frozen=True)
class _Chunk:
    name: bytes
    begin: int
    """Byte of its id."""
    content: int
    """Byte of its content."""
    declared: int
    """Bytes of its content, by its header."""


def sound_data(file: BinaryIO, size: int) -> SoundData | None:
    """The samples of an open file of `size` bytes; None where it has no chunks of samples, or is cut off before."""
    file.seek(0)
    head = file.read(12)
    if head[:4] == b".snd" and len(head) == 12:
        begin, declared = struct.unpack(">II", head[4:])
        return SoundData(
            size_at=8,
            size_format=">I",
            declared=_known(declared, size - begin),
            available=max(0, size - begin),
            unexplained=0,
        )
    layout = _LAYOUTS.get(head[:4])
    if layout is None:
        return None
    for chunk in _chunks(file, layout, layout.begin, size):
        if chunk.name == layout.data:
            return _samples_in(file, layout, chunk, size, wide=_wide_size(file, head))
    return None


def where_cut(file: BinaryIO, size: int) -> str:
    """Where a file made of chunks, a FLAC, Ogg or MP4 file ends too early to be opened; nothing if it does not."""
    file.seek(0)
    head = file.read(8)
    magic, ends = head[:4], f"it ends after {size} bytes"
    if head[4:] == b"ftyp":
        return "" if b"moov" in _mp4_boxes(file, size) else f"before its index (moov): {ends}"
    if magic == b"fLaC":
        return f"in its header: {ends}" if _flac_audio_at(file) >= size else ""
    if magic == b"OggS":
        return "" if any(page.granule > 0 for page in _pages(file, size)) else f"before its sound: {ends}"
    if magic not in _LAYOUTS:
        return ""
    if (data := sound_data(file, size)) is None:
        return f"in its header: {ends}"
    declared = data.declared or 0
    return f"after {data.available} of {declared} bytes of sound" if declared > data.available else ""


def asf_seconds(file: BinaryIO) -> float | None:
    """Length of a Windows Media file by its header; None where that has none."""
    file.seek(0)
    head = file.read(_ASF_SEARCH_BYTES)
    at = head.find(_ASF_PROPERTIES)
    if at < 0 or len(head) < at + 88:
        return None
    duration, _, preroll = struct.unpack("<QQQ", head[at + 64 : at + 88])  # in 100 ns, and in ms
    return max(0.0, duration / 1e7 - preroll / 1e3) or None


def _mp4_boxes(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Names of an MP4 file's outermost boxes."""
    position = 0
    while position + 8 <= size:
        file.seek(position)
        head = file.read(16)
        length = int.from_bytes(head[:4])
        if length == 1:  # the size is in 64 bits
            length = int.from_bytes(head[8:])
        if length < 8:  # 0: to the end of the file
            return
        yield head[4:8]
        position += length


def _chunks(file: BinaryIO, layout: _Layout, position: int, size: int) -> Iterator[_Chunk]:
    """The chunks from this byte on, as long as they make sense."""
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
        position += header + declared
        position += -position % layout.align


def _samples_in(file: BinaryIO, layout: _Layout, chunk: _Chunk, size: int, wide: int | None) -> SoundData:
    begin = chunk.content + layout.preamble
    available = max(0, size - begin)
    declared = max(0, (chunk.declared if wide is None else wide) - layout.preamble)
    return SoundData(
        size_at=chunk.begin + layout.id_bytes,
        size_format=layout.size,
        declared=_known(declared, available),
        available=available,
        unexplained=_unexplained(file, layout, begin + declared, size),
    )


def _known(declared: int, available: int) -> int | None:
    return None if declared > available and declared >= _STREAMED else declared


def _wide_size(file: BinaryIO, head: bytes) -> int | None:
    """Bytes of samples by an RF64 file's first chunk, which holds what 32 bits cannot."""
    if head[:4] != b"RF64":
        return None
    file.seek(12)
    first = file.read(24)
    return int.from_bytes(first[16:24], "little") if first[:4] == b"ds64" else None


def _unexplained(file: BinaryIO, layout: _Layout, after: int, size: int) -> int:
    """Bytes from the end of the declared samples to the file's end that nothing accounts for."""
    position = after + -after % layout.align
    for chunk in _chunks(file, layout, position, size):
        if chunk.content + chunk.declared > size:
            break
        position = chunk.content + chunk.declared
        position += -position % layout.align
    file.seek(min(position, size))
    rest = file.read(2**16)
    tags = (b"ID3", b"TAG", b"APETAGEX", *_LAYOUTS)
    return 0 if not rest.strip(b"\0") or rest.startswith(tags) else size - position


@dataclass(frozen=True, kw_only=True)
class FlacLength:
    """Samples of a FLAC file."""

    stated: int
    """By its header; 0 where it leaves that open, as streams do."""
    found: int | None
    """By its last whole frame; None where none was found."""
    field_at: int
    """Byte of the five whose last 36 bits hold the stated number."""
    field: bytes
    sample_rate: int

    def field_with(self, samples: int) -> bytes:
        """The five bytes with another number."""
        return (int.from_bytes(self.field) >> 36 << 36 | samples).to_bytes(5)


def flac_length(file: BinaryIO, size: int) -> FlacLength | None:
    """How long an open FLAC file of `size` bytes is; None of any other file."""
    file.seek(0)
    head = file.read(42)
    if head[:4] != b"fLaC" or len(head) < 42 or head[4] & 0x7F:
        return None
    first = int.from_bytes(head[18:26])  # rate in 20 bits, channels - 1 in 3, bits - 1 in 5, samples in 36
    return FlacLength(
        stated=first & (2**36 - 1),
        found=_last_flac_sample(file, size, block_size=int.from_bytes(head[10:12])),
        field_at=21,
        field=head[21:26],
        sample_rate=first >> 44,
    )


def _flac_audio_at(file: BinaryIO) -> int:
    """Byte after a FLAC file's metadata, by their sizes."""
    position = 4
    while True:
        file.seek(position)
        head = file.read(4)
        position += 4 + int.from_bytes(head[1:4])
        if len(head) < 4 or head[0] & 0x80:
            return position


def _last_flac_sample(file: BinaryIO, size: int, block_size: int) -> int | None:
    """The end of the last frame whose predecessor is found too, so that no chance hit counts."""
    start = max(0, size - _FLAC_SEARCH_BYTES)
    file.seek(start)
    tail = file.read()
    later: tuple[int, int] | None = None
    at = tail.rfind(b"\xff")
    while at >= 0:
        if (frame := _flac_frame(tail[at : at + 16], block_size)) is not None:
            if later is not None and sum(frame) == later[0]:
                return sum(later)
            later = frame
        at = tail.rfind(b"\xff", 0, at)
    return sum(later) if later is not None and later[0] == 0 else None


def _flac_frame(head: bytes, block_size: int) -> tuple[int, int] | None:
    """First sample of the frame that begins here and how many it has; None where none begins."""
    if len(head) < 6 or head[1] & 0xFE != 0xF8 or head[3] & 1 or head[3] >> 4 > 10:
        return None
    size_code, rate_code = head[2] >> 4, head[2] & 15
    if not size_code or rate_code == 15:
        return None
    ones = 8 - (head[4] ^ 0xFF).bit_length()  # of the number, coded as UTF-8 codes a character
    if ones == 1 or ones == 8:
        return None
    number = head[4] & (0xFF >> (ones + 1) if ones else 0x7F)
    at = 5
    for byte in head[5 : 4 + ones] if ones else b"":
        if byte & 0xC0 != 0x80:
            return None
        number, at = number << 6 | byte & 0x3F, at + 1
    extra = {6: 1, 7: 2}.get(size_code, 0)
    length = int.from_bytes(head[at : at + extra]) + 1
    at += extra + {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if at >= len(head) or _crc8(head[:at]) != head[at]:
        return None
    if not extra:
        length = (
            192 if size_code == 1 else 576 << (size_code - 2) if size_code < 6 else 256 << (size_code - 8)
        )
    return number if head[1] & 1 else number * block_size, length


def _crc8(data: bytes) -> int:
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value << 1 ^ _CRC8 if value & 0x80 else value << 1) & 0xFF
    return value


@dataclass(kw_only=True)
class OggStreams:
    """What the pages of an Ogg file say of its sound."""

    granules: list[int] = field(default_factory=list)
    """Position at the end of each stream in turn, in samples (of Opus at 48 kHz)."""
    damage: list[int] = field(default_factory=list)
    """The last position in its stream before pages that are damaged or missing."""
    ended: bool = True
    """Whether the last page is marked as the last."""


@dataclass(frozen=True)
class _Page:
    flags: int
    granule: int
    serial: int
    number: int
    lost_before: bool
    """Whether bytes before it are no page, or a damaged one."""


def ogg_streams(file: BinaryIO, size: int) -> OggStreams:
    """Walk the pages of an open Ogg file of `size` bytes."""
    found = OggStreams()
    serial, number = None, -1
    for page in _pages(file, size):
        if page.flags & 2:
            serial, number = page.serial, page.number - 1
            found.granules.append(0)
        if page.serial != serial:  # a picture or a text beside the sound
            continue
        if page.lost_before or page.number != number + 1:
            found.damage.append(found.granules[-1])
        number = page.number
        found.granules[-1] = max(found.granules[-1], page.granule)
        found.ended = bool(page.flags & 4)
    return found


def _pages(file: BinaryIO, size: int) -> Iterator[_Page]:
    """The whole pages with a right checksum."""
    position, lost = 0, False
    while position + 27 <= size:
        file.seek(position)
        head = file.read(27)
        table = file.read(head[26]) if head[:4] == b"OggS" else b""
        body = file.read(sum(table))
        length = len(head) + len(table) + len(body)
        checksum = int.from_bytes(head[22:26], "little")
        if head[:4] != b"OggS" or _ogg_crc(head[:22] + bytes(4) + head[26:] + table + body) != checksum:
            position, lost = _next_page(file, position + 1, size), True
            continue
        flags, granule, serial, number = struct.unpack("<BqII", head[5:22])
        yield _Page(flags, granule, serial, number, lost)
        position, lost = position + length, False


def _next_page(file: BinaryIO, position: int, size: int) -> int:
    while position < size:
        file.seek(position)
        block = file.read(2**16)
        if (at := block.find(b"OggS")) >= 0:
            return position + at
        position += max(1, len(block) - 3)
    return size


def _ogg_crc(page: bytes) -> int:
    """CRC-32 with the highest bit first and zero before: zlib's, of reversed bits."""
    value = zlib.crc32(page.translate(_BITS_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{value:032b}"[::-1], 2)
