"""The built-in corpus: synthetic music in GTZAN's ten genres; a seed gives the same bytes on every machine.

Each track is an excerpt of a recording. Excerpts of the same recording share key, tempo, arrangement and sound, but
have different positions and melodies. Scores are comparable only while the bytes stay the same.
"""

import csv
import itertools
import math
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from genre_core.errors import ErrorCode, InputError
from genre_core.synthetic.arrangement import perform, record
from genre_core.synthetic.styles import GENRES
from genre_core.synthetic.synth import SAMPLE_RATE
from genre_core.system.atomic import atomic_file
from genre_core.system.progress import ProgressCallback

__all__ = ["GENRES", "SAMPLE_RATE", "SyntheticCorpus", "render", "write"]


@dataclass(frozen=True, kw_only=True)
class SyntheticCorpus:
    """Settings of the built-in corpus."""

    tracks_per_genre: int = 20
    """Tracks of each of the ten genres, at least 1."""
    seconds: float = 12.0
    """Length of a track in seconds, 1 to 600."""
    tracks_per_recording: int = 2
    """Consecutive tracks that are excerpts of one recording: a group, which must stay in one split."""
    difficulty: float = 0.3
    """From 0, where genres differ most, to 1, where they borrow most elements from each other and noise is loud."""
    seed: int = 0
    """Seed of all random choices."""

    def __post_init__(self) -> None:
        _require("tracks_per_genre", self.tracks_per_genre, 1, math.inf)
        _require("seconds", self.seconds, 1, 600)
        _require("tracks_per_recording", self.tracks_per_recording, 1, math.inf)
        _require("difficulty", self.difficulty, 0, 1)


def _require(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        rule = f"at least {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
        raise InputError(
            f"{name} of the synthetic corpus must be {rule}, but got {name}={value}",
            code=ErrorCode.SYNTHETIC_OUT_OF_RANGE,
        )


def render(spec: SyntheticCorpus, genre: str, index: int) -> npt.NDArray[np.int16]:
    """Render one track, int16 [samples] at SAMPLE_RATE, whatever the number of tracks in the corpus."""
    recording_seed = f"{spec.seed}/{_group(spec, genre, index)}"
    recording = record(genre, spec.difficulty, random.Random(recording_seed))
    samples = round(spec.seconds * SAMPLE_RATE)
    return perform(recording, samples, random.Random(f"{recording_seed}/{index}"))


def write(spec: SyntheticCorpus, folder: Path, progress: ProgressCallback | None = None) -> Path:
    """Write the corpus: GENRE/GENRE.00000.wav (16-bit mono, as in GTZAN) and manifest.csv (path, genre, group).

    The manifest is written last and atomically: where it exists, the corpus is complete.

    Args:
        spec: what to generate.
        folder: where to write; created if necessary.
        progress: called with the number of written tracks and of all tracks.

    Returns:
        The manifest's path.
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
    with (
        atomic_file(manifest, durable=False) as partial,
        partial.open("w", encoding="utf-8", newline="") as file,
    ):
        csv.writer(file, lineterminator="\n").writerows([("path", "genre", "group"), *rows])
    return manifest


def _group(spec: SyntheticCorpus, genre: str, index: int) -> str:
    return f"{genre}-{index // spec.tracks_per_recording:04d}"
