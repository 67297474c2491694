"""A file -> mono waveform at one sample rate; a bad file -> a named reason."""

import hashlib
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

Samples = npt.NDArray[np.float32]

SILENCE_DBFS = -80.0  # a peak below this is silence: 16-bit dither alone peaks near -90 dBFS
SILENCE_PEAK = 10 ** (SILENCE_DBFS / 20)  # the same as an amplitude, full scale = 1
LOUDEST = 2.0**31  # amplitude, of 32-bit integers kept as floats; beyond is damage, whose power overflows
SAMPLE_RATES = range(1_000, 1_000_001)  # Hz; outside it the header is corrupt
BLOCK_VALUES = 2**18  # samples of all channels decoded at a time: 1 MiB

# libsndfile's code for "not a regular file", which is also what it says of an .mp3 without MPEG frames
_NO_MPEG_FRAMES = 7


class Reason(StrEnum):
    """Why a file cannot be used."""

    UNREADABLE = "unreadable"
    EMPTY = "empty"
    SILENT = "silent"
    NOT_FINITE = "not-a-number samples"
    TOO_LOUD = "impossibly loud"
    CHANGED = "changed"


class BadAudio(Exception):
    """A file that cannot be used: `reason`, and in `detail` what is known beyond it. Its text is one line."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = " ".join(detail.split())

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else str(self.reason)


@dataclass(frozen=True, kw_only=True)
class AudioFacts:
    """What decoding a whole file tells; `content` is equal for files that decode to the same samples."""

    seconds: float
    sample_rate: int  # Hz
    channels: int
    content: str  # sha256 over sample rate, channels and the decoded float32 samples, hexadecimal


def read(path: Path, sample_rate: int, *, content: str | None = None) -> Samples:
    """Decode the file: float32 [samples] at `sample_rate` Hz, full scale = 1, channels averaged.

    Works in blocks, so memory holds the result, twice while it is put together, and never the whole of the
    decoded channels. Raises BadAudio for a file that is unreadable, empty or holds samples that are not finite
    or impossibly loud, or that no longer decodes to the `content` that `inspect` once found in it.
    """
    mono = []
    with _opened(path) as file:
        resampler = soxr.ResampleStream(file.samplerate, sample_rate, 1, dtype="float32")
        digest = _digest(file)
        for block in _blocks(file):
            if content is not None:
                digest.update(block.data)
            mono.append(resampler.resample_chunk(block.mean(axis=1)))
        mono.append(resampler.resample_chunk(np.empty(0, np.float32), last=True))
    if content not in (None, digest.hexdigest()):
        raise BadAudio(Reason.CHANGED, "it decodes to other samples than before")
    return np.concatenate(mono)


def inspect(path: Path) -> AudioFacts:
    """Decode the whole file once at its own sample rate, in blocks, and say what it holds.

    Raises BadAudio for a file that is unreadable, empty, silent or holds samples that are not finite or
    impossibly loud.
    """
    frames, peak = 0, 0.0
    with _opened(path) as file:
        digest = _digest(file)
        for block in _blocks(file):
            digest.update(block.data)
            frames += len(block)
            peak = max(peak, peak_of(block))
        facts = AudioFacts(
            seconds=frames / file.samplerate,
            sample_rate=file.samplerate,
            channels=file.channels,
            content=digest.hexdigest(),
        )
    refuse_silence(peak)
    return facts


def peak_of(samples: Samples) -> float:
    """Largest amplitude, 0 of nothing; not finite if any sample is not."""
    return max(float(samples.max(initial=0)), -float(samples.min(initial=0)))


def refuse_silence(peak: float) -> None:
    """Raise BadAudio for sound whose largest amplitude means silence."""
    if peak < SILENCE_PEAK:
        raise BadAudio(Reason.SILENT, f"nothing above {SILENCE_DBFS:.0f} dBFS")


@contextmanager
def _opened(path: Path) -> Iterator[soundfile.SoundFile]:
    """The open file; whatever the system or libsndfile has against it, then or while reading, is BadAudio."""
    try:
        with _decoder(path) as file:
            if file.format == "RAW":  # what libsndfile makes of any bytes in an .au, .snd, .gsm or .vox
                raise BadAudio(Reason.UNREADABLE, "Format not recognised.")
            if file.samplerate not in SAMPLE_RATES:
                raise BadAudio(Reason.UNREADABLE, f"a sample rate of {file.samplerate} Hz")
            yield file
    except OSError as error:
        raise BadAudio(Reason.UNREADABLE, error.strerror or str(error)) from error
    except soundfile.LibsndfileError as error:
        known = {_NO_MPEG_FRAMES: "No MPEG audio in it."}
        raise BadAudio(Reason.UNREADABLE, known.get(error.code, error.error_string)) from error


def _require_regular_file(path: Path) -> None:
    """Opening a pipe would wait for ever, and libsndfile has no clear words for a folder or a lost file."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise BadAudio(Reason.UNREADABLE, "a folder, not a file")
    if not stat.S_ISREG(mode):
        raise BadAudio(Reason.UNREADABLE, "not a regular file")
    path.open("rb").close()  # a refusal in the system's words


def _decoder(path: Path) -> soundfile.SoundFile:
    """By name rather than by descriptor: libsndfile knows an MP3 with leading junk by its extension only."""
    try:
        _require_regular_file(path)
        return soundfile.SoundFile(path)
    except (TypeError, ValueError) as error:  # headerless .raw; a name that is not Unicode or has a zero byte
        raise BadAudio(Reason.UNREADABLE, str(error)) from error


def _digest(file: soundfile.SoundFile) -> "hashlib._Hash":
    """What a file's content is hashed with, before its first block."""
    return hashlib.sha256(f"{file.samplerate} Hz, {file.channels} channels".encode())


def _blocks(file: soundfile.SoundFile) -> Iterator[Samples]:
    """The rest of the file as float32 [frames, channels], each block valid until the next.

    Reads until nothing comes, since the frame count in an MP3 header can be wrong.
    """
    buffer = np.empty((max(1, BLOCK_VALUES // file.channels), file.channels), np.float32)
    frames = 0
    while len(block := file.read(out=buffer)):
        if not (peak := peak_of(block)) <= LOUDEST:
            reason = Reason.TOO_LOUD if np.isfinite(peak) else Reason.NOT_FINITE
            raise BadAudio(reason, f"first within {len(block)} frames of frame {frames}")
        frames += len(block)
        yield block
    if not frames:
        raise BadAudio(Reason.EMPTY)
