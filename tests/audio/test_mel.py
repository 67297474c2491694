"""Log-mel spectrograms compared with librosa's, on noise, tones and silence."""

import subprocess
import sys
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused
from torchaudio.transforms import AmplitudeToDB, MelSpectrogram

from genre_core.audio.decode import SILENCE_PEAK, read
from genre_core.audio.mel import (
    DYNAMIC_RANGE_DB,
    FRONT_ENDS,
    LEVELS,
    SAMPLE_RATE,
    FrontEnd,
    front_end,
    log_mel,
    segment_starts,
    stored_mel,
)
from genre_core.corpus.tracks import AUDIO_NAME
from genre_core.errors import ErrorCode

TOLERANCE_DB = 0.1
FLOAT16_STEP_DB = 0.0625
"""Distance between neighbouring float16 values from 64 to 128."""
SOUNDTRACKS = Path(__file__).parents[3] / "shared" / "data" / "soundtracks"


def _sounds() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    seconds = np.arange(4 * SAMPLE_RATE) / SAMPLE_RATE
    return {
        "fading noise": rng.standard_normal(len(seconds)) * 0.1 * seconds,
        "a chord": sum(np.sin(2 * np.pi * f * seconds) for f in (220, 277.2, 329.6)) / 4,
        "a click": np.eye(1, len(seconds), 1000)[0],
    }


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("sound", _sounds())
@pytest.mark.parametrize("name", FRONT_ENDS)
def test_the_stored_mel_equals_that_of_librosa(name: str, sound: str, level: str) -> None:
    waveform = _sounds()[sound].astype(np.float32)
    setting = front_end(name, level=level)
    stored = log_mel(waveform, setting).half().numpy()
    reference_power = np.max if level == "track" else 1.0
    for channel, window in enumerate(setting.windows):
        power = librosa.feature.melspectrogram(
            y=waveform,
            sr=setting.sample_rate,
            n_fft=setting.n_fft,
            win_length=window,
            hop_length=setting.hop_length,
            n_mels=setting.n_mels,
        )
        reference = librosa.power_to_db(power, ref=reference_power, top_db=80.0)
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
def test_segments_do_not_overlap_and_are_spread_over_the_track(
    frames: int, segment: int, limit: int, starts: list[int]
) -> None:
    assert segment_starts(frames, segment, limit) == starts


def test_an_unknown_front_end_is_refused_with_the_known_ones() -> None:
    with refused(ErrorCode.UNKNOWN_FRONT_END, *FRONT_ENDS, "front_end='mel256'"):
        front_end("mel256")


def _concatenated_clips(folder: Path) -> np.ndarray:
    """At least half a minute of audio from a folder's clips."""
    if not folder.exists():
        pytest.skip("needs real music in ../shared/data")
    clips = sorted(path for path in folder.rglob("*") if AUDIO_NAME.search(path.name))
    return np.concatenate([read(path, SAMPLE_RATE) for path in clips[:: len(clips) // 11]])


@pytest.mark.parametrize("sound", ["noise", "generated", "real", 1, 1024, 1025, 1026, 2048, 2049])
@pytest.mark.parametrize("name", FRONT_ENDS)
def test_a_mel_computed_in_blocks_is_bit_identical_to_one_computed_at_once(
    name: str, sound: str | int, music: Path
) -> None:
    """Tested on music, on noise, and on noise of a given number of frames, with both kinds of level."""
    kind = front_end(name, level="absolute")
    if sound in ("generated", "real"):
        waveform = _concatenated_clips(music if sound == "generated" else SOUNDTRACKS)
    else:
        samples = 70 * SAMPLE_RATE if sound == "noise" else int(sound) * kind.hop_length - 1
        waveform = np.random.default_rng(0).standard_normal(samples).astype(np.float32)
    powers = [
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
        for window in kind.windows
    ]
    to_db = AmplitudeToDB("power", DYNAMIC_RANGE_DB)
    assert torch.equal(log_mel(waveform, kind), torch.stack([to_db(power) for power in powers]))
    relative = torch.stack([to_db(power / power.max()) for power in powers])
    assert torch.equal(log_mel(waveform, front_end(name)), relative)


gains = st.floats(-60, 90, allow_subnormal=False)
"""dB: from the quietest audio that is not silence to beyond the range of 16-bit integers."""


@settings(deadline=None, max_examples=30, derandomize=True)
@given(gain=gains, name=st.sampled_from(sorted(FRONT_ENDS)), sound=st.sampled_from(sorted(_sounds())))
def test_a_gain_changes_a_mel_by_no_more_than_the_rounding_to_float16(
    gain: float, name: str, sound: str
) -> None:
    waveform = _sounds()[sound].astype(np.float32)
    mel, gained = (
        stored_mel(samples, front_end(name)).astype(np.float32)
        for samples in (waveform, waveform * np.float32(10 ** (gain / 20)))
    )
    assert np.abs(gained - mel).max() <= FLOAT16_STEP_DB
    assert (gained != mel).mean() < 0.01, "only values halfway between two float16 may be rounded differently"


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_samples_in_the_range_of_16_bit_integers_give_a_bit_identical_mel(name: str) -> None:
    waveform = _sounds()["fading noise"].astype(np.float32)
    mel = stored_mel(waveform, front_end(name))
    assert np.array_equal(stored_mel(waveform * 2**15, front_end(name)), mel)
    absolute = front_end(name, level="absolute")
    assert not np.array_equal(stored_mel(waveform * 2**15, absolute), stored_mel(waveform, absolute))


@pytest.mark.parametrize("loudest", [0.0, 1e-42])
def test_a_waveform_without_power_is_at_the_floor(loudest: float) -> None:
    waveform = _sounds()["a chord"].astype(np.float32) * np.float32(loudest)
    assert (stored_mel(waveform, front_end("mel64")) == -DYNAMIC_RANGE_DB).all()


def test_a_barely_audible_waveform_has_the_mel_of_a_loud_one() -> None:
    waveform = _sounds()["fading noise"].astype(np.float32)
    quiet = waveform / np.abs(waveform).max() * np.float32(1.01 * SILENCE_PEAK)
    mel, of_quiet = (stored_mel(samples, front_end("mel64")).astype(float) for samples in (waveform, quiet))
    np.testing.assert_allclose(of_quiet, mel, atol=FLOAT16_STEP_DB)
    assert of_quiet.max() == 0


def test_a_front_end_without_a_level_predates_the_setting_and_is_absolute() -> None:
    assert FrontEnd(name="mel64", n_mels=64, hop_length=1024, windows=(2048,)).level == "absolute"


def test_an_unknown_level_is_refused_with_the_known_ones() -> None:
    with refused(ErrorCode.UNKNOWN_LEVEL, *LEVELS, "level='loudness'"):
        front_end("mel64", level="loudness")


def test_the_mel_of_ten_minutes_is_computed_in_little_memory() -> None:
    """The spectra of all frames would take 400 MB, the mel takes 13 MB."""
    script = """
import resource
import numpy as np
from genre_core.audio.mel import front_end, log_mel
log_mel(np.zeros(22_050, np.float32), front_end("mel128"))
waveform = np.zeros(600 * 22_050, np.float32) + 0.1
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
log_mel(waveform, front_end("mel128"))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    grown = int(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout)
    assert grown < 150_000, f"{grown} KiB"
