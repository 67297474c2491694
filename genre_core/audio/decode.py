"""Decoding of an audio file to a mono waveform, or BadAudio with the reason if it cannot be used."""

import hashlib
import importlib
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import soxr

from genre_core.audio import sndfile_decoder
from genre_core.audio.bad_audio import BadAudio as BadAudio
from genre_core.audio.bad_audio import Fault as Fault
from genre_core.audio.bad_audio import Reason as Reason
from genre_core.audio.bad_audio import unreadable
from genre_core.audio.level_meter import SILENCE_PEAK as SILENCE_PEAK
from genre_core.audio.level_meter import LevelMeter, sample_range
from genre_core.audio.libsndfile_errors import Refusal
from genre_core.audio.source import Samples as Samples
from genre_core.audio.source import Source
from genre_core.formats.file_kind import kind_of
from genre_core.formats.truncation import describe_truncation

ANALYSIS_RATE = 22_050
"""Hz at which `inspect` measures levels: the sample rate of every front end."""
MAX_AMPLITUDE = 2.0**31
"""Full scale of 32-bit integers stored as floats. Anything above is damage, and its power overflows."""
SAMPLE_RATES = range(1_000, 1_000_001)
"""Plausible sample rates in Hz; outside this range the header is corrupt."""
INSTALL_AV = "pip install 'genre-search[av]'"


@dataclass(frozen=True, kw_only=True)
class AudioInfo:
    """Properties of a decoded file."""

    seconds: float
    sample_rate: int
    """Hz."""
    channels: int
    content: str
    """Content hash, equal for files that decode to the same samples: the hexadecimal sha256 of sample rate, channels
    and decoded float32 samples."""
    file_hash: str
    """The hexadecimal sha256 of the file's bytes."""
    warnings: tuple[str, ...] = ()
    """Faults of a file that can still be used, each as "kind: detail" in one line."""


def read(
    path: Path,
    sample_rate: int,
    *,
    content: str | None = None,
    file_hash: str | None = None,
    refuse_silence: bool = False,
) -> Samples:
    """Decode a file to a mono waveform, the mean of its channels.

    Integers stored as floats are divided by their full scale. The file is decoded in blocks: memory holds the
    waveform, twice while it is concatenated, but never all channels.

    Args:
        path: the file.
        sample_rate: Hz of the waveform.
        content: the expected content hash, see `AudioInfo`; None to accept any.
        file_hash: the expected hash of the file, see `AudioInfo`. If it is given, `content` is not compared, since
            decoders of two machines may differ by one bit.
        refuse_silence: whether silence raises BadAudio, as in `inspect`.

    Returns:
        float32 [samples], full scale = 1.

    Raises:
        BadAudio: the file is unreadable or empty, has samples that are not finite or impossibly loud, does not
            match `file_hash` or `content`, or is silent and `refuse_silence` is set.
    """
    with _open_source(path) as source:
        if file_hash not in (None, _hash_of(path)):
            raise BadAudio(Reason.CHANGED, "its bytes are not the same as before")
        decoding = _DecodingPass(source, sample_rate, hashes=content is not None and file_hash is None)
        blocks = list(decoding.mono())
    if file_hash is None and content not in (None, decoding.content()):
        raise BadAudio(Reason.CHANGED, "it does not decode to the same samples as before")
    return _waveform(decoding, blocks, refuse_silence=refuse_silence)


def waveform_of(source: Source, sample_rate: int) -> Samples:
    """Mix and resample samples in memory exactly as `read` does those of a file, and refuse silence.

    Args:
        source: the samples and their rate.
        sample_rate: Hz of the waveform.

    Returns:
        See `read`.

    Raises:
        BadAudio: there are no samples, some are not finite or impossibly loud, or all are silent.
    """
    decoding = _DecodingPass(source, sample_rate, hashes=False)
    return _waveform(decoding, list(decoding.mono()), refuse_silence=True)


def _waveform(decoding: "_DecodingPass", blocks: list[Samples], *, refuse_silence: bool) -> Samples:
    """Join the blocks of a pass, which are cleared to save memory."""
    if refuse_silence:
        decoding.meter.refuse_silence()
    return decoding.waveform(blocks)


def inspect(path: Path, analysis_rate: int = ANALYSIS_RATE) -> AudioInfo:
    """Decode a whole file in blocks and return its properties.

    Args:
        path: the file.
        analysis_rate: Hz of the mono mix whose level is measured.

    Raises:
        BadAudio: the file is unreadable, empty or silent, or has samples that are not finite or impossibly loud.
    """
    with _open_source(path) as source:
        decoding = _DecodingPass(source, analysis_rate, hashes=True)
        for _ in decoding.mono():
            pass
        file_hash = _hash_of(path)
    return decoding.info(file_hash)


def examine(path: Path, sample_rate: int) -> tuple[AudioInfo, Samples]:
    """Return what `inspect` and `read` do, from one pass over the file if levels are measured at this sample rate.

    Raises:
        BadAudio: see `inspect`.
    """
    if sample_rate != ANALYSIS_RATE:
        return inspect(path), read(path, sample_rate)
    with _open_source(path) as source:
        decoding = _DecodingPass(source, sample_rate, hashes=True)
        blocks = list(decoding.mono())
        file_hash = _hash_of(path)
    return decoding.info(file_hash), decoding.waveform(blocks)


def hash_of(path: Path) -> str:
    """The hash of a file, see `AudioInfo`.

    Raises:
        BadAudio: the file is unreadable.
    """
    try:
        _require_regular_file(path)
        return _hash_of(path)
    except OSError as error:
        raise unreadable(Fault.NOT_ACCESSIBLE, error.strerror or str(error)) from error


def _hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _DecodingPass:
    """One pass over a source: the resampled mono mix, with level statistics, content hash and length."""

    def __init__(self, source: Source, sample_rate: int, *, hashes: bool) -> None:
        self._source = source
        self._resampler = soxr.ResampleStream(source.sample_rate, sample_rate, 1, dtype="float32")
        self._hashes = hashes
        self._digest = hashlib.sha256(f"{source.sample_rate} Hz, {source.channels} channels".encode())
        self.meter = LevelMeter(min(sample_rate, source.sample_rate))
        self.frames = 0

    def mono(self) -> Iterator[Samples]:
        """Iterate over the resampled mono mix, block by block."""
        for block in self._blocks():
            if self._hashes:
                self._digest.update(block.data)
            mix = block.mean(axis=1)
            resampled = self._resampler.resample_chunk(mix)
            self.meter.add(block, mix, resampled)
            yield resampled
        last = self._resampler.resample_chunk(np.empty(0, np.float32), last=True)
        self.meter.add_resampled(last)
        yield last

    def info(self, file_hash: str) -> AudioInfo:
        """Return the properties of the file after the pass; BadAudio if it is silent."""
        self.meter.refuse_silence()
        seconds = self.frames / self._source.sample_rate
        return AudioInfo(
            seconds=seconds,
            sample_rate=self._source.sample_rate,
            channels=self._source.channels,
            content=self.content(),
            file_hash=file_hash,
            warnings=(*self._source.warnings(seconds), *self.meter.warnings()),
        )

    def waveform(self, blocks: list[Samples]) -> Samples:
        """Concatenate the blocks of the pass, and delete them; full scale = 1."""
        waveform = np.concatenate(blocks)
        blocks.clear()
        if self.meter.full_scale != 1:
            waveform /= self.meter.full_scale
        return waveform

    def content(self) -> str:
        """Return the content hash, see `AudioInfo`; a divisor other than 1 is part of it."""
        if self.meter.full_scale == 1:
            return self._digest.hexdigest()
        scaled = self._digest.copy()
        scaled.update(f"divided by {self.meter.full_scale}".encode())
        return scaled.hexdigest()

    def _blocks(self) -> Iterator[Samples]:
        for block in self._source.blocks:
            low, high = sample_range(block)
            if not max(high, -low) <= MAX_AMPLITUDE:
                reason = Reason.TOO_LOUD if np.isfinite(max(high, -low)) else Reason.NOT_FINITE
                raise BadAudio(
                    reason, f"the first one is within {len(block)} frames after frame {self.frames}"
                )
            self.frames += len(block)
            yield block
        if not self.frames:
            raise BadAudio(Reason.EMPTY)


@contextmanager
def _open_source(path: Path) -> Iterator[Source]:
    """Open a file; errors of the system and the decoder become BadAudio, also while the file is read."""
    try:
        _require_regular_file(path)
        with _decoder(path) as source:
            if source.sample_rate not in SAMPLE_RATES:
                raise unreadable(
                    Fault.SAMPLE_RATE,
                    f"its header states an implausible sample rate, {source.sample_rate} Hz",
                )
            yield source
    except OSError as error:
        raise unreadable(Fault.NOT_ACCESSIBLE, error.strerror or str(error)) from error


def _require_regular_file(path: Path) -> None:
    """Reject pipes, which would block, and folders and missing files, which libsndfile reports unclearly."""
    try:
        mode = path.stat().st_mode
    except ValueError as error:  # a name that is not Unicode or has a zero byte
        raise unreadable(Fault.INVALID_NAME, str(error)) from error
    if stat.S_ISDIR(mode):
        raise unreadable(Fault.NOT_A_FILE, "a folder, not a file")
    if not stat.S_ISREG(mode):
        raise unreadable(Fault.NOT_A_FILE, "not a regular file")


@contextmanager
def _decoder(path: Path) -> Iterator[Source]:
    """Open a file with libsndfile, or with PyAV if libsndfile does not support it."""
    with ExitStack() as stack:
        try:
            source = stack.enter_context(sndfile_decoder.open_source(path))
        except sndfile_decoder.UnsupportedFile as error:
            av_decoder, format_name = _require_av(path, error)
            try:
                source = stack.enter_context(av_decoder.open_source(path))
            except BadAudio as bad:
                raise BadAudio(
                    Reason.UNREADABLE, f"{format_name}: {bad.detail or bad.reason}", bad.fault
                ) from bad
        yield source


def _require_av(path: Path, error: sndfile_decoder.UnsupportedFile) -> tuple[ModuleType, str]:
    """Return the PyAV decoder and the name of the format; raise BadAudio if PyAV would not help."""
    text = "no MPEG audio in it" if error.refusal is Refusal.NO_MPEG_FRAMES else str(error)
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        kind, cut = kind_of(file), describe_truncation(file, size)
    if not size:
        raise BadAudio(Reason.EMPTY, "0 bytes")
    if kind is None:
        raise unreadable(Fault.UNKNOWN_FORMAT, text)
    if not kind.is_audio:
        raise unreadable(Fault.NOT_AUDIO, kind.name)
    if cut:
        raise unreadable(Fault.CUT_OFF, f"{kind.name}, cut off {cut}: {text}")
    if not kind.needs_av and error.refusal is not Refusal.UNSUPPORTED_CODEC:
        raise unreadable(Fault.UNDECODABLE, text)
    if (av_decoder := _av_decoder()) is None:
        what = kind.name if kind.needs_av else f"{kind.name} with a codec that libsndfile does not support"
        raise unreadable(Fault.PYAV_MISSING, f"{what} needs PyAV: {INSTALL_AV}")
    return av_decoder, kind.name


def _av_decoder() -> ModuleType | None:
    """Import the PyAV decoder; None if the extra `av` is not installed."""
    try:
        return importlib.import_module("genre_core.audio.av_decoder")
    except ImportError as error:
        if error.name == "av":
            return None
        text = f"PyAV is installed but cannot be loaded ({error}); reinstall it: {INSTALL_AV}"
        raise unreadable(Fault.PYAV_BROKEN, text) from error
