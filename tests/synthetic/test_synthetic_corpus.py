"""The built-in corpus has the documented layout, the same bytes everywhere, and can be learned."""

import csv
import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__  # type: ignore[import-not-found]  # compiled
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GroupKFold, cross_val_predict

from genre_core.errors import ErrorCode, InputError
from genre_core.synthetic.corpus import GENRES, SAMPLE_RATE, SyntheticCorpus, render, write
from genre_core.synthetic.styles import SCALES, STYLES
from genre_core.synthetic.synth import DRUMS, VOICES

TINY = SyntheticCorpus(tracks_per_genre=1, seconds=1.0)


def digest(spec: SyntheticCorpus, tracks: int = 1) -> str:
    samples = hashlib.sha256()
    for genre in GENRES:
        for index in range(tracks):
            samples.update(render(spec, genre, index).astype("<i2").tobytes())
    return samples.hexdigest()


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.wav")}


def test_the_corpus_has_the_layout_of_gtzan_and_a_manifest_of_all_its_tracks(tmp_path: Path) -> None:
    reported: list[tuple[int, int]] = []
    spec = replace(TINY, tracks_per_genre=3)
    manifest = write(spec, tmp_path / "corpus", lambda done, total: reported.append((done, total)))

    assert manifest == tmp_path / "corpus" / "manifest.csv"
    with manifest.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["genre"] for row in rows] == [genre for genre in GENRES for _ in range(3)]
    assert [row["path"] for row in rows[:3]] == [f"blues/blues.0000{i}.wav" for i in range(3)]
    assert [row["group"] for row in rows[:4]] == ["blues-0000", "blues-0000", "blues-0001", "classical-0000"]
    assert {row["path"] for row in rows} == set(files(manifest.parent))
    assert reported == [(done, 30) for done in range(1, 31)]

    info = soundfile.info(manifest.parent / rows[0]["path"])
    assert (info.samplerate, info.channels, info.frames) == (SAMPLE_RATE, 1, SAMPLE_RATE)
    assert (info.format, info.subtype) == ("WAV", "PCM_16")


def test_an_incomplete_corpus_has_no_manifest(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    write(TINY, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        write(replace(TINY, seed=1), tmp_path, stop)
    assert not (tmp_path / "manifest.csv").exists()


def test_a_larger_corpus_contains_the_smaller_one(tmp_path: Path) -> None:
    write(TINY, tmp_path / "small")
    write(replace(TINY, tracks_per_genre=2), tmp_path / "big")
    small, big = files(tmp_path / "small"), files(tmp_path / "big")
    assert len(small) == 10
    assert len(big) == 20
    assert small.items() <= big.items()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for folder, seed in {"a": 7, "b": 7, "c": 8}.items():
        write(replace(TINY, seed=seed), tmp_path / folder)
    a, b, c = (files(tmp_path / folder) for folder in "abc")
    assert a == b
    assert all(a[path] != c[path] for path in a)


def test_all_tracks_of_a_corpus_differ() -> None:
    tracks = [render(TINY, genre, index).tobytes() for genre in GENRES for index in range(4)]
    assert len(set(tracks)) == len(tracks)


def test_the_bytes_never_change() -> None:
    # Recorded scores on this corpus are comparable only while its bytes stay the same.
    spec = SyntheticCorpus(seconds=2.0, difficulty=0.5, seed=3)
    assert digest(spec, tracks=3) == "03efc7cca59f7aaea8e8616e614164592b6ee917626db0a8a11295fd2a187049"


def test_the_bytes_are_the_same_without_simd() -> None:
    simd = [feature for feature in __cpu_dispatch__ if __cpu_features__[feature]]
    if not simd:
        pytest.skip("numpy cannot disable any SIMD feature of this processor")
    script = (
        "from numpy._core._multiarray_umath import __cpu_features__\n"
        f"assert not any(__cpu_features__[feature] for feature in {simd})\n"
        "from test_synthetic_corpus import SyntheticCorpus, digest\n"
        "print(digest(SyntheticCorpus(seconds=2.0, difficulty=0.5)))\n"
    )
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parents[1])])
    env = {**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(simd), "PYTHONPATH": path}
    plain = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True)
    assert plain.returncode == 0, plain.stderr
    assert plain.stdout.strip() == digest(SyntheticCorpus(seconds=2.0, difficulty=0.5))


@pytest.mark.parametrize("genre", GENRES)
def test_a_style_fills_whole_bars_and_names_only_what_exists(genre: str) -> None:
    style = STYLES[genre]
    lines = [line.split(":") for groove in style.groove for line in groove.split()]
    assert {len(pattern) for pattern in [*style.comping, *style.bass, *(p for _, p in lines)]} == {16}
    assert {drum for drum, _ in lines} <= set(DRUMS)
    assert {*style.comping_voice, *style.bass_voice, *style.lead_voice} <= set(VOICES)
    assert {melody.scale for melody in style.melody} <= set(SCALES)


@pytest.mark.parametrize(
    "wrong",
    [
        {"tracks_per_genre": 0},
        {"tracks_per_recording": 0},
        {"seconds": 0.5},
        {"seconds": 601.0},
        {"seconds": float("nan")},
        {"difficulty": -0.1},
        {"difficulty": 1.1},
    ],
)
def test_settings_out_of_range_are_rejected(wrong: dict[str, Any]) -> None:
    [(name, value)] = wrong.items()
    with pytest.raises(InputError) as error:
        SyntheticCorpus(**wrong)
    assert error.value.code is ErrorCode.SYNTHETIC_OUT_OF_RANGE
    assert f"{name}={value}" in str(error.value)


def log_bands(samples: np.ndarray) -> np.ndarray:
    """Levels in dB relative to the loudest, float [frames, bands]; the bands are a few per octave."""
    frames = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float32), 1024)[::512]
    power = np.abs(np.fft.rfft(frames * np.hanning(1024))) ** 2
    bands = np.add.reduceat(power, np.unique(np.geomspace(1, 512, 40).astype(int)), axis=1)
    levels: np.ndarray = np.maximum(10.0 * np.log10(bands / bands.max() + 1e-12), -80.0)
    return levels


def pooled(samples: np.ndarray) -> np.ndarray:
    """Features of timbre (mean and deviation of each band) and of rhythm (onsets and periods in four registers)."""
    bands = log_bands(samples)
    onsets = np.maximum(np.diff(bands, axis=0), 0.0)
    registers = [band.mean(axis=1) - band.mean() for band in np.array_split(onsets, 4, axis=1)]
    periods = [np.correlate(x, x, "full")[len(x) : len(x) + 50] / (x @ x + 1e-9) for x in registers]
    return np.concatenate([bands.mean(axis=0), bands.std(axis=0), onsets.mean(axis=0), *periods])


def accuracy(features: np.ndarray, genres: list[str], recordings: list[str]) -> float:
    forest = RandomForestClassifier(100, random_state=0)
    found = cross_val_predict(forest, features, genres, groups=recordings, cv=GroupKFold(4))
    return float(np.mean(found == np.array(genres)))


def test_genres_can_be_classified_less_well_when_difficult_and_not_by_loudness() -> None:
    names = [(genre, index) for genre in GENRES for index in range(16)]
    genres = [genre for genre, _ in names]
    recordings = [f"{genre}{index // 2}" for genre, index in names]
    easy, usual, hard = (
        [render(SyntheticCorpus(seconds=6.0, difficulty=difficulty), *name) for name in names]
        for difficulty in (0.0, 0.3, 1.0)
    )
    scores = [
        accuracy(np.array([*map(pooled, tracks)]), genres, recordings) for tracks in (easy, usual, hard)
    ]
    loudness = np.array([[np.log(np.std(samples.astype(float)))] for samples in easy])
    assert 0.5 < scores[0] < 0.95
    assert 0.4 < scores[1] < 0.9
    assert scores[2] < scores[1] - 0.15
    assert accuracy(loudness, genres, recordings) < 0.25


def test_tracks_of_one_recording_are_similar() -> None:
    spectra = [
        [log_bands(render(SyntheticCorpus(seconds=4.0), genre, index)).mean(axis=0) for index in range(12)]
        for genre in GENRES
    ]
    found = []
    for tracks in spectra:
        distances = np.array([[np.linalg.norm(a - b) for b in tracks] for a in tracks])
        np.fill_diagonal(distances, np.inf)
        found += [nearest // 2 == index // 2 for index, nearest in enumerate(distances.argmin(axis=1))]
    assert np.mean(found) > 0.5  # chance: one in eleven
