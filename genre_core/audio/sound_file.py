"""Decoding by libsndfile, past headers that claim less than the file holds."""

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from genre_core.audio.bad_audio import BadAudio, Reason
from genre_core.audio.decoder_noise import quiet_decoder
from genre_core.audio.source import LENGTH_TOLERANCE, Claim, Samples, Source
from genre_core.formats.containers import flac_length, ogg_streams, sound_data
from genre_core.formats.mpeg_frames import MpegAudio, scan

BLOCK_VALUES = 2**18
"""Samples of all channels decoded at a time: 1 MiB."""
_SEARCH_FRAMES = 1152
"""Frames decoded at a time to find where a decoder fails."""
_PRETENDED_BYTES = 2**32
"""Added to the size of an MP3 whose length libsndfile underestimates: it then reads until nothing comes."""
_ZEROS_BYTES = 4096
"""At the pretended end, where libsndfile looks for tags."""
_NOT_KNOWN = 2**62
"""Frames: libsndfile's count where a header leaves it open is larger."""
NO_MPEG_FRAMES = 7
"""libsndfile's code for "not a regular file", which is also what it says of an .mp3 without MPEG frames."""
_MPEG_WORDS = {
    "Unspecified internal error.": "the MPEG decoder does not pass it; repair the file or leave it out"
}
"""libsndfile's words for what libmpg123 refuses, and better ones."""
_OPUS_RATE = 48_000
"""Hz, of the positions in Opus pages."""


class NotASoundFile(Exception):
    """libsndfile does not open it."""

    def __init__(self, words: str, code: int = 0) -> None:
        super().__init__(words)
        self.code = code

    @property
    def of_codec(self) -> bool:
        """Whether it knows the container and not what is in it."""
        return any(word in str(self) for word in ("unimplemented", "unsupported encoding"))


class _Altered:
    """A file as libsndfile shall see it: from a byte on, with other bytes at a place, or of another size."""

    def __init__(
        self, file: BinaryIO, *, start: int = 0, at: int = 0, patch: bytes = b"", extra: int = 0
    ) -> None:
        self._file, self._start, self._at, self._patch = file, start, at, patch
        self._size = os.fstat(file.fileno()).st_size - start + extra
        self._zeros_from = self._size - _ZEROS_BYTES if extra else self._size
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
        offset = self._at - self._position
        if offset >= len(data) or offset + len(self._patch) <= 0:
            return data
        whole = bytearray(data)
        for index, byte in enumerate(self._patch, offset):
            if 0 <= index < len(whole):
                whole[index] = byte
        return bytes(whole)


@dataclass(frozen=True, kw_only=True)
class _Facts:
    """What the bytes of a file say, and how to open it so that all of them are heard."""

    claims: tuple[Claim, ...] = ()
    damage: tuple[float, ...] = ()
    cut: bool = False
    start: int = 0
    at: int = 0
    patch: bytes = b""
    extra: int = 0

    @property
    def altered(self) -> bool:
        """Whether libsndfile would stop early, or refuse the file, if it were opened as it is."""
        return bool(self.start or self.patch or self.extra)


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """The file, decoded by libsndfile.

    Raises:
        NotASoundFile: libsndfile does not open it.
        BadAudio: it does, but the file is damaged beyond what it can pass.
        OSError: the system does not open it.
    """
    with path.open("rb") as bytes_, _open(path) as file:
        if file.format == "RAW":  # what libsndfile makes of any bytes in an .au, .snd, .gsm or .vox
            raise NotASoundFile("Format not recognised.")
        facts = _facts(file, bytes_)
        with _to_the_end(file, bytes_, facts) as whole:
            yield _source(path, whole, facts)


@contextmanager
def _to_the_end(file: soundfile.SoundFile, bytes_: BinaryIO, facts: _Facts) -> Iterator[soundfile.SoundFile]:
    """The file, opened anew as one whose header is right where it is wrong, if libsndfile takes that."""
    if not facts.altered:
        yield file
        return
    changed = _Altered(bytes_, start=facts.start, at=facts.at, patch=facts.patch, extra=facts.extra)
    try:
        whole = _open(changed)
    except NotASoundFile:
        yield file  # its length will differ from what its bytes hold, which is reported
        return
    with whole:
        yield whole


def _open(file: Path | _Altered) -> soundfile.SoundFile:
    """By name rather than by descriptor: libsndfile knows an MP3 with leading junk by its extension only."""
    try:
        with quiet_decoder():
            return soundfile.SoundFile(file)
    except (TypeError, ValueError) as error:  # headerless .raw; a name that is not Unicode or has a zero byte
        raise NotASoundFile(str(error)) from error
    except soundfile.LibsndfileError as error:
        raise NotASoundFile(error.error_string, error.code) from error


def _source(path: Path, file: soundfile.SoundFile, facts: _Facts) -> Source:
    return Source(
        sample_rate=file.samplerate,
        channels=file.channels,
        blocks=_blocks(path, file, facts),
        claims=facts.claims,
        damage=facts.damage,
        cut=facts.cut,
    )


def _blocks(path: Path, file: soundfile.SoundFile, facts: _Facts) -> Iterator[Samples]:
    """Reads until nothing comes, since the frame count in an MP3 header can be wrong."""
    buffer = np.empty((max(1, BLOCK_VALUES // file.channels), file.channels), np.float32)
    try:
        while len(block := _read(file, buffer)):
            yield block
    except soundfile.LibsndfileError as error:
        place = facts.damage[0] if facts.damage else _place_of_failure(path)
        of = "".join(f" of {claim.seconds:.2f} s" for claim in facts.claims[:1])
        words = _MPEG_WORDS.get(error.error_string, error.error_string)
        raise BadAudio(Reason.UNREADABLE, f"damaged at {place:.2f} s{of}: {words}") from error


def _read(file: soundfile.SoundFile, buffer: Samples) -> Samples:
    with quiet_decoder() if file.format == "MP3" else nullcontext():
        block: Samples = file.read(out=buffer)
        return block


def _place_of_failure(path: Path) -> float:
    """Seconds that libsndfile decodes before it fails, found in small steps."""
    frames, rate = 0, 1
    try:
        with _open(path) as file:
            rate = file.samplerate
            buffer = np.empty((_SEARCH_FRAMES, file.channels), np.float32)
            while len(block := _read(file, buffer)):
                frames += len(block)
    except (soundfile.LibsndfileError, NotASoundFile):
        pass  # this is the place
    return frames / rate


def _facts(file: soundfile.SoundFile, bytes_: BinaryIO) -> _Facts:
    size = os.fstat(bytes_.fileno()).st_size
    if file.format == "MP3":
        return _of_mpeg(file, scan(bytes_, size))
    if file.format == "FLAC":
        return _of_flac(file, bytes_, size)
    if file.format == "OGG":
        return _of_ogg(file, bytes_, size)
    return _of_chunks(file, bytes_, size)


def _header(file: soundfile.SoundFile) -> tuple[Claim, ...]:
    """What the header says, as libsndfile understands it."""
    known = 0 <= file.frames < _NOT_KNOWN
    return (Claim("its header says", file.frames / file.samplerate),) if known else ()


def _of_mpeg(file: soundfile.SoundFile, found: MpegAudio | None) -> _Facts:
    if found is None:  # of free format, whose frames are not counted
        return _Facts()
    claims = [Claim("its MPEG frames hold", found.seconds)]
    if found.stated_seconds is not None:
        claims.insert(0, Claim("its header says", found.stated_seconds))
    short = file.frames / file.samplerate < found.seconds - LENGTH_TOLERANCE
    return _Facts(
        claims=tuple(claims),
        damage=found.gaps,
        start=found.first if short else 0,
        extra=_PRETENDED_BYTES if short else 0,
    )


def _of_flac(file: soundfile.SoundFile, bytes_: BinaryIO, size: int) -> _Facts:
    length = flac_length(bytes_, size)
    if length is None or length.found is None:
        return _Facts(claims=_header(file))
    found = Claim("its frames hold", length.found / file.samplerate)
    claims = (*_header(file), found) if length.stated else (found,)
    if length.stated >= length.found:
        return _Facts(claims=claims)
    return _Facts(claims=claims, at=length.field_at, patch=length.field_with(length.found))


def _of_ogg(file: soundfile.SoundFile, bytes_: BinaryIO, size: int) -> _Facts:
    streams = ogg_streams(bytes_, size)
    rate = _OPUS_RATE if file.subtype == "OPUS" else file.samplerate
    claims = _header(file)
    if claims and len(streams.granules) > 1:  # libsndfile decodes the first of chained streams
        others = sum(streams.granules[1:]) / rate
        claims = (Claim("its streams hold", claims[0].seconds + others),)
    return _Facts(claims=claims, damage=tuple(g / rate for g in streams.damage), cut=not streams.ended)


def _of_chunks(file: soundfile.SoundFile, bytes_: BinaryIO, size: int) -> _Facts:
    data = sound_data(bytes_, size)
    if data is None or data.declared is None:
        return _Facts(claims=_header(file))
    if data.declared == 0 and data.unexplained and data.size_format == "<I":  # WAV: the recorder crashed
        patch = struct.pack(data.size_format, 0xFFFF_FFFF)
        return _Facts(claims=(Claim("its header says", 0.0),), at=data.size_at, patch=patch)
    heard = file.frames / file.samplerate
    claims = []
    if data.available:
        claims.append(Claim("its header says", heard * max(1.0, data.declared / data.available)))
    if data.unexplained and data.declared:
        claims.append(Claim("its bytes hold", heard * (1 + data.unexplained / data.declared)))
    return _Facts(claims=tuple(claims))
