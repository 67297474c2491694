"""What kind of file its first bytes show, whatever its name says: for files that cannot be decoded."""

import re
from dataclasses import dataclass
from typing import BinaryIO

_HEAD_BYTES = 4096


@dataclass(frozen=True)
class Kind:
    """A kind of file."""

    name: str
    """For a message: the format, or what it is that is no audio and what to do."""
    is_audio: bool = False
    needs_av: bool = False
    """Whether it is audio that libsndfile does not decode, and PyAV does."""


_TEXTS = (
    (
        rb"version https://git-lfs\.github\.com/spec/",
        "a Git LFS pointer and not the file itself: git lfs pull",
    ),
    (rb"\S*/annex/objects/", "a git-annex pointer and not the file itself: git annex get"),
    (rb"<!doctype html|<html|<head|<body", "a web page (HTML) and not audio: download the file again"),
    (rb"<\?xml|<error", "XML and not audio: download the file again"),
    (rb"[{\[]\s*[\"{\[]", "JSON and not audio: download the file again"),
    (rb"#extm3u|\[playlist\]", "a playlist and not audio: give the files that it lists"),
)
"""Patterns at a text's beginning, in lower case -> what it is and what to do."""

_NOT_AUDIO = (
    (0, b"PK\x03\x04", "a ZIP archive: unpack it"),
    (0, b"\x1f\x8b", "gzip: unpack it"),
    (0, b"Rar!", "a RAR archive: unpack it"),
    (0, b"7z\xbc\xaf", "a 7z archive: unpack it"),
    (0, b"BZh", "bzip2: unpack it"),
    (0, b"\xfd7zXZ", "xz: unpack it"),
    (0, b"%PDF", "a PDF document and not audio"),
    (0, b"\x89PNG", "a picture (PNG) and not audio"),
    (0, b"\xff\xd8\xff", "a picture (JPEG) and not audio"),
    (0, b"GIF8", "a picture (GIF) and not audio"),
    (0, b"MThd", "MIDI, notes without sound: render it to audio"),
    (0, b"\x00\x05\x16\x07", "a resource fork of macOS and not audio"),
)
_NEEDS_AV = (
    (4, b"ftyp", "MP4 or M4A (AAC, ALAC)"),
    (4, b"moov", "MP4 or MOV (AAC, ALAC)"),
    (4, b"mdat", "MP4 or MOV (AAC, ALAC)"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "WMA (Windows Media)"),
    (0, b"\x1a\x45\xdf\xa3", "WebM or Matroska"),
    (0, b"ADIF", "AAC"),
    (0, b"\x0b\x77", "AC-3"),
    (0, b"#!AMR", "AMR"),
    (0, b"MAC ", "Monkey's Audio (APE)"),
    (0, b"wvpk", "WavPack"),
    (0, b"MPCK", "Musepack"),
    (0, b"MP+", "Musepack"),
    (0, b"TTA1", "True Audio (TTA)"),
    (0, b"tBaK", "TAK"),
    (0, b".RMF", "RealMedia"),
    (0, b".ra\xfd", "RealAudio"),
    (0, b"DSD ", "DSD"),
    (0, b"FRM8", "DSD"),
    (0, b"FLV", "Flash video"),
    (0, b"\x00\x00\x01\xba", "MPEG video"),
    (8, b"AVI ", "AVI"),
)
"""Byte, what is there, what it is."""
_SOUND = (
    (b"RIFF", "WAV"),
    (b"RIFX", "WAV"),
    (b"RF64", "RF64"),
    (b"riff", "Wave64"),
    (b"FORM", "AIFF"),
    (b"caff", "CAF"),
    (b"fLaC", "FLAC"),
    (b"OggS", "Ogg"),
)
"""What libsndfile decodes, unless it holds a codec that it lacks."""


def kind_of(file: BinaryIO) -> Kind | None:
    """The kind of an open file; None where its first bytes tell nothing."""
    head = _head(file)
    if not head:
        return None
    if not head.strip(b"\0"):
        return Kind(f"nothing but zeros in its first {len(head)} bytes: copy or download it again")
    if (text := _text(head)) is not None:
        return Kind(text)
    for at, magic, name in _NOT_AUDIO:
        if head.startswith(magic, at):
            return Kind(name)
    for at, magic, name in _NEEDS_AV:
        if head.startswith(magic, at):
            return Kind(name, is_audio=True, needs_av=True)
    for magic, name in _SOUND:
        if head.startswith(magic):
            return Kind(name, is_audio=True)
    if head[0] == 0xFF and len(head) > 1 and head[1] & 0xF6 == 0xF0:  # ADTS: layer 0, which MPEG audio lacks
        return Kind("AAC", is_audio=True, needs_av=True)
    return None


def _head(file: BinaryIO) -> bytes:
    """The first bytes, of what an ID3 tag stands before too."""
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    if head[:3] == b"ID3" and len(head) >= 10:
        length = 0
        for byte in head[6:10]:
            length = length << 7 | byte & 0x7F
        file.seek(10 + length)
        return file.read(_HEAD_BYTES) or head
    return head


def _text(head: bytes) -> str | None:
    """What a text is; None of bytes that are no text."""
    content = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for pattern, name in _TEXTS:
        if re.match(pattern, content):
            return name
    if re.search(rb"[^\t\n\r\f -~\x80-\xff]", head):
        return None
    try:
        head[: len(head) - 3].decode()  # without what may be part of a character
    except UnicodeDecodeError:
        return None
    return f"text and not audio, which begins with {' '.join(head[:40].decode(errors='ignore').split())!r}"
