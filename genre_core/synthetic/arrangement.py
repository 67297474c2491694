"""Who plays what: drums, bass, comping and lead play excerpts of a recording drawn from its genre's style.

Chance comes from random() alone, the one method that random.Random promises to repeat in every version.
"""

import functools
import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from genre_core.synthetic.styles import GENRES, NOTES, QUALITIES, SCALES, STYLES, Melody, Style
from genre_core.synthetic.synth import (
    RELEASE,
    SAMPLE_RATE,
    VOICES,
    Floats,
    Mastering,
    distort,
    lay,
    master,
    sing,
    strike,
)

Sound = tuple[int, float, Floats]  # step, level, samples
T = TypeVar("T")

STEPS_PER_BEAT = 4
STEPS_PER_BAR = 4 * STEPS_PER_BEAT
STEPS_PER_MOTIF = 2 * STEPS_PER_BAR
STEPS_PER_PHRASE = 4 * STEPS_PER_BAR
STEPS_PER_RECORDING = 32 * STEPS_PER_BAR  # in which excerpts start
LATEST = 200  # samples that a player may be behind the beat
NOTE_ROUNDING = 512  # samples; with few lengths and pitches, most notes are remembered ones
KITS = 6
# Both grow with the square of the difficulty, and reach this at 1.
MOST_BORROWED = 0.6  # probability that an element comes from any genre
MOST_NOISE = 0.1  # of the peak

STRENGTHS = {"x": 1.0, "o": 0.4, "a": 1.2}


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One draw from a style, and the sound that its excerpts share."""

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
    tuning: int  # in 1/4096 of the frequency
    kit: int  # which set of drums
    gains: tuple[float, float, float, float]  # of drums, bass, comping and lead
    mastering: Mastering


def record(genre: str, difficulty: float, rng: random.Random) -> Recording:
    """A recording of `genre`: an option from each row of its style or, if difficult, of another genre's."""

    def options(name: str) -> Any:
        lender, chance = _pick(rng, GENRES), rng.random()
        return getattr(STYLES[lender if chance < MOST_BORROWED * difficulty * difficulty else genre], name)

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
            noise=_between(rng, 0.0, 0.005 + MOST_NOISE * difficulty * difficulty),
            peak=_between(rng, 0.15, 0.95),
        ),
    )


def perform(recording: Recording, samples: int, rng: random.Random) -> npt.NDArray[np.int16]:
    """An excerpt from a random place of the recording, int16 [samples] at SAMPLE_RATE."""
    first = _below(rng, STEPS_PER_RECORDING)
    start = _onset(recording, first)
    heard = itertools.takewhile(
        lambda step: _onset(recording, step) < start + samples, itertools.count(first)
    )
    steps = [*range(first - STEPS_PER_BAR, first), *heard]  # a bar early, for what is held into the excerpt
    voices = (recording.bass_voice, recording.comping_voice, recording.lead_voice)
    drives = (0.0, *(VOICES[voice].drive for voice in voices))
    parts = zip("DBCL", (_drums, _bass, _comping, _lead), drives, recording.gains, strict=True)
    mix = np.zeros(samples)
    for letter, part, drive, gain in parts:
        stem = np.zeros(samples)
        for step, level, sound in part(recording, rng, _played(recording.form, letter, steps)):
            at = _onset(recording, step) - start + _below(rng, LATEST)
            lay(stem, at, level * _swell(recording.dynamics, step) * _between(rng, 0.75, 1.0), sound)
        mix += gain * distort(stem, drive)
    return master(mix, recording.mastering, seed=_below(rng, 1 << 32))


def _drums(recording: Recording, rng: random.Random, steps: Sequence[int]) -> Iterator[Sound]:
    """The groove, and a fill at the end of every fourth bar."""
    for line in recording.groove.split():
        drum, pattern = line.split(":")
        for step, mark, _ in _struck(pattern, steps):
            yield step, STRENGTHS[mark], _hit(drum, recording.kit)
    for step in steps:
        last_beat = step % STEPS_PER_PHRASE >= STEPS_PER_PHRASE - STEPS_PER_BEAT
        if recording.groove and last_beat and rng.random() < 0.5:
            yield step, 0.6, _hit(_pick(rng, "TTS"), recording.kit)


def _bass(recording: Recording, rng: random.Random, steps: Sequence[int]) -> Iterator[Sound]:
    """The roots of the chords, and the way from one to the next."""
    lowest = VOICES[recording.bass_voice].lowest
    for step, mark, length in _struck(recording.bass, steps):
        root, intervals = _chord(recording, step)
        above = {"r": 0, "3": intervals[1], "5": intervals[2], "8": 12, "w": _pick(rng, intervals)}[mark]
        pitch = lowest + (root - lowest) % 12 + above
        yield step, 1.0, _note(recording, recording.bass_voice, pitch, step, length)


def _comping(recording: Recording, rng: random.Random, steps: Sequence[int]) -> Iterator[Sound]:
    """The chords, whole or broken."""
    lowest = VOICES[recording.comping_voice].lowest
    turns = itertools.count(_below(rng, 3))
    for step, mark, length in _struck(recording.comping, steps):
        root, intervals = _chord(recording, step)
        pitches = sorted({lowest + (root + interval - lowest) % 12 for interval in intervals})
        for pitch in [pitches[next(turns) % len(pitches)]] if mark == "a" else pitches:
            yield step, STRENGTHS[mark], _note(recording, recording.comping_voice, pitch, step, length)


def _lead(recording: Recording, rng: random.Random, steps: Sequence[int]) -> Iterator[Sound]:
    """A motif that comes back, sometimes varied, and rests on a chord tone at each half bar."""
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
    """Where in two bars a note starts: by how many degrees it moves, and for how many steps it holds."""
    grid = range(0, STEPS_PER_MOTIF, melody.grid)
    places = [place for place in grid if rng.random() < melody.density]
    return {
        place: (_move(rng), min(after - place, 8))
        for place, after in itertools.pairwise([*places, STEPS_PER_MOTIF])
    }


def _move(rng: random.Random) -> int:
    return _below(rng, 5) - 2


def _played(form: str, letter: str, steps: Sequence[int]) -> list[int]:
    bars = form.split()
    return [step for step in steps if letter in bars[step // STEPS_PER_BAR % len(bars)]]


def _struck(pattern: str, steps: Sequence[int]) -> Iterator[tuple[int, str, int]]:
    """Each step that the pattern strikes, its mark, and for how many steps it holds."""
    for step in steps:
        tail = pattern[step % STEPS_PER_BAR :]
        if tail[0] not in ".-":
            yield step, tail[0], len(tail) - len(tail[1:].lstrip("-"))


def _chord(recording: Recording, step: int) -> tuple[int, tuple[int, ...]]:
    """The chord's root (0 to 11 semitones above C) and intervals, in the recording's key."""
    chords = recording.chords.split()
    symbol = chords[step // STEPS_PER_BAR % len(chords)]
    root = symbol[: 2 if symbol[1:2] == "b" else 1]
    return (NOTES.index(root) + recording.key) % 12, QUALITIES[symbol[len(root) :]]


def _nearest(pitch: int, root: int, intervals: Sequence[int]) -> int:
    tones = {(root + interval) % 12 for interval in intervals}
    return min((p for p in range(pitch - 6, pitch + 7) if p % 12 in tones), key=lambda p: abs(p - pitch))


def _onset(recording: Recording, step: int) -> int:
    """When a step sounds, in samples; the swing bends each beat so that its off-beat eighth comes late."""
    late = (0.0, 0.5, 1.0, 0.5)[step % STEPS_PER_BEAT] * recording.swing
    return int((step + late) * (60 * SAMPLE_RATE / STEPS_PER_BEAT / recording.beats_per_minute))


def _swell(depth: float, step: int) -> float:
    middle = STEPS_PER_PHRASE // 2
    return 1.0 - depth * (abs(step % STEPS_PER_PHRASE - middle) / middle)


def _note(recording: Recording, voice: str, pitch: int, step: int, length: int) -> Floats:
    samples = _onset(recording, step + length) - _onset(recording, step) + RELEASE
    return sing(voice, pitch, recording.tuning, samples // NOTE_ROUNDING * NOTE_ROUNDING)


@functools.cache
def _hit(drum: str, kit: int) -> Floats:
    rng = random.Random(f"kit/{kit}/{drum}")
    return strike(drum, _between(rng, 0.8, 1.25), _between(rng, 0.6, 1.4), seed=_below(rng, 1 << 32))


def _below(rng: random.Random, n: int) -> int:
    return int(rng.random() * n)


def _between(rng: random.Random, low: float, high: float) -> float:
    return low + (high - low) * rng.random()


def _pick(rng: random.Random, options: Sequence[T]) -> T:
    return options[_below(rng, len(options))]
