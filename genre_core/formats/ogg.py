"""The pages of an Ogg file (RFC 3533): length of each stream, damaged or missing pages."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

_BITS_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(kw_only=True)
class OggStreams:
    """Lengths and damage of the consecutive streams in an Ogg file."""

    granules: list[int] = field(default_factory=list)
    """Position at the end of each stream, in samples (48 kHz for Opus)."""
    damage: list[int] = field(default_factory=list)
    """Position in its stream before each run of damaged or missing pages, in samples."""
    ended: bool = True
    """Whether the last page carries the end-of-stream flag."""


@dataclass(frozen=True)
class OggPage:
    """Header of one page."""

    flags: int
    granule: int
    """Position at the end of the page, in samples."""
    serial: int
    number: int
    follows_damage: bool
    """Whether the bytes before it are a damaged page or no page at all."""


def ogg_streams(file: BinaryIO, size: int) -> OggStreams:
    """Scan the pages of an open Ogg file of `size` bytes."""
    found = OggStreams()
    serial, number = None, -1
    for page in ogg_pages(file, size):
        if page.flags & 2:
            serial, number = page.serial, page.number - 1
            found.granules.append(0)
        if page.serial != serial:  # a multiplexed stream of pictures or text
            continue
        if page.follows_damage or page.number != number + 1:
            found.damage.append(found.granules[-1])
        number = page.number
        found.granules[-1] = max(found.granules[-1], page.granule)
        found.ended = bool(page.flags & 4)
    return found


def ogg_pages(file: BinaryIO, size: int) -> Iterator[OggPage]:
    """Iterate over the complete pages with a valid checksum."""
    position, damaged = 0, False
    while position + 27 <= size:
        file.seek(position)
        head = file.read(27)
        table = file.read(head[26]) if head[:4] == b"OggS" else b""
        body = file.read(sum(table))
        length = len(head) + len(table) + len(body)
        checksum = int.from_bytes(head[22:26], "little")
        if head[:4] != b"OggS" or _crc32(head[:22] + bytes(4) + head[26:] + table + body) != checksum:
            position, damaged = _next_page(file, position + 1, size), True
            continue
        flags, granule, serial, number = struct.unpack("<BqII", head[5:22])
        yield OggPage(flags, granule, serial, number, damaged)
        position, damaged = position + length, False


def _next_page(file: BinaryIO, position: int, size: int) -> int:
    while position < size:
        file.seek(position)
        block = file.read(2**16)
        if (at := block.find(b"OggS")) >= 0:
            return position + at
        position += max(1, len(block) - 3)
    return size


def _crc32(page: bytes) -> int:
    """CRC-32 with the most significant bit first and initial value 0: zlib's CRC-32 of bit-reversed bytes."""
    value = zlib.crc32(page.translate(_BITS_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{value:032b}"[::-1], 2)
