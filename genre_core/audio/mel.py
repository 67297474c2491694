"""Waveform -> log-mel image, and the cut of a track into segments: shared by training and prediction."""

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

from genre_core.errors import InputError

SAMPLE_RATE = 22_050
"""Hz: GTZAN's own rate; everything is resampled to it."""
DYNAMIC_RANGE_DB = 80.0
"""Levels further than this below a track's loudest are raised to it, as librosa.power_to_db does."""
LEVELS = ("track", "absolute")
"""What a level of 0 dB is: the loudest that a track has, or a power of 1 whatever the track."""
_BLOCK_FRAMES = 1024
"""Frames whose spectra are there at a time: an hour's would take gigabytes."""


@dataclass(frozen=True, kw_only=True)
class FrontEnd:
    """One fixed way from waveform to mel. Its fields are part of what a spectrogram store is found by."""

    name: str
    n_mels: int
    """Mel bands (Slaney scale and norm) from 0 Hz to half the sample rate."""
    hop_length: int
    """Samples from one frame to the next."""
    windows: tuple[int, ...]
    """Hann window lengths in samples: one is repeated into an image's three channels, three fill them."""
    sample_rate: int = SAMPLE_RATE
    level: str = "absolute"
    """One of `LEVELS`. Models and stores that do not name it are older than it, and absolute."""

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise InputError(f"level must be one of {', '.join(LEVELS)}, but got level={self.level!r}")

    @property
    def n_fft(self) -> int:
        """Samples of a Fourier transform: the power of two that holds the longest window."""
        return 1 << (max(self.windows) - 1).bit_length()

    @property
    def frames_per_second(self) -> float:
        """Mel frames in a second of audio."""
        return self.sample_rate / self.hop_length

    def frames(self, seconds: float) -> int:
        """Whole frames in so many seconds."""
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
"""The front ends by name: `mel128` for real work, `mel128x3` with three windows, `mel64` for small machines."""


def front_end(name: str, *, level: str = "track") -> FrontEnd:
    """The front end of this name, with levels of this kind.

    Raises:
        InputError: there is none.
    """
    if name not in FRONT_ENDS:
        raise InputError(f"front_end must be one of {', '.join(FRONT_ENDS)}, but got front_end={name!r}")
    return replace(FRONT_ENDS[name], level=level)


def log_mel(waveform: NDArray[np.float32], front_end: FrontEnd) -> Tensor:
    """Log-mel spectrogram of a mono waveform, [samples] at the front end's rate.

    Returns:
        float32 [channels, mels, frames] in dB, a channel for each window; each channel's floor is
        `DYNAMIC_RANGE_DB` below its loudest. With `level="track"` its loudest is 0 dB, whatever the waveform's
        gain; with `level="absolute"` 0 dB is a power of 1, and no level is below -100 dB.
    """
    samples = torch.from_numpy(waveform)
    powers = (_power(samples, front_end, window) for window in front_end.windows)
    return torch.stack([_to_db()(_relative(power, front_end.level)) for power in powers])


def stored_mel(waveform: NDArray[np.float32], front_end: FrontEnd) -> NDArray[np.float16]:
    """What networks are shown of a waveform: its `log_mel` rounded to float16, [frames, channels, mels]."""
    image = log_mel(waveform, front_end).to(torch.float16)
    return np.ascontiguousarray(image.permute(2, 0, 1).numpy())


def segment_starts(frames: int, segment_frames: int, limit: int) -> list[int]:
    """First frames of the segments of a track: as many as fit side by side, `limit` at most, evenly spread."""
    count = min(frames // segment_frames, limit)
    if count == 1:
        return [(frames - segment_frames) // 2]
    return [round(i * (frames - segment_frames) / (count - 1)) for i in range(count)]


def cut(mel: NDArray[np.float16], starts: Iterable[int], segment_frames: int) -> list[NDArray[np.float16]]:
    """Segments of a track's stored mel by their first frames, each [channels, mels, frames]: views into it."""
    return [mel[start : start + segment_frames].transpose(1, 2, 0) for start in starts]


def _power(samples: Tensor, front_end: FrontEnd, window: int) -> Tensor:
    """Power in mel bands, [mels, frames], in blocks of frames; silence stands before the track and after it.

    The last block is longer than the others and never a frame alone, which would be summed in another order.
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
    """Power [mels, frames] over what 0 dB stands for; what has no power at all is at the floor."""
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
