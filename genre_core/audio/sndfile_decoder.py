"""Decoding with libsndfile, including audio beyond the length that a wrong header states."""

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from genre_core.audio.bad_audio import Fault, unreadable
from genre_core.audio.decoder_noise import quiet_decoder
from genre_core.audio.libsndfile_errors import Refusal, decoding_error_text, refusal_of
from genre_core.audio.source import LENGTH_TOLERANCE, Samples, Source, StatedLength
from genre_core.formats.chunks import find_sample_data
from genre_core.formats.flac import flac_length
from genre_core.formats.mpeg_frames import MpegAudio, count_mpeg_frames
from genre_core.formats.ogg import ogg_streams

BLOCK_VALUES = 2**18
"""Size of a block in samples of all channels: 1 MiB."""
_SEARCH_FRAMES = 1152
"""Frames decoded at a time to find the position where a decoder fails."""
_EXTRA_BYTES = 2**32
"""Added to the apparent size of an MP3 whose length libsndfile underestimates, so that it reads to the real end."""
_TAG_BYTES = 4096
"""Bytes before the apparent end that read as zeros: libsndfile looks for tags there."""
_UNKNOWN_LENGTH = 2**62
"""libsndfile counts more frames than this if a header leaves the length open."""
_OPUS_RATE = 48_000
"""Hz of the positions in Opus pages."""


class UnsupportedFile(Exception):
    """A file that libsndfile cannot open."""

    def __init__(self, text: str, refusal: Refusal = Refusal.OTHER) -> None:
        super().__init__(text)
        self.refusal = refusal


class _PatchedFile:
    """A read-only file that libsndfile sees with another start, with some bytes replaced or with another size."""

    def __init__(
        self, file: BinaryIO, *, start: int = 0, patch_offset: int = 0, patch: bytes = b"", extra: int = 0
    ) -> None:
        self._file, self._start, self._patch_offset, self._patch = file, start, patch_offset, patch
        self._size = os.fstat(file.fileno()).st_size - start + extra
        self._zeros_from = self._size - _TAG_BYTES if extra else self._size
        self._position = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, count: int) -> bytes:
        if self._position >= self._zeros_from:
            data = bytes(max(0, min(count, self._size - self._position)))
        else:
            self._file.seek(self._start + self._position)
            data = self._patched(self._file.read(count))
        self._position += len(data)
        return data

    def _patched(self, data: bytes) -> bytes:
        offset = self._patch_offset - self._position
        if offset >= len(data) or offset + len(self._patch) <= 0:
            return data
        whole = bytearray(data)
        for index, byte in enumerate(self._patch, offset):
            if 0 <= index < len(whole):
                whole[index] = byte
        return bytes(whole)


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """Lengths and damage found in the bytes of a file, and how to open it so that all audio is decoded."""

    stated_lengths: tuple[StatedLength, ...] = ()
    damage: tuple[float, ...] = ()
    """Positions in seconds."""
    cut: bool = False
    start: int = 0
    """Byte offset at which to begin."""
    patch_offset: int = 0
    patch: bytes = b""
    """Bytes that replace those at `patch_offset`."""
    extra: int = 0
    """Bytes to add to the apparent size."""

    @property
    def needs_patch(self) -> bool:
        """Whether libsndfile would stop early or refuse the file if opened as it is."""
        return bool(self.start or self.patch or self.extra)


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """Open a file to decode it with libsndfile.

    Raises:
        UnsupportedFile: libsndfile cannot open it.
        BadAudio: libsndfile can open it, but cannot decode past some damage.
        OSError: the system cannot open it.
    """
    with path.open("rb") as bytes_, _open(path) as file:
        if file.format == "RAW":  # libsndfile opens any bytes named .au, .snd, .gsm or .vox this way
            raise UnsupportedFile("Format not recognised.")
        layout = _layout(file, bytes_)
        with _reopen_patched(file, bytes_, layout) as patched:
            yield _source(path, patched, layout)


@contextmanager
def _reopen_patched(
    file: soundfile.SoundFile, bytes_: BinaryIO, layout: _Layout
) -> Iterator[soundfile.SoundFile]:
    """Reopen the file with a corrected header if it needs one and libsndfile accepts that."""
    if not layout.needs_patch:
        yield file
        return
    patched = _PatchedFile(
        bytes_,
        start=layout.start,
        patch_offset=layout.patch_offset,
        patch=layout.patch,
        extra=layout.extra,
    )
    try:
        reopened = _open(patched)
    except UnsupportedFile:
        yield file  # the decoded length will differ from the stated one, which causes a warning
        return
    with reopened:
        yield reopened


def _open(file: Path | _PatchedFile) -> soundfile.SoundFile:
    """Open by name, not by descriptor: libsndfile recognizes an MP3 after leading junk only by its extension."""
    try:
        with quiet_decoder():
            return soundfile.SoundFile(file)
    except (TypeError, ValueError) as error:  # headerless .raw; a name that is not Unicode or has a zero byte
        raise UnsupportedFile(str(error)) from error
    except soundfile.LibsndfileError as error:
        raise UnsupportedFile(error.error_string, refusal_of(error)) from error


def _source(path: Path, file: soundfile.SoundFile, layout: _Layout) -> Source:
    return Source(
        sample_rate=file.samplerate,
        channels=file.channels,
        blocks=_blocks(path, file, layout),
        stated_lengths=layout.stated_lengths,
        damage=layout.damage,
        cut=layout.cut,
    )


def _blocks(path: Path, file: soundfile.SoundFile, layout: _Layout) -> Iterator[Samples]:
    """Read until nothing is left, since the frame count in an MP3 header can be wrong."""
    buffer = np.empty((max(1, BLOCK_VALUES // file.channels), file.channels), np.float32)
    try:
        while len(block := _read(file, buffer)):
            yield block
    except soundfile.LibsndfileError as error:
        position = layout.damage[0] if layout.damage else _position_of_failure(path)
        of = "".join(f" of {length.seconds:.2f} s" for length in layout.stated_lengths[:1])
        text = decoding_error_text(error)
        raise unreadable(Fault.DAMAGED, f"damaged at {position:.2f} s{of}: {text}") from error


def _read(file: soundfile.SoundFile, buffer: Samples) -> Samples:
    with quiet_decoder() if file.format == "MP3" else nullcontext():
        block: Samples = file.read(out=buffer)
        return block


def _position_of_failure(path: Path) -> float:
    """Seconds that libsndfile decodes before it fails, found in small steps."""
    frames, rate = 0, 1
    try:
        with _open(path) as file:
            rate = file.samplerate
            buffer = np.empty((_SEARCH_FRAMES, file.channels), np.float32)
            while len(block := _read(file, buffer)):
                frames += len(block)
    except (soundfile.LibsndfileError, UnsupportedFile):
        pass  # the position of the failure
    return frames / rate


def _layout(file: soundfile.SoundFile, bytes_: BinaryIO) -> _Layout:
    size = os.fstat(bytes_.fileno()).st_size
    if file.format == "MP3":
        return _mpeg_layout(file, count_mpeg_frames(bytes_, size))
    if file.format == "FLAC":
        return _flac_layout(file, bytes_, size)
    if file.format == "OGG":
        return _ogg_layout(file, bytes_, size)
    return _chunk_layout(file, bytes_, size)


def _header_length(file: soundfile.SoundFile) -> tuple[StatedLength, ...]:
    """The length in the header, as libsndfile reads it."""
    known = 0 <= file.frames < _UNKNOWN_LENGTH
    return (StatedLength("header", file.frames / file.samplerate),) if known else ()


def _mpeg_layout(file: soundfile.SoundFile, found: MpegAudio | None) -> _Layout:
    if found is None:  # free format, whose frames cannot be counted
        return _Layout()
    stated = [StatedLength("MPEG frames", found.seconds)]
    if found.stated_seconds is not None:
        stated.insert(0, StatedLength("header", found.stated_seconds))
    short = file.frames / file.samplerate < found.seconds - LENGTH_TOLERANCE
    return _Layout(
        stated_lengths=tuple(stated),
        damage=found.gaps,
        start=found.audio_offset if short else 0,
        extra=_EXTRA_BYTES if short else 0,
    )


def _flac_layout(file: soundfile.SoundFile, bytes_: BinaryIO, size: int) -> _Layout:
    length = flac_length(bytes_, size)
    if length is None or length.found is None:
        return _Layout(stated_lengths=_header_length(file))
    found = StatedLength("last frame", length.found / file.samplerate)
    stated = (*_header_length(file), found) if length.stated else (found,)
    if length.stated >= length.found:
        return _Layout(stated_lengths=stated)
    return _Layout(
        stated_lengths=stated, patch_offset=length.field_offset, patch=length.field_with(length.found)
    )


def _ogg_layout(file: soundfile.SoundFile, bytes_: BinaryIO, size: int) -> _Layout:
    streams = ogg_streams(bytes_, size)
    rate = _OPUS_RATE if file.subtype == "OPUS" else file.samplerate
    stated = _header_length(file)
    if stated and len(streams.granules) > 1:  # libsndfile decodes only the first of chained streams
        others = sum(streams.granules[1:]) / rate
        stated = (StatedLength("chained streams", stated[0].seconds + others),)
    return _Layout(
        stated_lengths=stated, damage=tuple(g / rate for g in streams.damage), cut=not streams.ended
    )


def _chunk_layout(file: soundfile.SoundFile, bytes_: BinaryIO, size: int) -> _Layout:
    data = find_sample_data(bytes_, size)
    if data is None or data.declared is None:
        return _Layout(stated_lengths=_header_length(file))
    if data.declared == 0 and data.undeclared and data.size_format == "<I":  # WAV: the recorder crashed
        patch = struct.pack(data.size_format, 0xFFFF_FFFF)
        return _Layout(
            stated_lengths=(StatedLength("header", 0.0),), patch_offset=data.size_offset, patch=patch
        )
    decoded = file.frames / file.samplerate
    stated = []
    if data.available:
        stated.append(StatedLength("header", decoded * max(1.0, data.declared / data.available)))
    if data.undeclared and data.declared:
        stated.append(StatedLength("size", decoded * (1 + data.undeclared / data.declared)))
    return _Layout(stated_lengths=tuple(stated))
