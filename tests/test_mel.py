"""The front end against librosa's, on noise, tones and silence."""

import librosa
import numpy as np
import pytest

from genre_core.errors import InputError
from genre_core.mel import FRONT_ENDS, SAMPLE_RATE, front_end, log_mel, segment_starts

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
