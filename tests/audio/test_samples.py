"""Samples in memory are decoded as a file with the same samples is."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from refusals import refused

from genre_core.audio.bad_audio import BadAudio, Reason
from genre_core.audio.decode import read, waveform_of
from genre_core.audio.samples import source_of
from genre_core.errors import ErrorCode

RATE = 44_100
NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 3 * RATE))
AS_FILE = {"float32": "FLOAT", "float64": "DOUBLE", "int16": "PCM_16", "int32": "PCM_32", "uint8": "PCM_U8"}


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("kind", AS_FILE)
def test_samples_and_a_file_give_the_same_waveform(tmp_path: Path, kind: str, channels: int) -> None:
    half = 2.0 ** (8 * np.dtype(kind).itemsize - 1)
    scale, offset = (1.0, 0.0) if kind.startswith("float") else (half, half if kind == "uint8" else 0.0)
    frames = (NOISE[:channels].T * scale + offset).astype(kind)
    in_file = (frames.astype(np.int16) - 128) * 256 if kind == "uint8" else frames
    soundfile.write(tmp_path / "x.wav", in_file, RATE, subtype=AS_FILE[kind])
    expected = read(tmp_path / "x.wav", 22_050)
    assert expected.std() > 0.1
    for samples in (
        frames,
        frames.T,
        torch.from_numpy(frames),
        frames.astype(float).tolist() if kind == "float64" else frames,
    ):
        np.testing.assert_array_equal(waveform_of(source_of(samples, RATE), 22_050), expected)


def test_a_plain_sequence_of_samples_is_mono() -> None:
    np.testing.assert_array_equal(
        waveform_of(source_of(NOISE[0], RATE), 22_050), waveform_of(source_of(NOISE[:1], RATE), 22_050)
    )


@pytest.mark.parametrize(
    ("samples", "rate", "values"),
    [
        (np.zeros((3, 2, 100)), RATE, ["[3, 2, 100]"]),
        (np.zeros((1000, 2000)), RATE, ["[1000, 2000]", 64]),
        (np.array(0.5), RATE, ["[]"]),
        (np.array(["a"]), RATE, ["<U1"]),
        (NOISE.astype(complex), RATE, ["complex128"]),
        (NOISE > 0, RATE, ["bool"]),
        (NOISE, 0, [0]),
        (NOISE, 44_100.5, [44_100.5]),
        (NOISE, True, [True]),
        (NOISE, "44100", ["44100"]),
    ],
)
def test_anything_else_is_a_mistake(samples: Any, rate: Any, values: list[object]) -> None:
    with refused(ErrorCode.WAVEFORM_INVALID, *values):
        source_of(samples, rate)


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (np.zeros(RATE), Reason.SILENT),
        (np.array([]), Reason.EMPTY),
        (np.full(RATE, np.nan), Reason.NOT_FINITE),
        (np.stack([NOISE[0], -NOISE[0]]), Reason.SILENT),
    ],
)
def test_samples_without_music_are_bad_as_a_file_is(samples: Any, reason: Reason) -> None:
    with pytest.raises(BadAudio) as caught:
        waveform_of(source_of(samples, RATE), 22_050)
    assert caught.value.reason is reason
