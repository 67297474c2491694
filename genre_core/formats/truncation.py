"""Detection of files that end before their audio can be opened."""

from collections.abc import Iterator
from typing import BinaryIO

from genre_core.formats.chunks import CHUNKED_MAGIC, find_sample_data
from genre_core.formats.flac import flac_audio_offset
from genre_core.formats.ogg import ogg_pages


def describe_truncation(file: BinaryIO, size: int) -> str:
    """Describe where a chunked, FLAC, Ogg or MP4 file of `size` bytes was cut off; "" if it is complete enough."""
    file.seek(0)
    head = file.read(8)
    magic, end = head[:4], f"the file ends after {size} bytes"
    if head[4:] == b"ftyp":
        return "" if b"moov" in _mp4_boxes(file, size) else f"before its index (moov): {end}"
    if magic == b"fLaC":
        return f"in its header: {end}" if flac_audio_offset(file) >= size else ""
    if magic == b"OggS":
        return "" if any(page.granule > 0 for page in ogg_pages(file, size)) else f"before its audio: {end}"
    if magic not in CHUNKED_MAGIC:
        return ""
    if (data := find_sample_data(file, size)) is None:
        return f"in its header: {end}"
    declared = data.declared or 0
    return f"after {data.available} of {declared} bytes of audio" if declared > data.available else ""


def _mp4_boxes(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Names of the top-level boxes of an MP4 file."""
    position = 0
    while position + 8 <= size:
        file.seek(position)
        head = file.read(16)
        length = int.from_bytes(head[:4])
        if length == 1:  # the size follows in 64 bits
            length = int.from_bytes(head[8:])
        if length < 8:  # 0: up to the end of the file
            return
        yield head[4:8]
        position += length
