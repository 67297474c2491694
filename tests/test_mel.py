"""The front end against librosa's, on noise, tones and silence."""

import librosa
import numpy as np
import pytest
import torch
from torchaudio.transforms import AmplitudeToDB, MelSpectrogram

from genre_core.errors import InputError
from genre_core.mel import (
    DYNAMIC_RANGE_DB,
    FRONT_ENDS,
    SAMPLE_RATE,
    front_end,
    log_mel,
    segment_starts,
)

TOLERANCE_DB = 0.1


def _sounds() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    seconds = np.arange(4 * SAMPLE_RATE) / SAMPLE_RATE
    return {
        "fading noise": rng.standard_normal(len(seconds)) * 0.1 * seconds,
        "a chord": sum(np.sin(2 * np.pi * f * seconds) for f in (220, 277.2, 329.6)) / 4,
        "a click": np.eye(1, len(seconds), 1000)[0],
    }


@pytest.mark.parametrize("sound", _sounds())
@pytest.mark.parametrize("name", FRONT_ENDS)
def test_stored_mel_equals_librosas(name: str, sound: str) -> None:
    waveform = _sounds()[sound].astype(np.float32)
    setting = front_end(name)
    stored = log_mel(waveform, setting).half().numpy()
    for channel, window in enumerate(setting.windows):
        power = librosa.feature.melspectrogram(
            y=waveform,
            sr=setting.sample_rate,
            n_fft=setting.n_fft,
            win_length=window,
            hop_length=setting.hop_length,
            n_mels=setting.n_mels,
        )
        reference = librosa.power_to_db(power, top_db=80.0)
        assert stored[channel].shape == reference.shape
        assert np.abs(stored[channel] - reference).mean() < TOLERANCE_DB


@pytest.mark.parametrize(
    ("frames", "segment", "limit", "starts"),
    [
        (99, 100, 10, []),
        (100, 100, 10, [0]),
        (150, 100, 10, [25]),
        (200, 100, 10, [0, 100]),
        (345, 128, 10, [0, 217]),
        (1000, 100, 3, [0, 450, 900]),
    ],
)
def test_segments_lie_side_by_side_and_spread_over_the_track(
    frames: int, segment: int, limit: int, starts: list[int]
) -> None:
    assert segment_starts(frames, segment, limit) == starts


def test_a_front_end_that_is_not_there_is_the_users_mistake() -> None:
    with pytest.raises(InputError, match=r"front_end must be one of mel128, .*front_end='mel256'"):
        front_end("mel256")


@pytest.mark.parametrize("seconds", [0.5, 30.0, 100.0])
@pytest.mark.parametrize("name", FRONT_ENDS)
def test_in_blocks_a_mel_is_what_it_is_at_once_to_the_bit(name: str, seconds: float) -> None:
    kind = front_end(name)
    waveform = np.random.default_rng(0).standard_normal(int(seconds * kind.sample_rate)).astype(np.float32)
    at_once = [
        AmplitudeToDB("power", DYNAMIC_RANGE_DB)(
            MelSpectrogram(
                kind.sample_rate,
                kind.n_fft,
                window,
                kind.hop_length,
                n_mels=kind.n_mels,
                mel_scale="slaney",
                norm="slaney",
                pad_mode="constant",
            )(torch.from_numpy(waveform))
        )
        for window in kind.windows
    ]
    assert torch.equal(log_mel(waveform, kind), torch.stack(at_once))
