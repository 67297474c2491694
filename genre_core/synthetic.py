"""The built-in corpus: generated music in GTZAN's ten genres, the same bytes from the same seed everywhere.

A recording draws one option from each row of its genre's `Style` or, the higher the difficulty, of another
genre's. Its tracks are excerpts: they share key, tempo, arrangement and sound; place and melody differ.

The bytes are a promise, so nothing depends on the order of a sum or on the last bit of a libm or a SIMD unit:
sound is made of integer phases that look up rounded tables, of elementwise + - * / and of sums of integers.
"""

import csv
import functools
import itertools
import math
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import soundfile

from genre_core.errors import InputError

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Sound = tuple[int, float, Floats]  # step, level, samples
T = TypeVar("T")

SAMPLE_RATE = 22050  # Hz, as in GTZAN
STEPS_PER_BEAT = 4
STEPS_PER_BAR = 4 * STEPS_PER_BEAT
STEPS_PER_MOTIF = 2 * STEPS_PER_BAR
STEPS_PER_PHRASE = 4 * STEPS_PER_BAR
LATEST = 200  # samples that a player may be behind the beat
RELEASE = 1000  # samples that a sound takes to end
TABLE_BITS = 12  # a wave is 4096 samples, found by the top bits of a 32-bit phase
CYCLE = 1 << 32  # the phase of a whole period
VIBRATO = CYCLE * 11 // (2 * SAMPLE_RATE)  # 5.5 Hz, in phase a sample
SEMITONES = [
    round(CYCLE * 440 / SAMPLE_RATE * 2 ** ((pitch - 69) / 12)) for pitch in range(12)
]  # of MIDI 0 to 11
# Both grow with the square of the difficulty, and reach this at 1.
MOST_BORROWED = 0.6  # probability that an element comes from any genre
MOST_NOISE = 0.1  # of the peak


@dataclass(frozen=True, kw_only=True)
class SyntheticCorpus:
    """What to generate."""

    tracks_per_genre: int = 20
    """Tracks of each of the ten genres, at least 1."""
    seconds: float = 12.0
    """Length of a track in seconds, 1 to 600."""
    tracks_per_recording: int = 2
    """Consecutive tracks that are excerpts of one recording, and so belong on one side of a split."""
    difficulty: float = 0.3
    """0: each genre keeps to its own style; 1: most elements may be borrowed, and noise is loud."""
    seed: int = 0
    """Another seed gives other music."""

    def __post_init__(self) -> None:
        _require("tracks_per_genre", self.tracks_per_genre, 1, math.inf)
        _require("seconds", self.seconds, 1, 600)
        _require("tracks_per_recording", self.tracks_per_recording, 1, math.inf)
        _require("difficulty", self.difficulty, 0, 1)


def _require(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        rule = f"at least {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
        raise InputError(
            f"synthetic corpus: {name} must be {rule}, but got {name}={value}; choose one {rule}"
        )


def render(spec: SyntheticCorpus, genre: str, index: int) -> npt.NDArray[np.int16]:
    """One track, int16 [samples] at SAMPLE_RATE; the number of tracks in the corpus does not change it."""
    group = _group(spec, genre, index)
    recording = record(genre, spec.difficulty, _rng(spec.seed, group))
    rng = _rng(spec.seed, group, index)
    return master(perform(recording, rng, round(spec.seconds * SAMPLE_RATE)), recording, rng)


def write(spec: SyntheticCorpus, folder: Path, progress: Callable[[int, int], None] | None = None) -> Path:
    """Write the corpus and return its manifest; `progress` hears how many of how many tracks are done.

    Writes GENRE/GENRE.00000.wav (16-bit mono, GTZAN's layout) and manifest.csv (path, genre, group), which
    comes last and whole: where it is, the corpus is complete.
    """
    manifest = folder / "manifest.csv"
    manifest.unlink(missing_ok=True)
    rows = []
    for genre, index in itertools.product(GENRES, range(spec.tracks_per_genre)):
        path = f"{genre}/{genre}.{index:05d}.wav"
        (folder / genre).mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / path, render(spec, genre, index), SAMPLE_RATE, subtype="PCM_16")
        rows.append((path, genre, _group(spec, genre, index)))
        if progress:
            progress(len(rows), spec.tracks_per_genre * len(GENRES))
    unfinished = folder / "manifest.csv.part"
    with unfinished.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("path", "genre", "group"), *rows])
    os.replace(unfinished, manifest)  # noqa: PTH105
    return manifest


def _group(spec: SyntheticCorpus, genre: str, index: int) -> str:
    return f"{genre}-{index // spec.tracks_per_recording:04d}"


# What the music is made of.


class Voice(NamedTuple):
    """An instrument."""

    partials: tuple[int, ...]  # amplitude of each harmonic, in any unit
    attack: float  # seconds until full level
    decay: float  # seconds until an eighth of it
    lowest: int  # MIDI pitch at the bottom of its chords; its melodies start an octave higher
    vibrato: int = 0  # depth, in 1/1000 of a period of the note
    detune: int = 0  # of a second oscillator, in 1/1024 of the frequency; 0 is none
    drive: float = 0.0  # distortion; 0 is none


SAW = tuple(840 // k for k in range(1, 25))
HELD = 30.0  # seconds of decay that no note lives to hear
VOICES = {
    "banjo": Voice((70, 100, 90, 80, 50, 40, 35, 30, 20, 15), 0.001, 0.16, 57),
    "brass": Voice((60, 100, 90, 70, 55, 40, 30, 20, 10), 0.03, HELD, 52, vibrato=60),
    "cello": Voice((90, 100, 60, 50, 40, 30, 20, 12), 0.08, HELD, 36, vibrato=90),
    "crunch": Voice(SAW[:16], 0.003, 1.6, 43, drive=5.0),
    "electric bass": Voice((100, 70, 45, 25, 15, 8), 0.004, 0.9, 28),
    "epiano": Voice((100, 12, 30, 6, 3, 10), 0.004, 0.9, 55, vibrato=15),
    "fiddle": Voice((80, 100, 70, 60, 45, 40, 25, 20, 10), 0.06, HELD, 55, vibrato=150),
    "flute": Voice((100, 30, 12, 4), 0.05, HELD, 60, vibrato=120),
    "fuzz": Voice(SAW, 0.002, 2.5, 38, detune=4, drive=20.0),
    "guitar": Voice((100, 80, 55, 40, 30, 20, 12, 8), 0.002, 0.45, 50),
    "harmonica": Voice((90, 100, 80, 90, 50, 60, 30, 20), 0.03, HELD, 55, vibrato=90),
    "organ": Voice((80, 100, 70, 60, 0, 40, 0, 30), 0.008, HELD, 50, vibrato=60),
    "piano": Voice((100, 60, 35, 22, 14, 9, 6), 0.003, 0.7, 52),
    "saw": Voice(SAW, 0.006, 1.5, 52, detune=8),
    "square": Voice((840, 0, 280, 0, 168, 0, 120, 0, 93, 0, 76), 0.004, 0.8, 55),
    "steel": Voice((100, 50, 40, 15, 10, 8), 0.04, 1.6, 55, vibrato=220),
    "strings": Voice((100, 55, 42, 30, 24, 18, 14, 10), 0.09, HELD, 52, vibrato=80, detune=5),
    "sub bass": Voice((100, 14, 5), 0.008, HELD, 28),
    "synth bass": Voice(SAW[:10], 0.003, 0.5, 28),
    "upright bass": Voice((100, 55, 22, 8), 0.01, 0.6, 28),
    "voice": Voice((70, 90, 100, 45, 22, 28, 32, 15, 6), 0.05, HELD, 55, vibrato=200),
}


class Drum(NamedTuple):
    """A drum: a tone that falls in pitch, and noise."""

    pitch: int  # Hz, where the tone tends to
    fall: int  # Hz above it, where the tone starts
    ring: float  # seconds until the tone is an eighth
    tone: float  # level
    rattle: float  # seconds until the noise is an eighth
    noise: float  # level
    dark: bool = False  # keeps the noise's lows instead of its highs


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


class Melody(NamedTuple):
    """How a lead moves."""

    scale: str
    grid: int  # steps between two places where a note may start
    density: float  # probability that one does


SCALES = {
    "blues": (0, 3, 5, 6, 7, 10),
    "chant": (0, 0, 0, 3),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 11),
    "pentatonic": (0, 2, 4, 7, 9),
    "phrygian": (0, 1, 3, 5, 7, 8, 10),
}
QUALITIES = {
    "": (0, 4, 7),
    "m": (0, 3, 7),
    "7": (0, 4, 7, 10),
    "m7": (0, 3, 7, 10),
    "M7": (0, 4, 7, 11),
    "5": (0, 7, 12),
}
NOTES = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
STRENGTHS = {"x": 1.0, "o": 0.4, "a": 1.2}


@dataclass(frozen=True, kw_only=True)
class Style:
    """What a recording of a genre may be made of: each field but the tempo lists equally likely options."""

    tempo: tuple[float, float]
    """Slowest and fastest, in beats a minute."""
    swing: tuple[float, ...]
    """Delay of the off-beat eighth, in steps of a sixteenth; 0.67 makes triplets."""
    groove: tuple[str, ...]
    """DRUM:PATTERN, a bar of 16 steps each; x is a hit, o a soft one."""
    chords: tuple[str, ...]
    """A chord a bar, written in C."""
    comping: tuple[str, ...]
    """x is the chord, o soft, a its next note alone, - holds."""
    bass: tuple[str, ...]
    """r 3 5 8 are root, third, fifth and octave, w any note of the chord, - holds."""
    comping_voice: tuple[str, ...]
    bass_voice: tuple[str, ...]
    lead_voice: tuple[str, ...]
    melody: tuple[Melody, ...]
    form: tuple[str, ...]
    """Who plays in each bar: Drums, Bass, Comping, Lead."""
    dynamics: tuple[float, ...] = (0.1, 0.2)
    """How far the loudness swells in four bars, 0 to 1."""


STYLES = {
    "blues": Style(
        tempo=(64, 126),
        swing=(0.67, 0.67, 0.55),
        groove=(
            "K:x.......x....... S:....x.......x... H:x.x.x.x.x.x.x.x.",
            "K:x.......x.x..... S:....x.......x... R:x.x.x.x.x.x.x.x.",
            "K:x.......x....... B:....x.......x... H:....x.......x...",
        ),
        chords=("C7 C7 C7 C7 F7 F7 C7 C7 G7 F7 C7 G7", "C7 F7 C7 C7 F7 F7 C7 C7 G7 F7 C7 G7"),
        comping=("x-..x-..x-..x-..", "x.o.x.o.x.o.x.o.", "x-.ox-.ox-.ox-.o"),
        bass=("r.r.3.3.5.5.8.8.", "r-..3-..5-..w-..", "r-....r-5-....5-"),
        comping_voice=("guitar", "piano", "organ"),
        bass_voice=("upright bass", "electric bass"),
        lead_voice=("guitar", "harmonica", "harmonica"),
        melody=(Melody("blues", 2, 0.5), Melody("blues", 1, 0.35)),
        form=("DBCL DBCL DBCL DBC", "DBCL DBC"),
    ),
    "classical": Style(
        tempo=(60, 132),
        swing=(0.0,),
        groove=("",),
        chords=("C F G C Am Dm G C", "Am Dm E Am F Dm E Am", "C G Am Em F C Dm G"),
        comping=("a-a-a-a-a-a-a-a-", "x---------------", "x-------x-------", "aaaaaaaaaaaaaaaa"),
        bass=("r---------------", "r-------5-------", "r---3---5---3---"),
        comping_voice=("strings", "piano", "flute"),
        bass_voice=("cello", "cello", "upright bass"),
        lead_voice=("fiddle", "flute", "strings", "piano", "brass"),
        melody=(Melody("major", 2, 0.6), Melody("minor", 2, 0.6), Melody("major", 4, 0.7)),
        form=("BCL", "CL BCL BCL L", "BCL BCL CL BC"),
        dynamics=(0.5, 0.7),
    ),
    "country": Style(
        tempo=(88, 150),
        swing=(0.0, 0.2),
        groove=(
            "K:x.......x....... S:....x.......x... H:..x...x...x...x.",
            "K:x...x...x...x... B:ooxoooxoooxoooxo",
            "K:x.......x....... X:....x.......x...",
        ),
        chords=("C C F C C C G C", "C F C G C F G C", "G C G D G C D G"),
        comping=("..x...x...x...x.", "a.a.x.a.a.a.x.a.", "a.axa.axa.axa.ax"),
        bass=("r-......5-......", "r---....5---....", "r---....5---3---"),
        comping_voice=("guitar", "banjo", "banjo"),
        bass_voice=("upright bass", "electric bass"),
        lead_voice=("fiddle", "steel", "steel"),
        melody=(Melody("pentatonic", 2, 0.55), Melody("major", 4, 0.6)),
        form=("DBCL DBCL DBCL DBC", "DBCL"),
    ),
    "disco": Style(
        tempo=(110, 130),
        swing=(0.0,),
        groove=(
            "K:x...x...x...x... S:....x.......x... O:..x...x...x...x.",
            "K:x...x...x...x... C:....x.......x... O:..x...x...x...x. H:x.o.x.o.x.o.x.o.",
            "K:x...x...x...x... S:....x.......x... H:xxoxxxoxxxoxxxox",
        ),
        chords=("Am7 Dm7 G7 CM7", "Am7 Am7 Dm7 E7", "FM7 G7 Em7 Am7"),
        comping=("x.oxxox.x.oxxox.", "x.xx.xx.x.xx.xx.", "x-------x-------"),
        bass=("r.8.r.8.r.8.r.8.", "r...r.8.r...r.8.", "..r8..r8..r8..r8"),
        comping_voice=("strings", "strings", "guitar"),
        bass_voice=("electric bass", "synth bass"),
        lead_voice=("strings", "voice", "brass"),
        melody=(Melody("dorian", 2, 0.45), Melody("minor", 4, 0.6)),
        form=("DBCL DBCL DBCL DBC", "DBC DBCL DBCL DB"),
    ),
    "hiphop": Style(
        tempo=(78, 102),
        swing=(0.15, 0.3),
        groove=(
            "K:x.....x..x...... S:....x.......x... H:x.x.x.x.x.x.xx.x",
            "K:x..x......x..... C:....x.......x... H:x.x.x.xxx.x.x.x.",
            "K:x.x.......xx.... S:....x.o.....x..o H:xxxxxxxxxxxxxxxx",
        ),
        chords=("Cm Cm Ab Ab", "Am7 Am7 FM7 E7", "Dm7 Dm7 Dm7 Am7", "Cm"),
        comping=("x---------......", "a..a..a...a.....", "x.....x..x......"),
        bass=("r-----r-..r-....", "r--r------5-....", "r-........r-r-.."),
        comping_voice=("epiano", "strings", "piano"),
        bass_voice=("sub bass", "synth bass"),
        lead_voice=("voice", "square"),
        melody=(Melody("chant", 1, 0.7), Melody("chant", 1, 0.55)),
        form=("DBCL DBCL DBCL DL", "DBC DBCL DBL DBCL"),
    ),
    "jazz": Style(
        tempo=(104, 210),
        swing=(0.5, 0.67),
        groove=(
            "R:x...x.x.x...x.x. H:....x.......x...",
            "R:x...x.x.x...x.x. H:....x.......x... K:o.....o.......o. S:......o....o....",
            "B:x.oox.oxx.oox.ox H:....x.......x...",
        ),
        chords=("Dm7 G7 CM7 CM7", "CM7 Am7 Dm7 G7", "Cm7 F7 BbM7 EbM7 Am7 D7 Gm7 Gm7"),
        comping=("..x-......x.....", "x-....x-........", "......x-......x-", "x---------..x-.."),
        bass=("w-..w-..w-..w-..", "w---w---w---w---", "r-..w-..w-w-w-.."),
        comping_voice=("piano", "guitar", "organ"),
        bass_voice=("upright bass",),
        lead_voice=("brass", "flute", "piano", "guitar"),
        melody=(Melody("dorian", 2, 0.75), Melody("major", 2, 0.65), Melody("blues", 1, 0.45)),
        form=("DBCL DBCL DBCL DBC", "DBCL DBL", "BCL DBCL DBCL DB"),
        dynamics=(0.2, 0.4),
    ),
    "metal": Style(
        tempo=(96, 180),
        swing=(0.0,),
        groove=(
            "K:xxxxxxxxxxxxxxxx S:....x.......x... R:x...x...x...x...",
            "K:x.xxx.xxx.xxx.xx S:....x.......x... O:x...x...x...x...",
            "K:x.x.x.x.x.x.x.x. S:..x...x...x...x. R:x.x.x.x.x.x.x.x.",
        ),
        chords=("C5 C5 Db5 C5", "C5 Eb5 Db5 Gb5", "A5 F5 G5 A5", "C5 C5 C5 Bb5"),
        comping=("x.xxx.xxx.xxx.xx", "xxxxxxxxxxx-x-x-", "x.x.xxx.x.x.xxx."),
        bass=("r.rrr.rrr.rrr.rr", "rrrrrrrrrrrrrrrr", "r-r-r-r-r-r-r-r-"),
        comping_voice=("fuzz",),
        bass_voice=("electric bass", "synth bass"),
        lead_voice=("fuzz", "crunch", "voice"),
        melody=(Melody("phrygian", 1, 0.8), Melody("minor", 1, 0.6)),
        form=("DBC DBC DBCL DBCL", "DBC DBC DBC C"),
    ),
    "pop": Style(
        tempo=(92, 132),
        swing=(0.0, 0.0, 0.15),
        groove=(
            "K:x.......x.x..... S:....x.......x... H:x.x.x.x.x.x.x.x.",
            "K:x...x...x...x... C:....x.......x... H:..x...x...x...x.",
            "K:x..x..x.x..x..x. S:....x.......x... H:xoxoxoxoxoxoxoxo",
        ),
        chords=("C G Am F", "Am F C G", "F G C Am", "C Am F G"),
        comping=("x---x---x---x---", "x..x..x...x..x..", "x---------------", "a.a.a.a.a.a.a.a."),
        bass=("r.r.r.r.r.r.r.r.", "r-----r-r-----r-", "r---------------"),
        comping_voice=("saw", "epiano", "piano"),
        bass_voice=("synth bass", "electric bass", "sub bass"),
        lead_voice=("voice", "saw", "square"),
        melody=(Melody("pentatonic", 2, 0.55), Melody("major", 2, 0.45)),
        form=("DBCL DBCL DBCL DBCL", "BCL BCL DBCL DBCL"),
    ),
    "reggae": Style(
        tempo=(64, 92),
        swing=(0.0, 0.3),
        groove=(
            "K:........x....... X:........x....... H:..x...x...x...x.",
            "K:x...x...x...x... X:........x....... H:x.o.x.o.x.o.x.o.",
            "K:........x....... S:........x......o H:x.xxx.xxx.xxx.xx T:..............o.",
        ),
        chords=("C F C F", "Am G Am G", "Am Dm Am Em", "C Dm C G"),
        comping=("..x...x...x...x.", "..xo..xo..xo..xo", ".axa.axa.axa.axa"),
        bass=("r-..r-3-..5-....", "..r-r-..3-5-8-..", "r-r-..5-....3-.."),
        comping_voice=("organ", "organ", "guitar"),
        bass_voice=("sub bass", "electric bass"),
        lead_voice=("voice", "brass"),
        melody=(Melody("pentatonic", 2, 0.4), Melody("dorian", 4, 0.6)),
        form=("DBCL DBCL DBC DBC", "DBCL DBCL DB DBC"),
    ),
    "rock": Style(
        tempo=(104, 156),
        swing=(0.0,),
        groove=(
            "K:x.......x.x..... S:....x.......x... H:x.x.x.x.x.x.x.x.",
            "K:x.....x.x....... S:....x.......x... O:x...x...x...x...",
            "K:x..x....x.x..... S:....x.......x... R:x.x.x.x.x.x.x.x. T:..............oo",
        ),
        chords=("C Bb F C", "A5 D5 E5 D5", "Am G F G", "C F G F"),
        comping=("x.x.x.x.x.x.x.x.", "x-----x-x-----x-", "x---x-x-....x-x-"),
        bass=("r.r.r.r.r.r.r.r.", "r-----r-r-----r-", "r.r.r.r.5.5.8.8."),
        comping_voice=("crunch", "crunch", "organ"),
        bass_voice=("electric bass",),
        lead_voice=("crunch", "voice", "fuzz"),
        melody=(Melody("pentatonic", 2, 0.5), Melody("blues", 1, 0.4)),
        form=("DBCL DBCL DBCL DBC", "DBC DBC DBCL DBCL"),
    ),
}
GENRES = tuple(STYLES)


# Music. Each part is told in which steps it plays, and yields what sounds there.


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One draw from a style, and the sound that its tracks share."""

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
    tilt: float  # -1 dark to 1 bright
    reverb: float  # 0 to 1
    room: int  # samples between two echoes
    noise: float  # of the peak
    peak: float  # of full scale


def record(genre: str, difficulty: float, rng: random.Random) -> Recording:
    """A recording of `genre`."""

    def options(name: str) -> Any:
        lender, chance = _pick(rng, GENRES), rng.random()
        return getattr(STYLES[lender if chance < MOST_BORROWED * difficulty * difficulty else genre], name)

    drawn = {f.name: _pick(rng, options(f.name)) for f in fields(Style) if f.name != "tempo"}
    return Recording(
        **drawn,
        beats_per_minute=_between(rng, *options("tempo")),
        key=_below(rng, 12),
        tuning=_below(rng, 101) - 50,
        kit=_below(rng, 6),
        gains=(
            _between(rng, 0.5, 1.0),
            _between(rng, 0.3, 0.7),
            _between(rng, 0.25, 0.6),
            _between(rng, 0.2, 0.5),
        ),
        tilt=_between(rng, -0.5, 0.5),
        reverb=_between(rng, 0.05, 0.4),
        room=500 + _below(rng, 1500),
        noise=_between(rng, 0.0, 0.005 + MOST_NOISE * difficulty * difficulty),
        peak=_between(rng, 0.15, 0.95),
    )


def perform(recording: Recording, rng: random.Random, samples: int) -> Floats:
    """An excerpt from a random place of the recording, float64 [samples]."""
    first = _below(rng, 32 * STEPS_PER_BAR)
    start = _onset(recording, first)
    heard = itertools.takewhile(
        lambda step: _onset(recording, step) - start < samples, itertools.count(first)
    )
    steps = [*range(first - STEPS_PER_BAR, first), *heard]  # a bar early, for what is held into the excerpt
    drives = [VOICES[v].drive for v in (recording.bass_voice, recording.comping_voice, recording.lead_voice)]
    parts = zip("DBCL", (drums, bass, comping, lead), (0.0, *drives), recording.gains, strict=True)
    mix = np.zeros(samples)
    for letter, part, drive, gain in parts:
        stem = np.zeros(samples)
        for step, level, sound in part(recording, rng, _played(recording.form, letter, steps)):
            at = _onset(recording, step) - start + _below(rng, LATEST)
            _lay(stem, at, level * _swell(recording.dynamics, step) * _between(rng, 0.75, 1.0), sound)
        mix += gain * _distort(stem, drive)
    return mix


def drums(recording: Recording, rng: random.Random, steps: Sequence[int]) -> Iterator[Sound]:
    """The groove, and a fill at the end of every fourth bar."""
    for line in recording.groove.split():
        drum, pattern = line.split(":")
        for step, mark, _ in _struck(pattern, steps):
            yield step, STRENGTHS[mark], strike(drum, recording.kit)
    for step in steps:
        last_beat = step % STEPS_PER_PHRASE >= STEPS_PER_PHRASE - STEPS_PER_BEAT
        if recording.groove and last_beat and rng.random() < 0.5:
            yield step, 0.6, strike(_pick(rng, "TTS"), recording.kit)


def bass(recording: Recording, rng: random.Random, steps: Sequence[int]) -> Iterator[Sound]:
    """The roots of the chords, and the way from one to the next."""
    lowest = VOICES[recording.bass_voice].lowest
    for step, mark, length in _struck(recording.bass, steps):
        root, intervals = _chord(recording, step)
        above = {"r": 0, "3": intervals[1], "5": intervals[2], "8": 12, "w": _pick(rng, intervals)}[mark]
        pitch = lowest + (root - lowest) % 12 + above
        yield step, 1.0, _sing(recording, recording.bass_voice, pitch, step, length)


def comping(recording: Recording, rng: random.Random, steps: Sequence[int]) -> Iterator[Sound]:
    """The chords, whole or broken."""
    lowest = VOICES[recording.comping_voice].lowest
    turns = itertools.count(_below(rng, 3))
    for step, mark, length in _struck(recording.comping, steps):
        root, intervals = _chord(recording, step)
        pitches = sorted({lowest + (root + interval - lowest) % 12 for interval in intervals})
        for pitch in [pitches[next(turns) % len(pitches)]] if mark == "a" else pitches:
            yield step, STRENGTHS[mark], _sing(recording, recording.comping_voice, pitch, step, length)


def lead(recording: Recording, rng: random.Random, steps: Sequence[int]) -> Iterator[Sound]:
    """A motif of two bars that comes back, sometimes varied, and rests on a chord tone at each half bar."""
    scale = SCALES[recording.melody.scale]
    grid = range(0, STEPS_PER_MOTIF, recording.melody.grid)
    places = [place for place in grid if rng.random() < recording.melody.density]
    moves = {place: _below(rng, 5) - 2 for place in places}
    lengths = {
        place: min(after - place, 8) for place, after in itertools.pairwise([*places, STEPS_PER_MOTIF])
    }
    tonic = VOICES[recording.lead_voice].lowest + 12 + _chord(recording, 0)[0]
    degree = len(scale) // 2
    for step in steps:
        place = step % STEPS_PER_MOTIF
        if place in moves:
            move = moves[place] if rng.random() < 0.8 else _below(rng, 5) - 2
            degree = min(max(degree + move, -2), len(scale) + 2)
            pitch = tonic + degree // len(scale) * 12 + scale[degree % len(scale)]
            if step % (STEPS_PER_BAR // 2) == 0:
                pitch = _nearest(pitch, *_chord(recording, step))
            yield step, 1.0, _sing(recording, recording.lead_voice, pitch, step, lengths[place])


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


def _sing(recording: Recording, voice: str, pitch: int, step: int, length: int) -> Floats:
    increment = SEMITONES[pitch % 12] << (pitch // 12)
    samples = _onset(recording, step + length) - _onset(recording, step) + RELEASE
    # Few lengths and few pitches: a note is made once and then remembered.
    return sing(voice, increment + increment * recording.tuning // 4096, samples // 512 * 512)


# Sound.


@functools.cache
def sine() -> Integers:
    """One period, int64 [table] in units of 2**-20, far coarser than libms differ."""
    size = 1 << TABLE_BITS
    return np.array([round(math.sin(2 * math.pi * i / size) * 2**20) for i in range(size)], dtype=np.int64)


@functools.cache
def waveform(partials: tuple[int, ...]) -> Floats:
    """One period, float64 [table], peak 1."""
    turn = np.arange(1 << TABLE_BITS, dtype=np.int64)
    wave = np.zeros(len(turn), dtype=np.int64)
    for harmonic, amplitude in enumerate(partials, start=1):
        wave += amplitude * sine()[turn * harmonic % len(turn)]
    return np.asarray(wave / int(np.abs(wave).max()))


def look_up(wave: Floats, phase: Integers) -> Floats:
    """float64 [samples] of the wave at a phase in 1/CYCLE of a period."""
    return np.take(wave, (phase >> (32 - TABLE_BITS)) & (len(wave) - 1))


@functools.lru_cache(maxsize=256)
def sing(voice: str, increment: int, samples: int) -> Floats:
    """A note, float64 [samples], whose phase grows by `increment` a sample."""
    partials, attack, decay, _, vibrato, detune, _ = VOICES[voice]
    wave = waveform(partials[: max(1, CYCLE * 9 // 20 // increment)])  # without what would fold over
    i = np.arange(samples, dtype=np.int64)
    phase = i * increment
    if vibrato:
        phase += (look_up(waveform((1,)), i * VIBRATO) * (vibrato * CYCLE // 1000)).astype(np.int64)
    sound = look_up(wave, phase)
    if detune:
        sound = (sound + look_up(wave, phase + i * (increment * detune // 1024))) * 0.5
    return sound * _fall(i, decay) * np.minimum(i / (attack * SAMPLE_RATE), 1.0) * _release(i)


@functools.cache
def strike(drum: str, kit: int) -> Floats:
    """A hit on a drum, float64 [samples]; the kits differ in pitch and ring."""
    pitch, fall, ring, tone, rattle, noise, dark = DRUMS[drum]
    rng = _rng("kit", kit, drum)
    tuning, length = _between(rng, 0.8, 1.25), _between(rng, 0.6, 1.4)
    i = np.arange(int(4 * length * max(ring, rattle) * SAMPLE_RATE), dtype=np.int64)
    phase = np.cumsum(((pitch + fall * _fall(i, 0.06)) * (tuning * CYCLE / SAMPLE_RATE)).astype(np.int64))
    hiss = white_noise(_below(rng, 1 << 32), len(i))
    lows = smooth(hiss, 6)
    body = tone * look_up(waveform((1,)), phase) * _fall(i, ring * length)
    skin = noise / 2**15 * (lows if dark else hiss - lows) * _fall(i, rattle * length)
    return (body + skin) * _release(i)


def master(mix: Floats, recording: Recording, rng: random.Random) -> npt.NDArray[np.int16]:
    """Room, noise, tone and level: int16 [samples] from float64 [samples]."""
    mix = mix / np.abs(mix).max(initial=2.0**-20)
    for echo in (recording.room, recording.room * 3 // 2 + 7):
        _reverberate(mix, echo, recording.reverb)
    hiss = white_noise(_below(rng, 1 << 32), len(mix)) * (recording.noise / 2**15)
    whole = np.rint((mix + hiss) * 2**20).astype(np.int64)
    lows = smooth(whole, 8)
    mix = lows * (1.0 - recording.tilt) + (whole - lows) * (1.0 + recording.tilt)
    level = recording.peak * (2**15 - 1) / np.abs(mix).max(initial=1.0)
    return np.asarray(np.rint(mix * level), dtype=np.int16)


def smooth(x: Integers, width: int) -> Floats:
    """The mean of `width` neighbours (even), float64 [samples]: a filter that is exact in any order."""
    total = np.cumsum(np.pad(x, (width // 2 + 1, width // 2)), dtype=np.int64)
    return np.asarray((total[width:] - total[:-width])[: len(x)] / width)


def white_noise(seed: int, samples: int) -> Integers:
    """int64 [samples], uniform over 16 bits."""
    words = np.random.PCG64(seed).random_raw(samples // 4 + 1)
    return words.astype("<u8").view("<i2")[:samples].astype(np.int64)


def _fall(i: Integers, decay: float) -> Floats:
    """From 1 down to an eighth after `decay` seconds, float64 [samples]."""
    slope = 1.0 / (1.0 + i / (decay * SAMPLE_RATE))
    return slope * slope * slope


def _release(i: Integers) -> Floats:
    return np.minimum((len(i) - i) / RELEASE, 1.0)


def _distort(stem: Floats, drive: float) -> Floats:
    return stem * drive / (1.0 + np.abs(stem) * drive) if drive else stem


def _lay(stem: Floats, at: int, level: float, sound: Floats) -> None:
    start, end = max(at, 0), min(at + len(sound), len(stem))
    if start < end:
        stem[start:end] += level * sound[start - at : end - at]


def _reverberate(mix: Floats, echo: int, level: float) -> None:
    for start in range(echo, len(mix), echo):
        block = mix[start : start + echo]
        block += level * mix[start - echo : start - echo + len(block)]


# Chance: random.Random promises that random() repeats, PCG64 that its raw stream does.


def _rng(*key: object) -> random.Random:
    return random.Random("/".join(map(str, key)))


def _below(rng: random.Random, n: int) -> int:
    return int(rng.random() * n)


def _between(rng: random.Random, low: float, high: float) -> float:
    return low + (high - low) * rng.random()


def _pick(rng: random.Random, options: Sequence[T]) -> T:
    return options[_below(rng, len(options))]
