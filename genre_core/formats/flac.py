"""The length of a FLAC file: stated by its header and found in its last frame (RFC 9639)."""

from dataclasses import dataclass
from typing import BinaryIO

_SEARCH_BYTES = 2**18
"""Bytes at the end of a file that are searched for its last frames."""
_CRC8 = 0x07
"""Polynomial of a frame header's checksum."""


@dataclass(frozen=True, kw_only=True)
class FlacLength:
    """Length of a FLAC file in samples per channel."""

    stated: int
    """According to the header; 0 if it leaves the length open, as streams do."""
    found: int | None
    """According to the last complete frame; None if none was found."""
    field_offset: int
    """Byte offset of the five bytes whose last 36 bits hold the stated length."""
    field: bytes
    sample_rate: int
    """Hz."""

    def field_with(self, samples: int) -> bytes:
        """Return the five bytes with another length."""
        return (int.from_bytes(self.field) >> 36 << 36 | samples).to_bytes(5)


def flac_length(file: BinaryIO, size: int) -> FlacLength | None:
    """Read the length of an open FLAC file of `size` bytes; None for any other file."""
    file.seek(0)
    head = file.read(42)
    if head[:4] != b"fLaC" or len(head) < 42 or head[4] & 0x7F:
        return None
    first = int.from_bytes(head[18:26])  # rate in 20 bits, channels - 1 in 3, bits - 1 in 5, samples in 36
    return FlacLength(
        stated=first & (2**36 - 1),
        found=_last_sample(file, size, block_size=int.from_bytes(head[10:12])),
        field_offset=21,
        field=head[21:26],
        sample_rate=first >> 44,
    )


def flac_audio_offset(file: BinaryIO) -> int:
    """Return the byte offset after the metadata of an open FLAC file, according to the sizes in it."""
    position = 4
    while True:
        file.seek(position)
        head = file.read(4)
        position += 4 + int.from_bytes(head[1:4])
        if len(head) < 4 or head[0] & 0x80:
            return position


def _last_sample(file: BinaryIO, size: int, block_size: int) -> int | None:
    """The end of the last frame that follows another frame, to rule out matches by chance."""
    start = max(0, size - _SEARCH_BYTES)
    file.seek(start)
    tail = file.read()
    later: tuple[int, int] | None = None
    at = tail.rfind(b"\xff")
    while at >= 0:
        if (frame := _frame(tail[at : at + 16], block_size)) is not None:
            if later is not None and sum(frame) == later[0]:
                return sum(later)
            later = frame
        at = tail.rfind(b"\xff", 0, at)
    return sum(later) if later is not None and later[0] == 0 else None


def _frame(head: bytes, block_size: int) -> tuple[int, int] | None:
    """First sample and number of samples of the frame with this header; None if it is no frame header."""
    if len(head) < 6 or head[1] & 0xFE != 0xF8 or head[3] & 1 or head[3] >> 4 > 10:
        return None
    size_code, rate_code = head[2] >> 4, head[2] & 15
    if not size_code or rate_code == 15:
        return None
    ones = 8 - (head[4] ^ 0xFF).bit_length()  # of the frame number, which is coded like a UTF-8 character
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
