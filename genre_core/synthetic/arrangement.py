"""Arrangement: drums, bass, comping and lead of an excerpt from a recording in a genre's style.

All randomness comes from random(), the only method of random.Random with the same values in every Python version.
"""

import functools
import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from genre_core.synthetic.styles import CHORD_QUALITIES, GENRES, NOTES, SCALES, STYLES, Melody, Style
from genre_core.synthetic.synth import (
    RELEASE,
    SAMPLE_RATE,
    VOICES,
    Floats,
    Mastering,
    distort,
    master,
    mix_in,
    render_hit,
    render_note,
)

Sound = tuple[int, float, Floats]
"""Step, level, samples."""
T = TypeVar("T")

STEPS_PER_BEAT = 4
STEPS_PER_BAR = 4 * STEPS_PER_BEAT
STEPS_PER_MOTIF = 2 * STEPS_PER_BAR
STEPS_PER_PHRASE = 4 * STEPS_PER_BAR
STEPS_PER_RECORDING = 32 * STEPS_PER_BAR
"""The range in which excerpts start."""
MAX_DELAY = 200
"""Samples by which a note may be late."""
NOTE_ROUNDING = 512
"""Samples to which note lengths are rounded, so that most notes are cached ones."""
KITS = 6
"""Different drum kits."""
MAX_BORROWED = 0.6
"""Probability that an element comes from any genre, at difficulty 1; it grows with the difficulty's square."""
MAX_NOISE = 0.1
"""Noise relative to the peak, at difficulty 1; it grows with the difficulty's square."""

LEVELS = {"x": 1.0, "o": 0.4, "a": 1.2}
"""Levels of the marks in a pattern."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A random choice from a style, with the sound that all excerpts share."""

    beats_per_minute: float
    swing: float
    groove: str
    chords: str
    comping: str
    bass: str
    comping_voice: str
    bass_voice: str
    lead_voice: str
    melody: Melody
    form: str
    dynamics: float
    key: int  # semitones above C
    tuning: int  # 1/4096 of the frequency
    kit: int  # index of the drum kit
    gains: tuple[float, float, float, float]  # drums, bass, comping, lead
    mastering: Mastering


def record(genre: str, difficulty: float, rng: random.Random) -> Recording:
    """Draw a recording: an option from each field of the genre's style or, if difficult, of another genre's."""

    def options(name: str) -> Any:
        lender, chance = _pick(rng, GENRES), rng.random()
        return getattr(STYLES[lender if chance < MAX_BORROWED * difficulty * difficulty else genre], name)

    drawn = {f.name: _pick(rng, options(f.name)) for f in fields(Style) if f.name != "tempo"}
    return Recording(
        **drawn,
        beats_per_minute=_between(rng, *options("tempo")),
        key=_below(rng, 12),
        tuning=_below(rng, 101) - 50,
        kit=_below(rng, KITS),
        gains=(
            _between(rng, 0.5, 1.0),
            _between(rng, 0.3, 0.7),
            _between(rng, 0.25, 0.6),
            _between(rng, 0.2, 0.5),
        ),
        mastering=Mastering(
            tilt=_between(rng, -0.5, 0.5),
            reverb=_between(rng, 0.05, 0.4),
            room=500 + _below(rng, 1500),
            noise=_between(rng, 0.0, 0.005 + MAX_NOISE * difficulty * difficulty),
            peak=_between(rng, 0.15, 0.95),
        ),
    )


def perform(recording: Recording, samples: int, rng: random.Random) -> npt.NDArray[np.int16]:
    """Render an excerpt from a random position of the recording, int16 [samples] at SAMPLE_RATE."""
    first = _below(rng, STEPS_PER_RECORDING)
    start = _onset(recording, first)
    audible = itertools.takewhile(
        lambda step: _onset(recording, step) < start + samples, itertools.count(first)
    )
    steps = [*range(first - STEPS_PER_BAR, first), *audible]  # one bar early, for held notes
    voices = (recording.bass_voice, recording.comping_voice, recording.lead_voice)
    drives = (0.0, *(VOICES[voice].drive for voice in voices))
    parts = zip("DBCL", (_drums, _bass, _comping, _lead), drives, recording.gains, strict=True)
    mix = np.zeros(samples)
    for letter, part, drive, gain in parts:
        stem = np.zeros(samples)
        for step, level, sound in part(recording, rng, _playing(recording.form, letter, steps)):
            at = _onset(recording, step) - start + _below(rng, MAX_DELAY)
            mix_in(stem, at, level * _swell(recording.dynamics, step) * _between(rng, 0.75, 1.0), sound)
        mix += gain * distort(stem, drive)
    return master(mix, recording.mastering, seed=_below(rng, 1 << 32))


def _drums(recording: Recording, rng: random.Random, steps: Sequence[int]) -> Iterator[Sound]:
    """The groove, and a fill at the end of every fourth bar."""
    for line in recording.groove.split():
        drum, pattern = line.split(":")
        for step, mark, _ in _notes(pattern, steps):
            yield step, LEVELS[mark], _hit(drum, recording.kit)
    for step in steps:
        last_beat = step % STEPS_PER_PHRASE >= STEPS_PER_PHRASE - STEPS_PER_BEAT
        if recording.groove and last_beat and rng.random() < 0.5:
            yield step, 0.6, _hit(_pick(rng, "TTS"), recording.kit)


def _bass(recording: Recording, rng: random.Random, steps: Sequence[int]) -> Iterator[Sound]:
    """The roots of the chords, and the notes between them."""
    lowest = VOICES[recording.bass_voice].lowest
    for step, mark, length in _notes(recording.bass, steps):
        root, intervals = _chord(recording, step)
        above = {"r": 0, "3": intervals[1], "5": intervals[2], "8": 12, "w": _pick(rng, intervals)}[mark]
        pitch = lowest + (root - lowest) % 12 + above
        yield step, 1.0, _note(recording, recording.bass_voice, pitch, step, length)


def _comping(recording: Recording, rng: random.Random, steps: Sequence[int]) -> Iterator[Sound]:
    """The chords, complete or broken."""
    lowest = VOICES[recording.comping_voice].lowest
    turns = itertools.count(_below(rng, 3))
    for step, mark, length in _notes(recording.comping, steps):
        root, intervals = _chord(recording, step)
        pitches = sorted({lowest + (root + interval - lowest) % 12 for interval in intervals})
        for pitch in [pitches[next(turns) % len(pitches)]] if mark == "a" else pitches:
            yield step, LEVELS[mark], _note(recording, recording.comping_voice, pitch, step, length)


def _lead(recording: Recording, rng: random.Random, steps: Sequence[int]) -> Iterator[Sound]:
    """A repeated, sometimes varied motif with a chord tone on each half bar."""
    scale = SCALES[recording.melody.scale]
    motif = _motif(recording.melody, rng)
    tonic = VOICES[recording.lead_voice].lowest + 12 + _chord(recording, 0)[0]
    degree = len(scale) // 2
    for step in steps:
        if step % STEPS_PER_MOTIF not in motif:
            continue
        move, length = motif[step % STEPS_PER_MOTIF]
        degree += move if rng.random() < 0.8 else _move(rng)
        degree = min(max(degree, -2), len(scale) + 2)
        octave, tone = divmod(degree, len(scale))
        pitch = tonic + octave * 12 + scale[tone]
        if step % (STEPS_PER_BAR // 2) == 0:
            pitch = _nearest(pitch, *_chord(recording, step))
        yield step, 1.0, _note(recording, recording.lead_voice, pitch, step, length)


def _motif(melody: Melody, rng: random.Random) -> dict[int, tuple[int, int]]:
    """The steps of two bars on which notes start -> scale degrees to move by, and length in steps."""
    grid = range(0, STEPS_PER_MOTIF, melody.grid)
    starts = [start for start in grid if rng.random() < melody.density]
    return {
        start: (_move(rng), min(end - start, 8))
        for start, end in itertools.pairwise([*starts, STEPS_PER_MOTIF])
    }


def _move(rng: random.Random) -> int:
    return _below(rng, 5) - 2


def _playing(form: str, letter: str, steps: Sequence[int]) -> list[int]:
    bars = form.split()
    return [step for step in steps if letter in bars[step // STEPS_PER_BAR % len(bars)]]


def _notes(pattern: str, steps: Sequence[int]) -> Iterator[tuple[int, str, int]]:
    """Yield the steps on which the pattern has a note: step, mark and length in steps."""
    for step in steps:
        tail = pattern[step % STEPS_PER_BAR :]
        if tail[0] not in ".-":
            yield step, tail[0], len(tail) - len(tail[1:].lstrip("-"))


def _chord(recording: Recording, step: int) -> tuple[int, tuple[int, ...]]:
    """The chord's root (0 to 11 semitones above C) and its intervals, in the recording's key."""
    chords = recording.chords.split()
    symbol = chords[step // STEPS_PER_BAR % len(chords)]
    root = symbol[: 2 if symbol[1:2] == "b" else 1]
    return (NOTES.index(root) + recording.key) % 12, CHORD_QUALITIES[symbol[len(root) :]]


def _nearest(pitch: int, root: int, intervals: Sequence[int]) -> int:
    tones = {(root + interval) % 12 for interval in intervals}
    return min((p for p in range(pitch - 6, pitch + 7) if p % 12 in tones), key=lambda p: abs(p - pitch))


def _onset(recording: Recording, step: int) -> int:
    """The time of a step in samples; swing delays the off-beat eighths."""
    late = (0.0, 0.5, 1.0, 0.5)[step % STEPS_PER_BEAT] * recording.swing
    return int((step + late) * (60 * SAMPLE_RATE / STEPS_PER_BEAT / recording.beats_per_minute))


def _swell(depth: float, step: int) -> float:
    middle = STEPS_PER_PHRASE // 2
    return 1.0 - depth * (abs(step % STEPS_PER_PHRASE - middle) / middle)


def _note(recording: Recording, voice: str, pitch: int, step: int, length: int) -> Floats:
    samples = _onset(recording, step + length) - _onset(recording, step) + RELEASE
    return render_note(voice, pitch, recording.tuning, samples // NOTE_ROUNDING * NOTE_ROUNDING)


@functools.cache
def _hit(drum: str, kit: int) -> Floats:
    rng = random.Random(f"kit/{kit}/{drum}")
    return render_hit(drum, _between(rng, 0.8, 1.25), _between(rng, 0.6, 1.4), seed=_below(rng, 1 << 32))


def _below(rng: random.Random, n: int) -> int:
    return int(rng.random() * n)


def _between(rng: random.Random, low: float, high: float) -> float:
    return low + (high - low) * rng.random()


def _pick(rng: random.Random, options: Sequence[T]) -> T:
    return options[_below(rng, len(options))]
