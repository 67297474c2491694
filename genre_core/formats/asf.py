"""The length of a Windows Media (ASF) file according to its header."""

import struct
from typing import BinaryIO

_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
"""GUID of the header object that holds the length."""
_SEARCH_BYTES = 2**16


def asf_seconds(file: BinaryIO) -> float | None:
    """Read the length in seconds from an open file's header; None if it states none."""
    file.seek(0)
    head = file.read(_SEARCH_BYTES)
    at = head.find(_FILE_PROPERTIES)
    if at < 0 or len(head) < at + 88:
        return None
    duration, _, preroll = struct.unpack("<QQQ", head[at + 64 : at + 88])  # in 100 ns, and in ms
    return max(0.0, duration / 1e7 - preroll / 1e3) or None
