"""Is there anything to hear, and is its level sound: judged of the mono mix that networks are given."""

import math

import numpy as np

from genre_core.audio.bad_audio import BadAudio, Reason
from genre_core.audio.source import Samples

SILENCE_DBFS = -80.0
"""A peak below this is silence: 16-bit dither alone peaks near -90 dBFS."""
SILENCE_PEAK = 10 ** (SILENCE_DBFS / 20)
"""The same as an amplitude, full scale = 1."""
QUIET_DBFS = -50.0
"""A peak below this leaves less than 8 of 16 bits: worth a warning."""
CLIPPED_LEVEL, CLIPPED_SHARE = 0.99, 0.01
"""A sound with more than this share of its samples at this amplitude and above is clipped. In 240 clips of real
music at most 0.0001 of the samples were; amplified until 2 % clipped, 0.016 to 0.017 were."""
DC_OFFSET = 0.1
"""A mean beyond this, full scale = 1, is worth a warning."""
OVER_FULL_SCALE = 4.0
"""A peak beyond this, full scale = 1, is worth a warning: decoders of MP3 and Vorbis overshoot by less."""
INTEGERS = 128.0
"""Floats beyond this are integers: 42 dB above full scale, where no mix of floats ends up."""
_INTEGER_SCALES = (2**15, 2**23, 2**31)
"""Full scale of 16, 24 and 32 bits."""


def level_of(samples: Samples) -> tuple[float, float]:
    """Lowest and highest sample, 0 of nothing; not finite if any sample is not."""
    return float(samples.min(initial=0)), float(samples.max(initial=0))


class SoundCheck:
    """What a sound's samples say against it; told block by block."""

    def __init__(self, heard_rate: int) -> None:
        """Args: heard_rate: Hz of the mono mix as it is heard, or the file's own where that is lower."""
        self._heard_rate = heard_rate
        self._channel_peak = self._peak = 0.0
        self._low, self._high = math.inf, -math.inf
        self._sum = 0.0
        self._mixed = self._heard = self._clipped = 0

    def add(self, block: Samples, mix: Samples, heard: Samples) -> None:
        """A block of all channels, [frames, channels], its mono mix, and what of the mix is heard, resampled."""
        self._channel_peak = max(self._channel_peak, _peak(block))
        self._low, self._high = min(self._low, float(mix.min())), max(self._high, float(mix.max()))
        self._sum += float(mix.sum(dtype=np.float64))
        self._mixed += len(mix)
        self.add_heard(heard)

    def add_heard(self, heard: Samples) -> None:
        """Samples that the resampler held back."""
        amplitudes = np.abs(heard)
        self._peak = max(self._peak, float(amplitudes.max(initial=0)))
        self._clipped += int(np.count_nonzero(amplitudes >= CLIPPED_LEVEL))
        self._heard += len(heard)

    @property
    def full_scale(self) -> int:
        """What the samples are divided by: 1, or full scale of the integers that are stored as floats."""
        if self._channel_peak <= INTEGERS:
            return 1
        # resampled integers overshoot: up to twice full scale counts as theirs
        return next((scale for scale in _INTEGER_SCALES if self._channel_peak <= 2 * scale), 2**31)

    def refuse_silence(self) -> None:
        """Raise BadAudio where there is nothing to hear, with the cause."""
        peak, swing = max(self._high, -self._low), self._high - self._low
        if self._channel_peak < SILENCE_PEAK:
            raise BadAudio(Reason.SILENT, f"nothing above {SILENCE_DBFS:.0f} dBFS")
        if peak < SILENCE_PEAK:
            raise BadAudio(
                Reason.SILENT,
                f"its channels cancel each other in the mono mix: they peak at {_dbfs(self._channel_peak)}, "
                f"the mix at {_dbfs(peak)}; invert one channel",
            )
        if swing < SILENCE_PEAK:
            raise BadAudio(Reason.SILENT, f"a constant offset of {self._low:.3g} and no sound")
        if self._peak < SILENCE_PEAK:
            raise BadAudio(Reason.SILENT, f"nothing below {self._heard_rate / 2:.0f} Hz")

    def warnings(self) -> list[str]:
        """What a careful listener would look into, one line each."""
        said = []
        if self.full_scale != 1:
            said.append(
                f"integers stored as floats: samples up to {self._channel_peak:.0f}, where full scale is 1; "
                f"heard divided by {self.full_scale}"
            )
        elif self._peak > OVER_FULL_SCALE:
            said.append(f"level: it peaks at {_dbfs(self._peak)}, above full scale")
        elif (share := self._clipped / max(1, self._heard)) > CLIPPED_SHARE:
            said.append(f"clipped: {share:.1%} of its samples are at full scale")
        peak, mean = self._peak / self.full_scale, self._sum / max(1, self._mixed) / self.full_scale
        if abs(mean) > DC_OFFSET:
            said.append(f"DC offset: its mean is {mean:.2f} of full scale")
        if peak < 10 ** (QUIET_DBFS / 20):
            said.append(f"quiet: it peaks at {_dbfs(peak)}")
        return said


def _peak(samples: Samples) -> float:
    low, high = level_of(samples)
    return max(high, -low)


def _dbfs(peak: float) -> str:
    return f"{20 * math.log10(peak):+.1f} dBFS" if peak else "-inf dBFS"
