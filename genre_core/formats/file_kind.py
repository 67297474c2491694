"""Detection of a file's kind by its first bytes (magic numbers), whatever its name says."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from genre_core.formats.mpeg_frames import synchsafe_int

PLACEHOLDER_BYTES = 512
"""Number of bytes that `describe_placeholder` needs from the beginning of a file."""
_HEAD_BYTES = 4096


@dataclass(frozen=True)
class Kind:
    """The kind of a file."""

    name: str
    """Name of the format; for a file that is not audio, what it is and what to do."""
    is_audio: bool = False
    needs_av: bool = False
    """Whether libsndfile cannot decode this audio format but PyAV can."""


@dataclass(frozen=True, kw_only=True)
class _TextSignature:
    pattern: bytes
    """Regular expression for the beginning of the text, in lower case."""
    kind: str
    """Name and advice where an audio file was expected."""
    placeholder: str | None = None
    """Description and advice where any other binary file was expected; None if not checked there."""


_WEB_PAGE = "it is a web page, not the file itself; download the file that the page links to"
_TEXT_SIGNATURES = (
    _TextSignature(
        pattern=rb"version https://git-lfs\.github\.com/spec/",
        kind="a Git LFS pointer, not the file itself: run git lfs pull",
        placeholder="it is a Git LFS pointer, not the file itself; fetch the file with: git lfs pull",
    ),
    _TextSignature(
        pattern=rb"\S*/annex/objects/", kind="a git-annex pointer, not the file itself: run git annex get"
    ),
    _TextSignature(
        pattern=rb"<!doctype html|<html|<head",
        kind="a web page (HTML), not audio: download the file again",
        placeholder=_WEB_PAGE,
    ),
    _TextSignature(pattern=rb"<body", kind="a web page (HTML), not audio: download the file again"),
    _TextSignature(pattern=rb"<\?xml", kind="XML, not audio: download the file again", placeholder=_WEB_PAGE),
    _TextSignature(pattern=rb"<error", kind="XML, not audio: download the file again"),
    _TextSignature(pattern=rb"[{\[]\s*[\"{\[]", kind="JSON, not audio: download the file again"),
    _TextSignature(pattern=rb"#extm3u|\[playlist\]", kind="a playlist, not audio: use the files it lists"),
)

_NOT_AUDIO = (
    (0, b"PK\x03\x04", "a ZIP archive: unpack it"),
    (0, b"\x1f\x8b", "a gzip archive: unpack it"),
    (0, b"Rar!", "a RAR archive: unpack it"),
    (0, b"7z\xbc\xaf", "a 7z archive: unpack it"),
    (0, b"BZh", "a bzip2 archive: unpack it"),
    (0, b"\xfd7zXZ", "an xz archive: unpack it"),
    (0, b"%PDF", "a PDF document, not audio"),
    (0, b"\x89PNG", "a PNG image, not audio"),
    (0, b"\xff\xd8\xff", "a JPEG image, not audio"),
    (0, b"GIF8", "a GIF image, not audio"),
    (0, b"MThd", "MIDI, notes without sound: render it to audio"),
    (0, b"\x00\x05\x16\x07", "a macOS resource fork, not audio"),
)
"""Offset in bytes, bytes found there, name."""
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
"""As `_NOT_AUDIO`."""
_LIBSNDFILE = (
    (0, b"RIFF", "WAV"),
    (0, b"RIFX", "WAV"),
    (0, b"RF64", "RF64"),
    (0, b"riff", "Wave64"),
    (0, b"FORM", "AIFF"),
    (0, b"caff", "CAF"),
    (0, b"fLaC", "FLAC"),
    (0, b"OggS", "Ogg"),
)
"""As `_NOT_AUDIO`: formats that libsndfile decodes, except for some codecs in them."""


def kind_of(file: BinaryIO) -> Kind | None:
    """Return the kind of an open file, or None if its first bytes match no known format."""
    head = _head(file)
    if not head:
        return None
    if not head.strip(b"\0"):
        return Kind(f"only zeros in its first {len(head)} bytes: copy or download it again")
    if (text := _text_kind(head)) is not None:
        return Kind(text)
    if (name := _match(_NOT_AUDIO, head)) is not None:
        return Kind(name)
    if (name := _match(_NEEDS_AV, head)) is not None:
        return Kind(name, is_audio=True, needs_av=True)
    if (name := _match(_LIBSNDFILE, head)) is not None:
        return Kind(name, is_audio=True)
    if head[0] == 0xFF and len(head) > 1 and head[1] & 0xF6 == 0xF0:  # ADTS: layer 0, unlike MPEG audio
        return Kind("AAC", is_audio=True, needs_av=True)
    return None


def describe_placeholder(head: bytes) -> str | None:
    """Describe the web page or Git LFS pointer that is stored in place of a binary file, and what to do.

    Args:
        head: the first `PLACEHOLDER_BYTES` of the file.

    Returns:
        One sentence, or None if the file does not begin like such a placeholder.
    """
    text = _normalized(head)
    matches = (
        signature.placeholder
        for signature in _TEXT_SIGNATURES
        if signature.placeholder and re.match(signature.pattern, text)
    )
    return next(matches, None)


def describe_placeholder_at(path: Path) -> str | None:
    """`describe_placeholder` for a regular file."""
    with path.open("rb") as file:
        return describe_placeholder(file.read(PLACEHOLDER_BYTES))


def _match(signatures: tuple[tuple[int, bytes, str], ...], head: bytes) -> str | None:
    return next((name for offset, magic, name in signatures if head.startswith(magic, offset)), None)


def _head(file: BinaryIO) -> bytes:
    """The first bytes of the content, after an ID3 tag if there is one."""
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    if head[:3] == b"ID3" and len(head) >= 10:
        file.seek(10 + synchsafe_int(head[6:10]))
        return file.read(_HEAD_BYTES) or head
    return head


def _normalized(head: bytes) -> bytes:
    """The text without byte order mark and leading whitespace, in lower case."""
    return head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()


def _text_kind(head: bytes) -> str | None:
    """Name the kind of a text file; None if the bytes are not text."""
    text = _normalized(head)
    for signature in _TEXT_SIGNATURES:
        if re.match(signature.pattern, text):
            return signature.kind
    if re.search(rb"[^\t\n\r\f -~\x80-\xff]", head):
        return None
    try:
        head[: len(head) - 3].decode()  # the last bytes may be part of a character
    except UnicodeDecodeError:
        return None
    return f"text, not audio: it begins with {' '.join(head[:40].decode(errors='ignore').split())!r}"
