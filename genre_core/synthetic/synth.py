"""A synthesizer: notes and drum hits as samples, mixed and mastered to the same bytes on every machine.

Results do not depend on summation order, on SIMD or on the last bit of a libm: only integer phases that index rounded
tables, elementwise + - * / and sums of integers are used.
"""

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

SAMPLE_RATE = 22050
"""Hz, as in GTZAN."""
RELEASE = 1000
"""Samples over which a sound fades out."""
TABLE_BITS = 12
"""A wavetable has 4096 samples, indexed by the top bits of a 32-bit phase."""
CYCLE = 1 << 32
"""The phase of one period."""
VIBRATO = CYCLE * 11 // (2 * SAMPLE_RATE)
"""5.5 Hz, in phase per sample."""
LOWEST_OCTAVE = [round(CYCLE * 440 / SAMPLE_RATE * 2 ** ((pitch - 69) / 12)) for pitch in range(12)]
"""Phase per sample of MIDI pitches 0 to 11."""
DRUM_FALL = 0.06
"""Seconds until a drum's pitch has fallen by seven eighths."""


class Voice(NamedTuple):
    """An instrument."""

    partials: tuple[int, ...]  # relative amplitude of each harmonic
    attack: float  # seconds until full level
    decay: float  # seconds until an eighth of the full level
    lowest: int  # lowest MIDI pitch of its chords; its melodies start an octave higher
    vibrato: int = 0  # depth, in 1/1000 of the note's period
    detune: int = 0  # of a second oscillator, in 1/1024 of the frequency; 0 for none
    drive: float = 0.0  # distortion; 0 for none


SAW = tuple(840 // k for k in range(1, 25))
SUSTAINED = 30.0
"""Decay in seconds, much longer than any note."""
VOICES = {
    "banjo": Voice((70, 100, 90, 80, 50, 40, 35, 30, 20, 15), 0.001, 0.16, 57),
    "brass": Voice((60, 100, 90, 70, 55, 40, 30, 20, 10), 0.03, SUSTAINED, 52, vibrato=60),
    "cello": Voice((90, 100, 60, 50, 40, 30, 20, 12), 0.08, SUSTAINED, 36, vibrato=90),
    "crunch": Voice(SAW[:16], 0.003, 1.6, 43, drive=5.0),
    "electric bass": Voice((100, 70, 45, 25, 15, 8), 0.004, 0.9, 28),
    "epiano": Voice((100, 12, 30, 6, 3, 10), 0.004, 0.9, 55, vibrato=15),
    "fiddle": Voice((80, 100, 70, 60, 45, 40, 25, 20, 10), 0.06, SUSTAINED, 55, vibrato=150),
    "flute": Voice((100, 30, 12, 4), 0.05, SUSTAINED, 60, vibrato=120),
    "fuzz": Voice(SAW, 0.002, 2.5, 38, detune=4, drive=20.0),
    "guitar": Voice((100, 80, 55, 40, 30, 20, 12, 8), 0.002, 0.45, 50),
    "harmonica": Voice((90, 100, 80, 90, 50, 60, 30, 20), 0.03, SUSTAINED, 55, vibrato=90),
    "organ": Voice((80, 100, 70, 60, 0, 40, 0, 30), 0.008, SUSTAINED, 50, vibrato=60),
    "piano": Voice((100, 60, 35, 22, 14, 9, 6), 0.003, 0.7, 52),
    "saw": Voice(SAW, 0.006, 1.5, 52, detune=8),
    "square": Voice((840, 0, 280, 0, 168, 0, 120, 0, 93, 0, 76), 0.004, 0.8, 55),
    "steel": Voice((100, 50, 40, 15, 10, 8), 0.04, 1.6, 55, vibrato=220),
    "strings": Voice((100, 55, 42, 30, 24, 18, 14, 10), 0.09, SUSTAINED, 52, vibrato=80, detune=5),
    "sub bass": Voice((100, 14, 5), 0.008, SUSTAINED, 28),
    "synth bass": Voice(SAW[:10], 0.003, 0.5, 28),
    "upright bass": Voice((100, 55, 22, 8), 0.01, 0.6, 28),
    "voice": Voice((70, 90, 100, 45, 22, 28, 32, 15, 6), 0.05, SUSTAINED, 55, vibrato=200),
}


class Drum(NamedTuple):
    """A drum: a tone with falling pitch, and noise."""

    pitch: int  # Hz, final pitch of the tone
    fall: int  # Hz above the final pitch at the start
    ring: float  # seconds until the tone has decayed to an eighth
    tone: float  # level
    rattle: float  # seconds until the noise has decayed to an eighth
    noise: float  # level
    dark: bool = False  # low-pass instead of high-pass noise


DRUMS = {
    "B": Drum(180, 0, 0.05, 0.05, 0.16, 0.40),  # brush
    "C": Drum(900, 0, 0.01, 0.00, 0.13, 0.80, dark=True),  # clap
    "H": Drum(7000, 0, 0.02, 0.05, 0.04, 0.35),  # hi-hat, closed
    "K": Drum(48, 160, 0.16, 1.20, 0.01, 0.20, dark=True),  # kick
    "O": Drum(7000, 0, 0.05, 0.05, 0.25, 0.35),  # hi-hat, open
    "R": Drum(5200, 0, 0.30, 0.07, 0.40, 0.22),  # ride
    "S": Drum(185, 90, 0.08, 0.60, 0.14, 0.75),  # snare
    "T": Drum(95, 70, 0.20, 0.90, 0.05, 0.10, dark=True),  # tom
    "X": Drum(820, 300, 0.03, 0.60, 0.02, 0.30),  # cross-stick
}


@dataclass(frozen=True, kw_only=True)
class Mastering:
    """Effects on the mix."""

    tilt: float  # spectral tilt from -1 (dark) to 1 (bright)
    reverb: float  # 0 to 1
    room: int  # samples between echoes
    noise: float  # relative to the peak
    peak: float  # relative to full scale


@functools.lru_cache(maxsize=256)
def render_note(voice: str, pitch: int, tuning: int, samples: int) -> Floats:
    """A note, float64 [samples], at a MIDI pitch raised by `tuning`/4096 of its frequency."""
    partials, attack, decay, _, vibrato, detune, _ = VOICES[voice]
    in_tune = LOWEST_OCTAVE[pitch % 12] << (pitch // 12)
    increment = in_tune + in_tune * tuning // 4096
    wave = _waveform(partials[: max(1, CYCLE * 9 // 20 // increment)])  # no aliasing
    i = np.arange(samples, dtype=np.int64)
    phase = i * increment
    if vibrato:
        phase += (_look_up(_waveform((1,)), i * VIBRATO) * (vibrato * CYCLE // 1000)).astype(np.int64)
    sound = _look_up(wave, phase)
    if detune:
        sound = (sound + _look_up(wave, phase + i * (increment * detune // 1024))) * 0.5
    return sound * _fall(i, decay) * np.minimum(i / (attack * SAMPLE_RATE), 1.0) * _release(i)


def render_hit(drum: str, tuning: float, length: float, seed: int) -> Floats:
    """A drum hit, float64 [samples], with pitch and duration scaled by `tuning` and `length`."""
    pitch, fall, ring, tone, rattle, noise, dark = DRUMS[drum]
    i = np.arange(int(4 * length * max(ring, rattle) * SAMPLE_RATE), dtype=np.int64)
    frequency = pitch + fall * _fall(i, DRUM_FALL)
    phase = np.cumsum((frequency * (tuning * CYCLE / SAMPLE_RATE)).astype(np.int64))
    hiss = _white_noise(seed, len(i))
    lows = _smooth(hiss, 6)
    body = tone * _look_up(_waveform((1,)), phase) * _fall(i, ring * length)
    skin = noise / 2**15 * (lows if dark else hiss - lows) * _fall(i, rattle * length)
    return (body + skin) * _release(i)


def mix_in(stem: Floats, at: int, level: float, sound: Floats) -> None:
    """Add the part of a sound that overlaps the stem; it starts at sample `at`."""
    start, end = max(at, 0), min(at + len(sound), len(stem))
    if start < end:
        stem[start:end] += level * sound[start - at : end - at]


def distort(stem: Floats, drive: float) -> Floats:
    """Distort a stem, float64 [samples], by soft clipping; drive 0 leaves it unchanged."""
    return stem * drive / (1.0 + np.abs(stem) * drive) if drive else stem


def master(mix: Floats, settings: Mastering, seed: int) -> npt.NDArray[np.int16]:
    """Apply reverb, noise, tilt and level: int16 [samples] from float64 [samples]."""
    mix = mix / np.abs(mix).max(initial=2.0**-20)
    for echo in (settings.room, settings.room * 3 // 2 + 7):
        _reverberate(mix, echo, settings.reverb)
    hiss = _white_noise(seed, len(mix)) * (settings.noise / 2**15)
    whole = np.rint((mix + hiss) * 2**20).astype(np.int64)
    lows = _smooth(whole, 8)
    mix = lows * (1.0 - settings.tilt) + (whole - lows) * (1.0 + settings.tilt)
    level = settings.peak * (2**15 - 1) / np.abs(mix).max(initial=1.0)
    return np.asarray(np.rint(mix * level), dtype=np.int16)


@functools.cache
def _sine() -> Integers:
    """One period, int64 [table] in units of 2**-20, much coarser than differences between libms."""
    size = 1 << TABLE_BITS
    return np.array([round(math.sin(2 * math.pi * i / size) * 2**20) for i in range(size)], dtype=np.int64)


@functools.cache
def _waveform(partials: tuple[int, ...]) -> Floats:
    """One period, float64 [table], with peak 1."""
    turn = np.arange(1 << TABLE_BITS, dtype=np.int64)
    wave = np.zeros(len(turn), dtype=np.int64)
    for harmonic, amplitude in enumerate(partials, start=1):
        wave += amplitude * _sine()[turn * harmonic % len(turn)]
    return np.asarray(wave / int(np.abs(wave).max()))


def _look_up(wave: Floats, phase: Integers) -> Floats:
    """The wave at phases in 1/CYCLE of a period, float64 [samples]."""
    return np.take(wave, (phase >> (32 - TABLE_BITS)) & (len(wave) - 1))


def _fall(i: Integers, decay: float) -> Floats:
    """A decay from 1 to an eighth after `decay` seconds, float64 [samples]."""
    slope = 1.0 / (1.0 + i / (decay * SAMPLE_RATE))
    return slope * slope * slope


def _release(i: Integers) -> Floats:
    return np.minimum((len(i) - i) / RELEASE, 1.0)


def _smooth(x: Integers, width: int) -> Floats:
    """The moving average of `width` (even) samples, float64 [samples]: exact in any summation order."""
    total = np.cumsum(np.pad(x, (width // 2 + 1, width // 2)), dtype=np.int64)
    return np.asarray((total[width:] - total[:-width])[: len(x)] / width)


def _white_noise(seed: int, samples: int) -> Integers:
    """Uniform noise of 16 bits, int64 [samples]."""
    words = np.random.PCG64(seed).random_raw(samples // 4 + 1)
    return words.astype("<u8").view("<i2")[:samples].astype(np.int64)


def _reverberate(mix: Floats, echo: int, level: float) -> None:
    for start in range(echo, len(mix), echo):
        block = mix[start : start + echo]
        block += level * mix[start - echo : start - echo + len(block)]
