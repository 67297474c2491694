"""LevelMeter, which detects silence, clipping, DC offset and other level problems in the mono mix."""

import math

import numpy as np

from genre_core.audio.bad_audio import BadAudio, Fault, Reason
from genre_core.audio.source import Samples

SILENCE_DBFS = -80.0
"""A lower peak is silence: 16-bit dither alone peaks near -90 dBFS."""
SILENCE_PEAK = 10 ** (SILENCE_DBFS / 20)
"""`SILENCE_DBFS` as an amplitude, full scale = 1."""
QUIET_DBFS = -50.0
"""A lower peak leaves fewer than 8 of 16 bits and causes a warning."""
CLIPPED_LEVEL, CLIPPED_SHARE = 0.99, 0.01
"""Audio is clipped if more than this share of its samples reaches this amplitude. In 240 clips of real music at most
0.0001 of the samples did; after amplification until 2 % clipped, 0.016 to 0.017 did."""
DC_OFFSET = 0.1
"""A larger absolute mean, full scale = 1, causes a warning."""
OVER_FULL_SCALE = 4.0
"""A higher peak, full scale = 1, causes a warning: MP3 and Vorbis decoders overshoot by less."""
INTEGERS = 128.0
"""Floats above this amplitude are integers: 42 dB above full scale, which no mix of floats reaches."""
_INTEGER_SCALES = (2**15, 2**23, 2**31)
"""Full scale of 16-, 24- and 32-bit integers."""


def sample_range(samples: Samples) -> tuple[float, float]:
    """Lowest and highest sample, 0 if there are none; not finite if any sample is not."""
    return float(samples.min(initial=0)), float(samples.max(initial=0))


class LevelMeter:
    """Level statistics of a file, collected block by block."""

    def __init__(self, sample_rate: int) -> None:
        """Args: sample_rate: Hz of the resampled mono mix, or of the file if that is lower."""
        self._sample_rate = sample_rate
        self._channel_peak = self._resampled_peak = 0.0
        self._low, self._high = math.inf, -math.inf
        self._sum = 0.0
        self._mixed = self._resampled = self._clipped = 0

    def add(self, block: Samples, mix: Samples, resampled: Samples) -> None:
        """Add a block.

        Args:
            block: all channels, [frames, channels].
            mix: its mono mix, [frames].
            resampled: what the resampler returned for the mix, [samples].
        """
        self._channel_peak = max(self._channel_peak, _peak(block))
        self._low, self._high = min(self._low, float(mix.min())), max(self._high, float(mix.max()))
        self._sum += float(mix.sum(dtype=np.float64))
        self._mixed += len(mix)
        self.add_resampled(resampled)

    def add_resampled(self, resampled: Samples) -> None:
        """Add samples of the mono mix that the resampler had buffered."""
        amplitudes = np.abs(resampled)
        self._resampled_peak = max(self._resampled_peak, float(amplitudes.max(initial=0)))
        self._clipped += int(np.count_nonzero(amplitudes >= CLIPPED_LEVEL))
        self._resampled += len(resampled)

    @property
    def full_scale(self) -> int:
        """Divisor of the samples: 1, or the full scale of integers that are stored as floats."""
        if self._channel_peak <= INTEGERS:
            return 1
        # resampled integers overshoot, so a peak of up to twice a full scale belongs to it
        return next((scale for scale in _INTEGER_SCALES if self._channel_peak <= 2 * scale), 2**31)

    def refuse_silence(self) -> None:
        """Raise BadAudio with the cause if nothing is audible."""
        peak, swing = max(self._high, -self._low), self._high - self._low
        if self._channel_peak < SILENCE_PEAK:
            raise BadAudio(Reason.SILENT, f"nothing above {SILENCE_DBFS:.0f} dBFS", Fault.TOO_QUIET)
        if peak < SILENCE_PEAK:
            raise BadAudio(
                Reason.SILENT,
                f"its channels cancel each other in the mono mix: they peak at {_dbfs(self._channel_peak)}, "
                f"the mix at {_dbfs(peak)}; invert one channel",
                Fault.CHANNELS_CANCEL,
            )
        if swing < SILENCE_PEAK:
            raise BadAudio(
                Reason.SILENT, f"a constant offset of {self._low:.3g} and no sound", Fault.CONSTANT_OFFSET
            )
        if self._resampled_peak < SILENCE_PEAK:
            raise BadAudio(
                Reason.SILENT, f"nothing below {self._sample_rate / 2:.0f} Hz", Fault.INAUDIBLE_FREQUENCIES
            )

    def warnings(self) -> list[str]:
        """Describe the level problems, each as "kind: detail"."""
        found = []
        if self.full_scale != 1:
            found.append(
                f"integers stored as floats: samples up to {self._channel_peak:.0f}, where full scale is 1; "
                f"divided by {self.full_scale}"
            )
        elif self._resampled_peak > OVER_FULL_SCALE:
            found.append(f"level: peak at {_dbfs(self._resampled_peak)}, above full scale")
        elif (share := self._clipped / max(1, self._resampled)) > CLIPPED_SHARE:
            found.append(f"clipped: {share:.1%} of its samples are at full scale")
        peak = self._resampled_peak / self.full_scale
        mean = self._sum / max(1, self._mixed) / self.full_scale
        if abs(mean) > DC_OFFSET:
            found.append(f"DC offset: its mean is {mean:.2f} of full scale")
        if peak < 10 ** (QUIET_DBFS / 20):
            found.append(f"quiet: peak at {_dbfs(peak)}")
        return found


def _peak(samples: Samples) -> float:
    low, high = sample_range(samples)
    return max(high, -low)


def _dbfs(peak: float) -> str:
    return f"{20 * math.log10(peak):+.1f} dBFS" if peak else "-inf dBFS"
