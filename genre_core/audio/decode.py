"""A file -> mono waveform at one sample rate; a bad file -> a named reason."""

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

from genre_core.audio import sound_file
from genre_core.audio.bad_audio import BadAudio as BadAudio
from genre_core.audio.bad_audio import Reason as Reason
from genre_core.audio.sound_check import SILENCE_PEAK as SILENCE_PEAK
from genre_core.audio.sound_check import SoundCheck, level_of
from genre_core.audio.source import Samples as Samples
from genre_core.audio.source import Source
from genre_core.formats.containers import where_cut
from genre_core.formats.file_kind import kind_of

HEARD_RATE = 22_050
"""Hz of every front end: what `inspect` judges is what they get."""
LOUDEST = 2.0**31
"""Amplitude of 32-bit integers kept as floats; beyond is damage, whose power overflows."""
SAMPLE_RATES = range(1_000, 1_000_001)
"""Hz; outside it the header is corrupt."""
INSTALL_AV = "pip install 'genre-search[av]'"


@dataclass(frozen=True, kw_only=True)
class AudioFacts:
    """What decoding a whole file shows; `content` is equal for files that decode to the same samples."""

    seconds: float
    sample_rate: int
    """Hz."""
    channels: int
    content: str
    """sha256 over sample rate, channels and the decoded float32 samples, hexadecimal."""
    warnings: tuple[str, ...] = ()
    """What speaks against a file that can be used, one line each."""


def read(path: Path, sample_rate: int, *, content: str | None = None, audible: bool = False) -> Samples:
    """Decode the file: float32 [samples] at `sample_rate` Hz, full scale = 1, channels averaged.

    Integers stored as floats are divided by their full scale. Works in blocks, so memory holds the result, twice
    while it is put together, and never the whole of the decoded channels.

    Args:
        path: the file.
        sample_rate: Hz of the result.
        content: what `inspect` once found in it.
        audible: whether silence is refused, as `inspect` does.

    Raises:
        BadAudio: the file is unreadable or empty, holds samples that are not finite or impossibly loud, no
            longer decodes to `content`, or is silent where `audible`.
    """
    with _opened(path) as source:
        heard = _Listener(source, sample_rate, hashes=content is not None)
        mono = list(heard.mono())
    if content not in (None, heard.content()):
        raise BadAudio(Reason.CHANGED, "it decodes to other samples than before")
    if audible:
        heard.check.refuse_silence()
    whole = np.concatenate(mono)
    mono.clear()
    if heard.check.full_scale != 1:
        whole /= heard.check.full_scale
    return whole


def inspect(path: Path, heard_rate: int = HEARD_RATE) -> AudioFacts:
    """Decode the whole file once, in blocks, and say what it holds.

    Its level is judged as it is heard: channels averaged, at `heard_rate` Hz. Raises BadAudio for a file that is
    unreadable, empty, silent or holds samples that are not finite or impossibly loud.
    """
    with _opened(path) as source:
        heard = _Listener(source, heard_rate, hashes=True)
        for _ in heard.mono():
            pass
    heard.check.refuse_silence()
    seconds = heard.frames / source.sample_rate
    return AudioFacts(
        seconds=seconds,
        sample_rate=source.sample_rate,
        channels=source.channels,
        content=heard.content(),
        warnings=(*source.warnings(seconds), *heard.check.warnings()),
    )


class _Listener:
    """One pass over a source: resampled mono, and on the way its check, its content and its length."""

    def __init__(self, source: Source, sample_rate: int, *, hashes: bool) -> None:
        self._source = source
        self._resampler = soxr.ResampleStream(source.sample_rate, sample_rate, 1, dtype="float32")
        self._hashes = hashes
        self._digest = hashlib.sha256(f"{source.sample_rate} Hz, {source.channels} channels".encode())
        self.check = SoundCheck(heard_rate=min(sample_rate, source.sample_rate))
        self.frames = 0

    def mono(self) -> Iterator[Samples]:
        """The mono mix at the rate that is heard, block by block."""
        for block in self._blocks():
            if self._hashes:
                self._digest.update(block.data)
            mix = block.mean(axis=1)
            heard = self._resampler.resample_chunk(mix)
            self.check.add(block, mix, heard)
            yield heard
        last = self._resampler.resample_chunk(np.empty(0, np.float32), last=True)
        self.check.add_heard(last)
        yield last

    def content(self) -> str:
        """Equal for files that are heard as the same samples."""
        if self.check.full_scale == 1:
            return self._digest.hexdigest()
        scaled = self._digest.copy()
        scaled.update(f"divided by {self.check.full_scale}".encode())
        return scaled.hexdigest()

    def _blocks(self) -> Iterator[Samples]:
        for block in self._source.blocks:
            low, high = level_of(block)
            if not max(high, -low) <= LOUDEST:
                reason = Reason.TOO_LOUD if np.isfinite(max(high, -low)) else Reason.NOT_FINITE
                raise BadAudio(reason, f"first within {len(block)} frames of frame {self.frames}")
            self.frames += len(block)
            yield block
        if not self.frames:
            raise BadAudio(Reason.EMPTY)


@contextmanager
def _opened(path: Path) -> Iterator[Source]:
    """The open file; whatever the system or a decoder has against it, then or while reading, is BadAudio."""
    try:
        _require_regular_file(path)
        with _decoder(path) as source:
            if source.sample_rate not in SAMPLE_RATES:
                raise BadAudio(Reason.UNREADABLE, f"a sample rate of {source.sample_rate} Hz")
            yield source
    except OSError as error:
        raise BadAudio(Reason.UNREADABLE, error.strerror or str(error)) from error


def _require_regular_file(path: Path) -> None:
    """Opening a pipe would wait for ever, and libsndfile has no clear words for a folder or a lost file."""
    try:
        mode = path.stat().st_mode
    except ValueError as error:  # a name that is not Unicode or has a zero byte
        raise BadAudio(Reason.UNREADABLE, str(error)) from error
    if stat.S_ISDIR(mode):
        raise BadAudio(Reason.UNREADABLE, "a folder, not a file")
    if not stat.S_ISREG(mode):
        raise BadAudio(Reason.UNREADABLE, "not a regular file")


@contextmanager
def _decoder(path: Path) -> Iterator[Source]:
    """libsndfile, or what else can decode the file."""
    with ExitStack() as stack:
        try:
            source = stack.enter_context(sound_file.opened(path))
        except sound_file.NotASoundFile as refusal:
            source = stack.enter_context(_other_decoder(path, refusal))
        yield source


@contextmanager
def _other_decoder(path: Path, refusal: sound_file.NotASoundFile) -> Iterator[Source]:
    """PyAV, for what is audio and not cut off before its sound; else BadAudio, which says what the file is."""
    words = "no MPEG audio in it" if refusal.code == sound_file.NO_MPEG_FRAMES else str(refusal)
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        kind, cut = kind_of(file), where_cut(file, size)
    if not size:
        raise BadAudio(Reason.EMPTY, "0 bytes")
    if kind is None:
        raise BadAudio(Reason.UNREADABLE, words)
    if not kind.is_audio:
        raise BadAudio(Reason.UNREADABLE, kind.name)
    if cut:
        raise BadAudio(Reason.UNREADABLE, f"{kind.name}, cut off {cut}: {words}")
    if not kind.needs_av and not refusal.of_codec:
        raise BadAudio(Reason.UNREADABLE, words)
    if (av_file := _av_file()) is None:
        what = kind.name if kind.needs_av else f"{kind.name} with a codec that libsndfile does not know"
        raise BadAudio(Reason.UNREADABLE, f"{what} needs PyAV: {INSTALL_AV}")
    with ExitStack() as stack:
        try:
            source = stack.enter_context(av_file.opened(path))
        except BadAudio as bad:
            raise BadAudio(Reason.UNREADABLE, f"{kind.name}: {bad.detail or bad.reason}") from bad
        yield source


def _av_file() -> ModuleType | None:
    """The decoder of the extra `av`, where that is installed."""
    try:
        return importlib.import_module("genre_core.audio.av_file")
    except ImportError as error:
        if error.name == "av":
            return None
        said = f"PyAV is installed and cannot be loaded ({error}); install it again: {INSTALL_AV}"
        raise BadAudio(Reason.UNREADABLE, said) from error
