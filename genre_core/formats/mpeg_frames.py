"""True length and gaps of an MPEG audio (MP3) file, by counting its frames without decoding them.

Frame headers: ISO/IEC 11172-3 and 13818-3. A leading Xing or Info frame may state the number of frames.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO

_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
"""Version bits of a frame header (MPEG 1, 2 and 2.5) -> sample rates in Hz."""
_KBPS = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""MPEG version and layer -> bit rates in kbit/s, by their index from 1."""
_SEARCH_BYTES = 2**16
_XING_BYTES = 200
"""Bytes of a Xing frame that hold all the fields read here."""


@dataclass(frozen=True, kw_only=True)
class MpegAudio:
    """Length and damage of a file's audio according to its frames."""

    audio_offset: int
    """Byte offset of the first audio frame, after any tags and Xing frame."""
    frames: int
    samples_per_frame: int
    sample_rate: int
    """Hz."""
    stated_frames: int | None
    """Number of frames according to the Xing frame; None without one."""
    trimmed: int
    """Samples that a decoder drops at both ends, according to the Xing frame."""
    gaps: tuple[float, ...]
    """Positions in seconds at which frames are damaged or missing."""

    @property
    def seconds(self) -> float:
        """Length of the audio in the frames."""
        return self._seconds(self.frames)

    @property
    def stated_seconds(self) -> float | None:
        """Length according to the Xing frame; None without one."""
        return None if self.stated_frames is None else self._seconds(self.stated_frames)

    def _seconds(self, frames: int) -> float:
        return max(0, frames * self.samples_per_frame - self.trimmed) / self.sample_rate


@dataclass(frozen=True)
class _Frame:
    size: int
    samples: int
    sample_rate: int
    kind: tuple[int, int, int]
    """Version, layer and rate, which are the same in all frames of a stream."""


def count_mpeg_frames(file: BinaryIO, size: int) -> MpegAudio | None:
    """Count the frames of an open file of `size` bytes; None if it has none or is in free format."""
    first = _next_frame(file, _after_tags(file, 0, size), size, None)
    if first is None:
        return None
    position, frame = first
    kind, stated, trimmed = frame.kind, None, 0
    if (xing := _xing(file, position)) is not None:
        stated, trimmed = xing
        position += frame.size
    begin, count, gaps = position, 0, []
    while position + 4 <= size:
        here = _frame_at(file, position)
        if here is not None and here.kind == kind and position + here.size <= size:
            count, position = count + 1, position + here.size
            continue
        after = _after_tags(file, position, size)
        following = _next_frame(file, after, size, kind)
        if following is None:
            break
        if following[0] - after >= frame.size // 2:  # anything smaller is padding due to a wrong header
            gaps.append(count * frame.samples / frame.sample_rate)
        position = following[0]
    return MpegAudio(
        audio_offset=begin,
        frames=count,
        samples_per_frame=frame.samples,
        sample_rate=frame.sample_rate,
        stated_frames=stated,
        trimmed=trimmed,
        gaps=tuple(gaps),
    )


def synchsafe_int(field: bytes) -> int:
    """Decode an integer as ID3 tags store it: seven bits in each byte, the most significant first."""
    value = 0
    for byte in field:
        value = value << 7 | byte & 0x7F
    return value


def _frame_at(file: BinaryIO, position: int) -> _Frame | None:
    file.seek(position)
    return _frame(int.from_bytes(file.read(4)))


@lru_cache(maxsize=4096)
def _frame(header: int) -> _Frame | None:
    """Decode a four-byte frame header; None if it is not one."""
    version, layer = header >> 19 & 3, 4 - (header >> 17 & 3)
    bit_rate, rate = header >> 12 & 15, header >> 10 & 3
    if header >> 21 != 0x7FF or version == 1 or layer == 4 or bit_rate in (0, 15) or rate == 3:
        return None
    sample_rate = _RATES[version][rate]
    bits = 1000 * _KBPS[1 if version == 3 else 2, layer][bit_rate - 1]
    padding = header >> 9 & 1
    if layer == 1:
        return _Frame(4 * (12 * bits // sample_rate + padding), 384, sample_rate, (version, layer, rate))
    samples = 576 if layer == 3 and version != 3 else 1152
    size = samples // 8 * bits // sample_rate + padding
    return _Frame(size, samples, sample_rate, (version, layer, rate))


def _next_frame(
    file: BinaryIO, position: int, size: int, kind: tuple[int, int, int] | None
) -> tuple[int, _Frame] | None:
    """Find the next frame that is followed by another of its kind or by the end of the file."""
    while position + 4 <= size:
        file.seek(position)
        block = file.read(_SEARCH_BYTES)
        at = block.find(b"\xff")
        while at >= 0:
            frame = _frame_at(file, position + at)
            if frame is not None and kind in (None, frame.kind):
                end = position + at + frame.size
                following = _frame_at(file, end)
                if end == size or (following is not None and following.kind == frame.kind):
                    return position + at, frame
            at = block.find(b"\xff", at + 1)
        position += len(block)
    return None


def _after_tags(file: BinaryIO, position: int, size: int) -> int:
    """Byte offset after the tags (ID3, APE) at this position."""
    while position < size and (length := _tag_bytes(file, position)):
        position += length
    return position


def _tag_bytes(file: BinaryIO, position: int) -> int:
    file.seek(position)
    head = file.read(32)
    if head[:3] == b"ID3" and len(head) >= 10:
        footer = 10 if head[5] & 0x10 else 0
        return 10 + synchsafe_int(head[6:10]) + footer
    if head[:8] == b"APETAGEX" and len(head) == 32:
        return 32 + int.from_bytes(head[12:16], "little")
    return 128 if head[:3] == b"TAG" else 0


def _xing(file: BinaryIO, position: int) -> tuple[int | None, int] | None:
    """Stated frames and dropped samples of a Xing or Info frame; None for any other frame."""
    file.seek(position)
    head = file.read(_XING_BYTES)
    at = max(head.find(b"Xing", 0, 48), head.find(b"Info", 0, 48))
    if at < 0:
        return (int.from_bytes(head[50:54]), 0) if head[36:40] == b"VBRI" else None
    flags = int.from_bytes(head[at + 4 : at + 8])
    frames = int.from_bytes(head[at + 8 : at + 12]) if flags & 1 else None
    lame = at + 8 + 4 * (flags & 1) + 4 * (flags >> 1 & 1) + 100 * (flags >> 2 & 1) + 4 * (flags >> 3 & 1)
    delays = int.from_bytes(head[lame + 21 : lame + 24])
    return frames, (delays >> 12) + (delays & 0xFFF)
