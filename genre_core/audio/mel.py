"""Log-mel spectrograms of waveforms and their segments, shared by training and prediction."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad
from torchaudio.transforms import AmplitudeToDB, MelSpectrogram

from genre_core.errors import ErrorCode, InputError

SAMPLE_RATE = 22_050
"""Hz. All audio is resampled to it; GTZAN has it already."""
DYNAMIC_RANGE_DB = 80.0
"""Lower levels are clipped to this distance below the track's maximum, as librosa.power_to_db does (top_db)."""
LEVELS = ("track", "absolute")
"""Reference for 0 dB: the maximum power of the track, or a power of 1."""
_BLOCK_FRAMES = 1024
"""Frames transformed at a time, since the spectra of an hour would take gigabytes."""


@dataclass(frozen=True, kw_only=True)
class FrontEnd:
    """Settings of the mel spectrogram. All fields are part of the name of a spectrogram store."""

    name: str
    n_mels: int
    """Number of mel bands (Slaney scale and norm) from 0 Hz to half the sample rate."""
    hop_length: int
    """Samples between frames."""
    windows: tuple[int, ...]
    """Hann window lengths in samples: one is repeated in the three channels of the image, three fill them."""
    sample_rate: int = SAMPLE_RATE
    level: str = "absolute"
    """One of `LEVELS`. Models and stores without it predate the setting and use `absolute`."""

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise InputError(
                f"level must be one of {', '.join(LEVELS)}, but got level={self.level!r}",
                code=ErrorCode.UNKNOWN_LEVEL,
            )

    @property
    def n_fft(self) -> int:
        """FFT size in samples: the smallest power of two that holds the longest window."""
        return 1 << (max(self.windows) - 1).bit_length()

    @property
    def frames_per_second(self) -> float:
        """Frames per second of audio."""
        return self.sample_rate / self.hop_length

    def frames(self, seconds: float) -> int:
        """Return the number of whole frames in `seconds`."""
        return int(seconds * self.frames_per_second)


def _milliseconds(*lengths: int) -> tuple[int, ...]:
    return tuple(round(ms * SAMPLE_RATE / 1000) for ms in lengths)


FRONT_ENDS = {
    front_end.name: front_end
    for front_end in (
        FrontEnd(name="mel128", n_mels=128, hop_length=512, windows=(2048,)),
        # Three window sizes as three channels: Palanisamy et al. 2020, "Rethinking CNN Models for Audio".
        FrontEnd(name="mel128x3", n_mels=128, hop_length=512, windows=_milliseconds(25, 50, 100)),
        FrontEnd(name="mel64", n_mels=64, hop_length=1024, windows=(2048,)),
    )
}
"""Front ends by name: `mel128` is the default, `mel128x3` has three windows, `mel64` is for small machines."""


def front_end(name: str, *, level: str = "track") -> FrontEnd:
    """Return the front end with this name, with `level` set.

    Raises:
        InputError: the name or the level is unknown.
    """
    if name not in FRONT_ENDS:
        raise InputError(
            f"front_end must be one of {', '.join(FRONT_ENDS)}, but got front_end={name!r}",
            code=ErrorCode.UNKNOWN_FRONT_END,
        )
    return replace(FRONT_ENDS[name], level=level)


def log_mel(waveform: NDArray[np.float32], front_end: FrontEnd) -> Tensor:
    """Compute the log-mel spectrogram of a mono waveform.

    Args:
        waveform: float32 [samples] at the front end's sample rate.
        front_end: settings of the spectrogram.

    Returns:
        float32 [channels, mels, frames] in dB, one channel per window. The floor of a channel is `DYNAMIC_RANGE_DB`
        below its maximum. With `level="track"` the maximum is 0 dB whatever the gain of the waveform; with
        `level="absolute"` 0 dB is a power of 1, and the lowest possible level is -100 dB.
    """
    samples = torch.from_numpy(waveform)
    powers = (_power(samples, front_end, window) for window in front_end.windows)
    return torch.stack([_to_db()(_relative(power, front_end.level)) for power in powers])


def stored_mel(waveform: NDArray[np.float32], front_end: FrontEnd) -> NDArray[np.float16]:
    """Compute the input of the networks: `log_mel` rounded to float16, [frames, channels, mels]."""
    image = log_mel(waveform, front_end).to(torch.float16)
    return np.ascontiguousarray(image.permute(2, 0, 1).numpy())


def segment_starts(frames: int, segment_frames: int, limit: int) -> list[int]:
    """First frames of a track's segments: as many as fit without overlap, at most `limit`, evenly spaced."""
    count = min(frames // segment_frames, limit)
    if count == 1:
        return [(frames - segment_frames) // 2]
    return [round(i * (frames - segment_frames) / (count - 1)) for i in range(count)]


def cut_segments(
    mel: NDArray[np.float16], starts: Iterable[int], segment_frames: int
) -> list[NDArray[np.float16]]:
    """Segments of a track's stored mel at the given first frames, as views of [channels, mels, frames] each."""
    return [mel[start : start + segment_frames].transpose(1, 2, 0) for start in starts]


def _power(samples: Tensor, front_end: FrontEnd, window: int) -> Tensor:
    """Power in mel bands, [mels, frames], computed in blocks of frames; the track is padded with silence.

    The last block is the longest and never a single frame, which would be summed in another order.
    """
    frames, half = 1 + len(samples) // front_end.hop_length, front_end.n_fft // 2
    firsts = range(0, max(frames - _BLOCK_FRAMES, 1), _BLOCK_FRAMES)
    blocks = []
    for first, after in pairwise([*firsts, frames]):
        begin, end = first * front_end.hop_length - half, (after - 1) * front_end.hop_length + half
        around = pad(samples[max(begin, 0) : end], (max(-begin, 0), max(end - len(samples), 0)))
        blocks.append(_mel(front_end, window)(around).T)
    return torch.cat(blocks).T


def _relative(power: Tensor, level: str) -> Tensor:
    """Power [mels, frames] relative to the reference for 0 dB; power of 0 becomes the floor."""
    if level == "absolute":
        return power
    loudest = power.max().clamp_min(torch.finfo(power.dtype).tiny)
    return (power / loudest).clamp_min(10 ** (-DYNAMIC_RANGE_DB / 10))


@cache
def _mel(front_end: FrontEnd, window: int) -> MelSpectrogram:
    return MelSpectrogram(
        sample_rate=front_end.sample_rate,
        n_fft=front_end.n_fft,
        win_length=window,
        hop_length=front_end.hop_length,
        n_mels=front_end.n_mels,
        mel_scale="slaney",
        norm="slaney",
        center=False,
    )


@cache
def _to_db() -> AmplitudeToDB:
    return AmplitudeToDB(stype="power", top_db=DYNAMIC_RANGE_DB)
