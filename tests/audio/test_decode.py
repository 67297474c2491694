"""Decoding of unusual audio files, and reasons for bad ones."""

import errno
import hashlib
import importlib.util
import os
import pickle
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import soundfile
import soxr

from genre_core.audio.decode import (
    ANALYSIS_RATE,
    MAX_AMPLITUDE,
    SILENCE_PEAK,
    BadAudio,
    Fault,
    Reason,
    Samples,
    inspect,
    read,
)
from genre_core.audio.mel import FRONT_ENDS, front_end, log_mel

SOUNDTRACKS = Path(__file__).parents[3] / "shared/data/soundtracks"
RATE = 22_050


def sine(seconds: float, rate: int, frequency: float = 440.0, level: float = 0.5) -> np.ndarray:
    return level * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def written(path: Path, samples: np.ndarray, rate: int = RATE, **options: str) -> Path:
    soundfile.write(path, samples, rate, **options)
    return path


def decoded_at_once(path: Path, rate: int) -> Samples:
    samples, native = soundfile.read(path, dtype="float32", always_2d=True)
    decoded: Samples = soxr.resample(samples.mean(axis=1), native, rate)
    return decoded


# name, libsndfile format, subtype, rate in Hz, channels, largest error of a sample
GOOD = [
    ("8-bit.wav", "WAV", "PCM_U8", 22_050, 1, 0.01),
    ("signed-8-bit.aiff", "AIFF", "PCM_S8", 22_050, 1, 0.01),
    ("16-bit.wav", "WAV", "PCM_16", 44_100, 2, 1e-3),
    ("24-bit.wav", "WAV", "PCM_24", 48_000, 2, 1e-3),
    ("32-bit.wav", "WAV", "PCM_32", 44_100, 1, 1e-3),
    ("float.wav", "WAV", "FLOAT", 44_100, 1, 1e-3),
    ("double.wav", "WAV", "DOUBLE", 44_100, 1, 1e-3),
    ("u-law.wav", "WAV", "ULAW", 22_050, 1, 0.03),
    ("a-law.au", "AU", "ALAW", 22_050, 1, 0.03),
    ("adpcm.wav", "WAV", "IMA_ADPCM", 22_050, 1, 0.03),
    ("extensible.wav", "WAVEX", "PCM_24", 44_100, 6, 1e-3),
    ("big.w64", "W64", "PCM_16", 44_100, 1, 1e-3),
    ("core.caf", "CAF", "PCM_16", 44_100, 1, 1e-3),
    ("telephone.wav", "WAV", "PCM_16", 8_000, 1, 1e-3),
    ("eleven.wav", "WAV", "PCM_16", 11_025, 1, 1e-3),
    ("odd-rate.wav", "WAV", "PCM_16", 37_777, 1, 1e-3),
    ("studio.wav", "WAV", "PCM_24", 96_000, 2, 1e-3),
    ("highest.flac", "FLAC", "PCM_24", 192_000, 2, 1e-3),
    ("three.wav", "WAV", "PCM_16", 44_100, 3, 1e-3),
    ("four.ogg", "OGG", "VORBIS", 44_100, 4, 0.02),
    ("five.flac", "FLAC", "PCM_16", 44_100, 5, 1e-3),
    ("seven.aiff", "AIFF", "PCM_24", 44_100, 7, 1e-3),
    ("eight.wav", "WAV", "FLOAT", 44_100, 8, 1e-3),
    ("mp3.mp3", "MP3", "MPEG_LAYER_III", 44_100, 2, 0.02),
    ("mp3-in.wav", "MP3", "MPEG_LAYER_III", 44_100, 1, 0.02),
    ("vorbis.ogg", "OGG", "VORBIS", 44_100, 2, 0.02),
    ("opus.opus", "OGG", "OPUS", 48_000, 2, 0.03),
    ("SHOUTING.FLAC", "FLAC", "PCM_16", 44_100, 1, 1e-3),
    ("Änglar - 音楽 🎵.flac", "FLAC", "PCM_16", 44_100, 1, 1e-3),
    ("two\nlines.wav", "WAV", "PCM_16", 44_100, 1, 1e-3),
    ("spaces , 'quotes' \"&\" %41.ogg", "OGG", "VORBIS", 44_100, 1, 0.02),
]


@pytest.mark.parametrize(
    ("name", "form", "subtype", "rate", "channels", "error"), GOOD, ids=[c[0] for c in GOOD]
)
def test_unusual_audio_decodes_to_the_sine_that_was_written(
    tmp_path: Path, name: str, form: str, subtype: str, rate: int, channels: int, error: float
) -> None:
    levels = np.linspace(0.2, 0.8, channels)  # so that a wrong mean of the channels has a wrong level
    path = written(
        tmp_path / name, np.outer(sine(1.0, rate, level=1.0), levels), rate, format=form, subtype=subtype
    )

    wave = read(path, RATE)
    info = inspect(path)

    assert wave.dtype == np.float32
    assert abs(len(wave) - RATE) <= (RATE // 20 if "adpcm" in name else 1)  # ADPCM pads to whole blocks
    middle = slice(RATE // 4, 3 * RATE // 4)
    assert np.abs(wave[middle] - sine(1.0, RATE, level=levels.mean())[middle]).max() < error
    assert (info.sample_rate, info.channels) == (rate, channels)
    assert info.seconds == pytest.approx(1.0, abs=0.05 if "adpcm" in name else 1e-3)


def cut(path: Path, size: int) -> Path:
    path.write_bytes(path.read_bytes()[:size])
    return path


def filled(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def linked(path: Path, target: Path) -> Path:
    path.symlink_to(target)
    return path


def made(path: Path, make: Callable[[Path], None]) -> Path:
    make(path)
    return path


def patched(path: Path, offset: int, content: bytes) -> Path:
    data = bytearray(path.read_bytes())
    data[offset : offset + len(content)] = content
    return filled(path, bytes(data))


TONE = sine(1.0, RATE)
NOISE = np.random.default_rng(0).bytes(20_000)
OPUS = {"format": "OGG", "subtype": "OPUS"}


@dataclass(frozen=True)
class Bad:
    """A bad file, and what the exception must say about it."""

    make: Callable[[Path], Path]
    """Creates it in a folder."""
    reason: Reason
    fault: Fault | None = None
    values: tuple[str, ...] = ()
    """What the message must contain: names, numbers, the way out."""


def unreadable(fault: Fault, make: Callable[[Path], Path], *values: str) -> Bad:
    return Bad(make, Reason.UNREADABLE, fault, values)


BAD = {
    "no bytes": Bad(lambda d: filled(d / "a.wav", b""), Reason.EMPTY, values=("0 bytes",)),
    "wav cut in its header": unreadable(
        Fault.CUT_OFF, lambda d: cut(written(d / "a.wav", TONE), 40), "WAV", "40 bytes"
    ),
    "flac cut in its header": unreadable(
        Fault.CUT_OFF, lambda d: cut(written(d / "a.flac", TONE), 40), "FLAC", "40 bytes"
    ),
    "flac cut in the middle": unreadable(
        Fault.DAMAGED, lambda d: cut(written(d / "a.flac", TONE), 9_000), " 0.", " of 1.00 s"
    ),
    "flac overwritten": unreadable(
        Fault.DAMAGED,
        lambda d: patched(written(d / "a.flac", TONE), 9_000, b"\xff" * 500),
        " 0.",
        " of 1.00 s",
    ),
    "ogg cut in its header": unreadable(
        Fault.CUT_OFF, lambda d: cut(written(d / "a.ogg", TONE), 40), "Ogg", "40 bytes"
    ),
    "ogg cut in its tables": unreadable(
        Fault.CUT_OFF, lambda d: cut(written(d / "a.ogg", TONE), 2_000), "Ogg", "2000 bytes"
    ),
    "ogg cut before its first samples": Bad(lambda d: cut(written(d / "a.ogg", TONE), 3_500), Reason.EMPTY),
    "opus cut": unreadable(
        Fault.CUT_OFF, lambda d: cut(written(d / "a.opus", TONE, 48_000, **OPUS), 400), "Ogg", "400 bytes"
    ),
    "mp3 cut in its first frame": unreadable(
        Fault.UNKNOWN_FORMAT, lambda d: cut(written(d / "a.mp3", TONE), 40), "MPEG"
    ),
    "mp3 of zeros": unreadable(Fault.NOT_AUDIO, lambda d: filled(d / "a.mp3", bytes(9_000)), "zeros"),
    "noise named mp3": unreadable(Fault.UNKNOWN_FORMAT, lambda d: filled(d / "a.mp3", NOISE), "MPEG"),
    "text named wav": unreadable(
        Fault.NOT_AUDIO, lambda d: filled(d / "a.wav", b"404 Not Found\n" * 9), "text", "'404 Not Found"
    ),
    "a web page named mp3": unreadable(
        Fault.NOT_AUDIO, lambda d: filled(d / "a.mp3", b"<html>" * 99), "HTML", "download"
    ),
    "m4a": unreadable(
        Fault.CUT_OFF, lambda d: filled(d / "a.m4a", b"\0\0\0 ftypM4A " + NOISE), "M4A", "20012 bytes"
    ),
    "wma": unreadable(
        Fault.UNDECODABLE if importlib.util.find_spec("av") else Fault.PYAV_MISSING,
        lambda d: filled(d / "a.wma", b"0&\xb2u\x8ef\xcf\x11" + NOISE),
        "WMA",
    ),
    "text named au": unreadable(
        Fault.NOT_AUDIO, lambda d: filled(d / "a.au", b"<html>" * 999), "HTML", "download"
    ),
    "noise named snd": unreadable(Fault.UNKNOWN_FORMAT, lambda d: filled(d / "a.snd", NOISE)),
    "headerless": unreadable(Fault.UNKNOWN_FORMAT, lambda d: filled(d / "a.raw", NOISE)),
    "rate of 1 Hz": unreadable(Fault.SAMPLE_RATE, lambda d: written(d / "a.wav", TONE, 1), "1 Hz"),
    "a folder": unreadable(Fault.NOT_A_FILE, lambda d: made(d / "a.wav", Path.mkdir), "folder"),
    "a pipe": unreadable(Fault.NOT_A_FILE, lambda d: made(d / "a.wav", os.mkfifo)),
    "a device": unreadable(Fault.NOT_A_FILE, lambda d: linked(d / "a.wav", Path(os.devnull))),
    "endless zeros": unreadable(Fault.NOT_A_FILE, lambda d: linked(d / "a.wav", Path("/dev/zero"))),
    "a broken link": unreadable(
        Fault.NOT_ACCESSIBLE, lambda d: linked(d / "a.wav", d / "gone"), os.strerror(errno.ENOENT)
    ),
    "a link to itself": unreadable(
        Fault.NOT_ACCESSIBLE, lambda d: linked(d / "a.wav", d / "a.wav"), os.strerror(errno.ELOOP)
    ),
    "a vanished file": unreadable(Fault.NOT_ACCESSIBLE, lambda d: d / "gone.wav", os.strerror(errno.ENOENT)),
    "a file as a folder": unreadable(
        Fault.NOT_ACCESSIBLE, lambda d: written(d / "a.wav", TONE) / "b.wav", os.strerror(errno.ENOTDIR)
    ),
    "a name too long": unreadable(
        Fault.NOT_ACCESSIBLE, lambda d: d / ("a" * 300 + ".wav"), os.strerror(errno.ENAMETOOLONG)
    ),
    "name not unicode": unreadable(
        Fault.UNKNOWN_FORMAT, lambda d: filled(d / os.fsdecode(b"\xff.wav"), NOISE), "\\udcff"
    ),
    "a zero byte in the name": unreadable(Fault.INVALID_NAME, lambda d: d / "a\0.wav", "null byte"),
    "half a character in the name": unreadable(Fault.INVALID_NAME, lambda d: d / "\ud800.wav", "\\ud800"),
    "wav of no samples": Bad(lambda d: written(d / "a.wav", TONE[:0]), Reason.EMPTY),
    "ogg of no samples": Bad(lambda d: written(d / "a.ogg", TONE[:0]), Reason.EMPTY),
    "a sample that is no number": Bad(
        lambda d: written(d / "a.wav", TONE * np.nan, subtype="FLOAT"), Reason.NOT_FINITE
    ),
    "one infinite sample": Bad(
        lambda d: written(d / "a.wav", np.append(TONE, -np.inf), subtype="FLOAT"), Reason.NOT_FINITE
    ),
    "too large for float32": Bad(
        lambda d: written(d / "a.wav", TONE * 1e300, subtype="DOUBLE"), Reason.NOT_FINITE
    ),
    "too large for a mel": Bad(
        lambda d: written(d / "a.wav", np.append(TONE, 1e30), subtype="FLOAT"),
        Reason.TOO_LOUD,
        values=("22051 frames", "frame 0"),
    ),
    "digital silence": Bad(
        lambda d: written(d / "a.flac", 0 * TONE), Reason.SILENT, Fault.TOO_QUIET, ("-80 dBFS",)
    ),
    "noise floor": Bad(
        lambda d: written(d / "a.wav", TONE * 1e-4, subtype="FLOAT"),
        Reason.SILENT,
        Fault.TOO_QUIET,
        ("-80 dBFS",),
    ),
}


def is_expected(error: BadAudio, bad: Bad) -> bool:
    return (error.reason, error.fault) == (bad.reason, bad.fault) and all(
        value in str(error) for value in bad.values
    )


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_has_a_reason_on_one_line(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    bad = BAD[name]
    path = bad.make(tmp_path)

    with pytest.raises(BadAudio) as caught:
        inspect(path)
    assert capfd.readouterr() == ("", "")

    assert is_expected(caught.value, bad), (caught.value, caught.value.fault)
    assert "\n" not in str(caught.value)
    assert str(caught.value).partition(":")[0] == bad.reason
    assert str(tmp_path) not in str(caught.value)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.reason, copy.fault) == (str(caught.value), bad.reason, bad.fault)
    if bad.reason is not Reason.SILENT:  # silence is useless for training, but it is audio
        with pytest.raises(BadAudio) as caught:
            read(path, RATE)
        assert is_expected(caught.value, bad)


def test_a_file_without_permission_to_read_has_a_reason(tmp_path: Path) -> None:
    path = written(tmp_path / "a.wav", TONE)
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65_534)  # root may read anything
    try:
        with pytest.raises(BadAudio) as caught:
            inspect(path)
    finally:
        os.seteuid(user)
    assert (caught.value.reason, caught.value.fault) == (Reason.UNREADABLE, Fault.NOT_ACCESSIBLE)
    assert caught.value.detail == os.strerror(errno.EACCES)


@pytest.mark.parametrize(("level", "silent"), [(SILENCE_PEAK * 1.01, False), (SILENCE_PEAK * 0.99, True)])
def test_silence_begins_at_its_threshold(tmp_path: Path, level: float, silent: bool) -> None:
    samples = np.tile([level, 0.0], RATE // 2)
    path = written(tmp_path / "a.wav", samples, subtype="FLOAT")
    if silent:
        with pytest.raises(BadAudio) as caught:
            inspect(path)
        assert caught.value.fault is Fault.TOO_QUIET
        assert read(path, RATE) == pytest.approx(samples, rel=1e-6)
    else:
        assert inspect(path).seconds == 1.0


def both(*channels: np.ndarray) -> np.ndarray:
    return np.stack(channels, axis=1)


# samples, sample rate, fault, values in the message
INAUDIBLE: dict[str, tuple[np.ndarray, int, Fault, tuple[str, ...]]] = {
    "opposite phase": (both(TONE, -TONE), RATE, Fault.CHANNELS_CANCEL, ("-6.0 dBFS", "invert")),
    "three that cancel": (both(TONE, -TONE / 2, -TONE / 2), RATE, Fault.CHANNELS_CANCEL, ()),
    "a constant": (np.full(RATE, 0.3), RATE, Fault.CONSTANT_OFFSET, ("0.3",)),
    "a constant, resampled": (np.full(48_000, 0.3), 48_000, Fault.CONSTANT_OFFSET, ("0.3",)),
    "ultrasound": (
        sine(1.0, 96_000, 30_000) * np.hanning(96_000),
        96_000,
        Fault.INAUDIBLE_FREQUENCIES,
        ("11025 Hz",),
    ),
}


@pytest.mark.parametrize("name", INAUDIBLE)
def test_audio_that_is_lost_in_the_mono_mix_is_silent(tmp_path: Path, name: str) -> None:
    samples, rate, fault, values = INAUDIBLE[name]
    path = written(tmp_path / "a.wav", samples, rate, subtype="FLOAT")
    expected = Bad(lambda _: path, Reason.SILENT, fault, values)
    with pytest.raises(BadAudio) as caught:
        inspect(path)
    assert is_expected(caught.value, expected)
    with pytest.raises(BadAudio) as caught:
        read(path, RATE, refuse_silence=True)
    assert is_expected(caught.value, expected)


def test_stereo_that_cancels_partly_is_good(tmp_path: Path) -> None:
    assert inspect(written(tmp_path / "a.wav", both(TONE, -0.9 * TONE))).warnings == ()


NOISY = np.random.default_rng(2).normal(scale=0.1, size=RATE)
# samples, subtype, kind of the warning, values in it
LEVELS: dict[str, tuple[np.ndarray, str, str, tuple[str, ...]]] = {
    "clipped": (np.clip(4 * TONE, -1, 1), "PCM_16", "clipped", ("6",)),
    "both channels clipped": (both(*2 * [np.clip(4 * TONE, -1, 1)]), "PCM_16", "clipped", ("6",)),
    "an offset": (0.2 * TONE + 0.3, "PCM_16", "DC offset", ("0.30",)),
    "quiet": (0.002 * TONE, "PCM_24", "quiet", ("-60.0 dBFS",)),
    "above full scale": (20 * TONE, "FLOAT", "level", ("+20.0 dBFS",)),
    "16-bit integers": (32_767 * 2 * TONE, "FLOAT", "integers stored as floats", ("32767", "32768")),
    "24-bit integers": (2**23 * TONE, "FLOAT", "integers stored as floats", ("8388608",)),
}


@pytest.mark.parametrize("name", LEVELS)
def test_a_level_problem_causes_a_warning(tmp_path: Path, name: str) -> None:
    samples, subtype, kind, values = LEVELS[name]
    (warning,) = inspect(written(tmp_path / "a.wav", samples, subtype=subtype)).warnings
    assert warning.partition(":")[0] == kind
    assert all(value in warning for value in values)


@pytest.mark.parametrize("samples", [TONE, 1.8 * TONE, NOISY, 0.02 * TONE, both(TONE, NOISY), TONE + 0.05])
def test_a_normal_level_causes_no_warning(tmp_path: Path, samples: np.ndarray) -> None:
    assert inspect(written(tmp_path / "a.flac", samples)).warnings == ()


def test_clipping_is_detected_after_resampling(tmp_path: Path) -> None:
    (warning,) = inspect(written(tmp_path / "a.wav", np.clip(4 * sine(1.0, 48_000), -1, 1), 48_000)).warnings
    assert warning.startswith("clipped:")


@pytest.mark.parametrize("scale", [2**15, 2**23, 2**31])
def test_integers_stored_as_floats_are_scaled_to_full_scale_1(tmp_path: Path, scale: int) -> None:
    sound = written(tmp_path / "sound.wav", 0.5 * TONE, 44_100, subtype="FLOAT")
    scaled = written(tmp_path / "scaled.wav", 0.5 * TONE * scale, 44_100, subtype="FLOAT")
    info = inspect(scaled)
    np.testing.assert_array_equal(read(scaled, RATE, content=info.content), read(sound, RATE))
    assert inspect(sound).content != info.content
    assert info.content != hashlib.sha256(b"44100 Hz, 1 channels" + decoded_bytes(scaled)).hexdigest()


def decoded_bytes(path: Path) -> bytes:
    return bytes(soundfile.read(path, dtype="float32")[0].data)


def test_the_content_hash_equals_that_of_earlier_versions(tmp_path: Path) -> None:
    path = written(tmp_path / "a.flac", TONE)
    expected = hashlib.sha256(f"{RATE} Hz, 1 channels".encode() + decoded_bytes(path)).hexdigest()
    assert inspect(path).content == expected


def test_levels_are_measured_at_the_sample_rate_of_every_front_end() -> None:
    assert {setting.sample_rate for setting in FRONT_ENDS.values()} == {ANALYSIS_RATE}


def test_the_mel_of_the_loudest_integers_stored_as_floats_is_finite(tmp_path: Path) -> None:
    path = written(tmp_path / "a.wav", np.where(TONE < 0, -MAX_AMPLITUDE, MAX_AMPLITUDE), subtype="FLOAT")
    assert inspect(path).seconds == 1.0
    for setting in ("mel64", "mel128x3"):
        assert log_mel(read(path, RATE), front_end(setting)).isfinite().all()


def test_a_truncated_wav_is_used_up_to_its_end(tmp_path: Path) -> None:
    path = cut(written(tmp_path / "a.wav", TONE), 44 + RATE)  # half of the 16-bit samples
    assert inspect(path).seconds == pytest.approx(0.5, abs=0.01)
    assert read(path, RATE) == pytest.approx(TONE[: RATE // 2], abs=1e-4)


def test_an_mp3_with_a_wrong_frame_count_is_read_to_its_end(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mp3", sine(2.0, 44_100), 44_100)
    header = path.read_bytes()
    count = max(header.find(b"Xing"), header.find(b"Info")) + 8
    patched(path, count, (100_000).to_bytes(4, "big"))
    assert soundfile.info(path).duration > 1000
    assert inspect(path).seconds == pytest.approx(2.0, abs=0.06)
    assert len(read(path, RATE)) == pytest.approx(2 * RATE, abs=0.06 * RATE)


def test_an_mp3_with_leading_junk_is_read(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path / "a.mp3", TONE)
    filled(path, bytes(1_000) + path.read_bytes())
    assert inspect(path).seconds == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg"])
@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_reading_in_blocks_equals_reading_at_once(tmp_path: Path, suffix: str, rate: int) -> None:
    noise = np.random.default_rng(1).normal(scale=0.1, size=(8 * 44_100, 2))
    path = written(tmp_path / f"a.{suffix}", noise, 44_100)
    np.testing.assert_array_equal(read(path, rate), decoded_at_once(path, rate))


def test_memory_holds_the_result_and_not_the_decoded_channels(tmp_path: Path) -> None:
    path = written(tmp_path / "a.wav", np.tile(sine(60.0, 16_000)[:, None], 8), 16_000)
    tracemalloc.start()
    wave = read(path, 8_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    decoded = 60 * 16_000 * 8 * 4
    assert wave.nbytes == decoded / 16
    assert peak < decoded / 4


GROWTH = """
import resource, sys
from pathlib import Path
from genre_core.audio import decode

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

path = Path(sys.argv[1])
decode.inspect(path.with_name("short.flac")), decode.read(path.with_name("short.flac"), 4_000)
before = peak()
seconds = decode.inspect(path).seconds
inspected = peak()
wave = decode.read(path, 4_000)
print(seconds, inspected - before, peak() - inspected, wave.nbytes)
"""
"""Prints by how many bytes the peak memory of the process grows."""


def test_an_hour_is_decoded_in_bounded_memory(tmp_path: Path) -> None:
    minute = np.zeros((60 * 8_000, 2), np.int16)
    minute[::500] = 9_000
    written(tmp_path / "short.flac", minute, 8_000)
    with soundfile.SoundFile(tmp_path / "hour.flac", "w", 8_000, 2) as file:
        for _ in range(60):
            file.write(minute)
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, tmp_path / "hour.flac"], capture_output=True, text=True, check=True
    )
    seconds, inspected, read_, result = map(float, done.stdout.split())
    assert seconds == 3600
    assert result == 3600 * 4_000 * 4
    assert inspected < 16 * 2**20  # not the 230 MB of decoded channels
    assert read_ < 2 * result + 16 * 2**20


SAME: list[tuple[str, dict[str, Any]]] = [
    ("a.wav", {}),
    ("a.flac", {}),
    ("a.aiff", {}),
    ("renamed.mp3", {"format": "WAV", "subtype": "FLOAT"}),
]


def test_the_same_samples_have_the_same_content_in_every_lossless_format(tmp_path: Path) -> None:
    samples = np.round(TONE * 2**15) / 2**15
    contents = {inspect(written(tmp_path / name, samples, **options)).content for name, options in SAME}
    assert len(contents) == 1


def test_other_samples_rates_and_channels_have_other_contents(tmp_path: Path) -> None:
    changed = TONE.copy()
    changed[-1] += 0.01
    variants = [(TONE, RATE), (changed, RATE), (TONE, 44_100), (TONE[:-1], RATE), (TONE.reshape(-1, 2), RATE)]
    contents = {
        inspect(written(tmp_path / f"{number}.wav", samples, rate)).content
        for number, (samples, rate) in enumerate(variants)
    }
    assert len(contents) == len(variants)


@pytest.mark.skipif(not SOUNDTRACKS.is_dir(), reason="needs real music in ../shared/data")
@pytest.mark.filterwarnings("ignore:'.*' is deprecated and slated:DeprecationWarning:.*audioread")
@pytest.mark.parametrize("suffix", ["ogg", "mp3", "flac", "wav"])
def test_real_music_reads_as_librosa_reads_it(suffix: str) -> None:
    path = min(SOUNDTRACKS.rglob(f"*.{suffix}"))
    reference, _ = librosa.load(path, sr=16_000, mono=True)
    np.testing.assert_allclose(read(path, 16_000), reference, atol=1e-5)
    assert inspect(path).seconds == pytest.approx(librosa.get_duration(y=reference, sr=16_000), abs=1e-3)
