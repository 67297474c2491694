"""Decoding is right for odd audio, and every bad file has a reason."""

import hashlib
import os
import pickle
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import soundfile
import soxr

from genre_core.audio.decode import (
    HEARD_RATE,
    LOUDEST,
    SILENCE_PEAK,
    BadAudio,
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
def test_odd_audio_decodes_to_the_sine_that_was_written(
    tmp_path: Path, name: str, form: str, subtype: str, rate: int, channels: int, error: float
) -> None:
    levels = np.linspace(0.2, 0.8, channels)  # a wrong average of the channels shows as a wrong level
    path = written(
        tmp_path / name, np.outer(sine(1.0, rate, level=1.0), levels), rate, format=form, subtype=subtype
    )

    wave = read(path, RATE)
    facts = inspect(path)

    assert wave.dtype == np.float32
    assert abs(len(wave) - RATE) <= (RATE // 20 if "adpcm" in name else 1)  # ADPCM is padded to its blocks
    middle = slice(RATE // 4, 3 * RATE // 4)
    assert np.abs(wave[middle] - sine(1.0, RATE, level=levels.mean())[middle]).max() < error
    assert (facts.sample_rate, facts.channels) == (rate, channels)
    assert facts.seconds == pytest.approx(1.0, abs=0.05 if "adpcm" in name else 1e-3)


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

# what is wrong, the file in a folder, the text of the reason
BAD: list[tuple[str, Callable[[Path], Path], str]] = [
    ("no bytes", lambda d: filled(d / "a.wav", b""), "empty: 0 bytes"),
    (
        "wav cut in its header",
        lambda d: cut(written(d / "a.wav", TONE), 40),
        "unreadable: WAV, cut off .* 40 b",
    ),
    ("flac cut in its header", lambda d: cut(written(d / "a.flac", TONE), 40), "unreadable: FLAC, cut off"),
    (
        "flac cut in the middle",
        lambda d: cut(written(d / "a.flac", TONE), 9_000),
        r"unreadable: damaged at 0\.\d\d s of 1\.00 s",
    ),
    (
        "flac overwritten",
        lambda d: patched(written(d / "a.flac", TONE), 9_000, b"\xff" * 500),
        r"unreadable: damaged at 0\.\d\d s of 1\.00 s: .*sync",
    ),
    (
        "ogg cut in its header",
        lambda d: cut(written(d / "a.ogg", TONE), 40),
        "unreadable: Ogg, cut off before",
    ),
    (
        "ogg cut in its tables",
        lambda d: cut(written(d / "a.ogg", TONE), 2_000),
        "unreadable: Ogg, cut off befo",
    ),
    ("ogg cut before its first samples", lambda d: cut(written(d / "a.ogg", TONE), 3_500), "empty"),
    ("opus cut", lambda d: cut(written(d / "a.opus", TONE, 48_000, **OPUS), 400), "unreadable: Ogg, cut off"),
    (
        "mp3 cut in its first frame",
        lambda d: cut(written(d / "a.mp3", TONE), 40),
        "unreadable: no MPEG audio",
    ),
    ("mp3 of zeros", lambda d: filled(d / "a.mp3", bytes(9_000)), "unreadable: nothing but zeros"),
    ("noise named mp3", lambda d: filled(d / "a.mp3", NOISE), "unreadable: no MPEG audio in it"),
    (
        "text named wav",
        lambda d: filled(d / "a.wav", b"404 Not Found\n" * 9),
        "unreadable: text and not audio, which begins with '404 Not Found",
    ),
    (
        "a web page named mp3",
        lambda d: filled(d / "a.mp3", b"<html>" * 99),
        "unreadable: a web page",
    ),
    ("m4a", lambda d: filled(d / "a.m4a", b"\0\0\0 ftypM4A " + NOISE), "unreadable: MP4 or M4A .*, cut off"),
    ("wma", lambda d: filled(d / "a.wma", b"0&\xb2u\x8ef\xcf\x11" + NOISE), "unreadable: WMA"),
    ("text named au", lambda d: filled(d / "a.au", b"<html>" * 999), "unreadable: a web page"),
    ("noise named snd", lambda d: filled(d / "a.snd", NOISE), "unreadable: Format not recognised."),
    ("headerless", lambda d: filled(d / "a.raw", NOISE), "unreadable: samplerate must be specified"),
    ("rate of 1 Hz", lambda d: written(d / "a.wav", TONE, 1), "unreadable: a sample rate of 1 Hz"),
    ("a folder", lambda d: made(d / "a.wav", Path.mkdir), "unreadable: a folder, not a file"),
    ("a pipe", lambda d: made(d / "a.wav", os.mkfifo), "unreadable: not a regular file"),
    ("a device", lambda d: linked(d / "a.wav", Path(os.devnull)), "unreadable: not a regular file"),
    ("endless zeros", lambda d: linked(d / "a.wav", Path("/dev/zero")), "unreadable: not a regular file"),
    ("a broken link", lambda d: linked(d / "a.wav", d / "gone"), "unreadable: No such file or directory"),
    ("a link to itself", lambda d: linked(d / "a.wav", d / "a.wav"), "unreadable: Too many levels of symb"),
    ("a vanished file", lambda d: d / "gone.wav", "unreadable: No such file or directory"),
    ("a file as a folder", lambda d: written(d / "a.wav", TONE) / "b.wav", "unreadable: Not a directory"),
    ("a name too long", lambda d: d / ("a" * 300 + ".wav"), "unreadable: File name too long"),
    ("name not unicode", lambda d: filled(d / os.fsdecode(b"\xff.wav"), NOISE), "unreadable: .*can't encode"),
    ("a zero byte in the name", lambda d: d / "a\0.wav", "unreadable: embedded null byte"),
    ("half a character in the name", lambda d: d / "\ud800.wav", "unreadable: .*can't encode"),
    ("wav of no samples", lambda d: written(d / "a.wav", TONE[:0]), "empty"),
    ("ogg of no samples", lambda d: written(d / "a.ogg", TONE[:0]), "empty"),
    (
        "a sample that is no number",
        lambda d: written(d / "a.wav", TONE * np.nan, subtype="FLOAT"),
        "not-a-number",
    ),
    (
        "one infinite sample",
        lambda d: written(d / "a.wav", np.append(TONE, -np.inf), subtype="FLOAT"),
        "not-a-num",
    ),
    (
        "too large for float32",
        lambda d: written(d / "a.wav", TONE * 1e300, subtype="DOUBLE"),
        "not-a-number sam",
    ),
    (
        "too large for a mel",
        lambda d: written(d / "a.wav", np.append(TONE, 1e30), subtype="FLOAT"),
        "impossibly loud: first within 22051 frames of frame 0",
    ),
    ("digital silence", lambda d: written(d / "a.flac", 0 * TONE), "silent: nothing above -80 dBFS"),
    (
        "noise floor",
        lambda d: written(d / "a.wav", TONE * 1e-4, subtype="FLOAT"),
        "silent: nothing above -80",
    ),
]


@pytest.mark.parametrize(("make", "words"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_bad_file_has_a_reason_on_one_line(
    tmp_path: Path, make: Callable[[Path], Path], words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = make(tmp_path)

    with pytest.raises(BadAudio, match=f"^{words}") as caught:
        inspect(path)
    assert capfd.readouterr() == ("", "")

    assert "\n" not in str(caught.value)
    assert str(caught.value).partition(":")[0] in set(Reason)
    assert str(tmp_path) not in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    if caught.value.reason is not Reason.SILENT:  # silence is of no use in training, yet it is audio
        with pytest.raises(BadAudio, match=f"^{words}"):
            read(path, RATE)


def test_a_file_without_permission_to_read_has_a_reason(tmp_path: Path) -> None:
    path = written(tmp_path / "a.wav", TONE)
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65_534)  # root may read anything: be nobody for a moment
    try:
        with pytest.raises(BadAudio, match=r"^unreadable: Permission denied$"):
            inspect(path)
    finally:
        os.seteuid(user)


@pytest.mark.parametrize(("level", "silent"), [(SILENCE_PEAK * 1.01, False), (SILENCE_PEAK * 0.99, True)])
def test_silence_begins_at_its_threshold(tmp_path: Path, level: float, silent: bool) -> None:
    samples = np.tile([level, 0.0], RATE // 2)
    path = written(tmp_path / "a.wav", samples, subtype="FLOAT")
    if silent:
        with pytest.raises(BadAudio, match="silent"):
            inspect(path)
        assert read(path, RATE) == pytest.approx(samples, rel=1e-6)
    else:
        assert inspect(path).seconds == 1.0


def both(*channels: np.ndarray) -> np.ndarray:
    return np.stack(channels, axis=1)


INAUDIBLE: list[tuple[str, np.ndarray, int, str]] = [
    ("opposite phase", both(TONE, -TONE), RATE, "cancel each other .* -6.0 dBFS"),
    ("three that cancel", both(TONE, -TONE / 2, -TONE / 2), RATE, "cancel each other"),
    ("a constant", np.full(RATE, 0.3), RATE, "constant offset of 0.3"),
    ("a constant, resampled", np.full(48_000, 0.3), 48_000, "constant offset of 0.3"),
    ("ultrasound", sine(1.0, 96_000, 30_000) * np.hanning(96_000), 96_000, "nothing below 11025 Hz"),
]


@pytest.mark.parametrize(
    ("samples", "rate", "words"), [c[1:] for c in INAUDIBLE], ids=[c[0] for c in INAUDIBLE]
)
def test_what_training_would_not_hear_is_silent(
    tmp_path: Path, samples: np.ndarray, rate: int, words: str
) -> None:
    path = written(tmp_path / "a.wav", samples, rate, subtype="FLOAT")
    with pytest.raises(BadAudio, match=f"^silent: .*{words}"):
        inspect(path)
    with pytest.raises(BadAudio, match=f"^silent: .*{words}"):
        read(path, RATE, audible=True)


def test_stereo_that_cancels_in_part_is_good(tmp_path: Path) -> None:
    assert inspect(written(tmp_path / "a.wav", both(TONE, -0.9 * TONE))).warnings == ()


NOISY = np.random.default_rng(2).normal(scale=0.1, size=RATE)
LEVELS: list[tuple[str, np.ndarray, str, str]] = [
    ("clipped", np.clip(4 * TONE, -1, 1), "PCM_16", "clipped: 6"),
    ("both channels clipped", both(*2 * [np.clip(4 * TONE, -1, 1)]), "PCM_16", "clipped: 6"),
    ("an offset", 0.2 * TONE + 0.3, "PCM_16", "DC offset: .* 0.30 "),
    ("quiet", 0.002 * TONE, "PCM_24", "quiet: it peaks at -60.0 dBFS"),
    ("above full scale", 20 * TONE, "FLOAT", r"level: it peaks at \+20.0 dBFS"),
    ("16-bit integers", 32_767 * 2 * TONE, "FLOAT", "integers stored as floats: .* 32767,.* by 32768"),
    ("24-bit integers", 2**23 * TONE, "FLOAT", "integers stored as floats: .* by 8388608"),
]


@pytest.mark.parametrize(("samples", "subtype", "words"), [c[1:] for c in LEVELS], ids=[c[0] for c in LEVELS])
def test_an_unsound_level_is_a_warning(tmp_path: Path, samples: np.ndarray, subtype: str, words: str) -> None:
    (warning,) = inspect(written(tmp_path / "a.wav", samples, subtype=subtype)).warnings
    assert re.match(words, warning)


@pytest.mark.parametrize("samples", [TONE, 1.8 * TONE, NOISY, 0.02 * TONE, both(TONE, NOISY), TONE + 0.05])
def test_a_sound_level_has_no_warning(tmp_path: Path, samples: np.ndarray) -> None:
    assert inspect(written(tmp_path / "a.flac", samples)).warnings == ()


def test_what_is_clipped_at_another_rate_is_clipped(tmp_path: Path) -> None:
    assert inspect(written(tmp_path / "a.wav", np.clip(4 * sine(1.0, 48_000), -1, 1), 48_000)).warnings


@pytest.mark.parametrize("scale", [2**15, 2**23, 2**31])
def test_integers_kept_as_floats_are_heard_as_the_sound_that_they_are(tmp_path: Path, scale: int) -> None:
    sound = written(tmp_path / "sound.wav", 0.5 * TONE, 44_100, subtype="FLOAT")
    scaled = written(tmp_path / "scaled.wav", 0.5 * TONE * scale, 44_100, subtype="FLOAT")
    facts = inspect(scaled)
    np.testing.assert_array_equal(read(scaled, RATE, content=facts.content), read(sound, RATE))
    assert inspect(sound).content != facts.content
    assert facts.content != hashlib.sha256(b"44100 Hz, 1 channels" + decoded_bytes(scaled)).hexdigest()


def decoded_bytes(path: Path) -> bytes:
    return bytes(soundfile.read(path, dtype="float32")[0].data)


def test_the_content_is_what_earlier_versions_found(tmp_path: Path) -> None:
    path = written(tmp_path / "a.flac", TONE)
    expected = hashlib.sha256(f"{RATE} Hz, 1 channels".encode() + decoded_bytes(path)).hexdigest()
    assert inspect(path).content == expected


def test_what_is_judged_is_at_the_rate_of_every_front_end() -> None:
    assert {setting.sample_rate for setting in FRONT_ENDS.values()} == {HEARD_RATE}


def test_integers_kept_as_floats_are_read_and_their_mel_is_finite(tmp_path: Path) -> None:
    path = written(tmp_path / "a.wav", np.where(TONE < 0, -LOUDEST, LOUDEST), subtype="FLOAT")
    assert inspect(path).seconds == 1.0
    for setting in ("mel64", "mel128x3"):
        assert log_mel(read(path, RATE), front_end(setting)).isfinite().all()


def test_a_wav_cut_short_is_used_as_far_as_it_goes(tmp_path: Path) -> None:
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
"""Bytes by which the most memory that a process ever held grows."""


def test_an_hour_is_decoded_in_bounded_memory(tmp_path: Path) -> None:
    minute = np.zeros((60 * 8_000, 2), np.int16)
    minute[::500] = 9_000
    written(tmp_path / "short.flac", minute, 8_000)
    with soundfile.SoundFile(tmp_path / "hour.flac", "w", 8_000, 2) as file:
        for _ in range(60):
            file.write(minute)
    told = subprocess.run(
        [sys.executable, "-c", GROWTH, tmp_path / "hour.flac"], capture_output=True, text=True, check=True
    )
    seconds, inspected, read_, result = map(float, told.stdout.split())
    assert seconds == 3600
    assert result == 3600 * 4_000 * 4
    assert inspected < 16 * 2**20  # 230 MB of decoded channels are not held
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


@pytest.mark.skipif(
    not SOUNDTRACKS.is_dir(), reason="the soundtracks, real music, are not beside the project"
)
@pytest.mark.filterwarnings("ignore:'.*' is deprecated and slated:DeprecationWarning:.*audioread")
@pytest.mark.parametrize("suffix", ["ogg", "mp3", "flac", "wav"])
def test_real_music_reads_as_librosa_reads_it(suffix: str) -> None:
    path = min(SOUNDTRACKS.rglob(f"*.{suffix}"))
    reference, _ = librosa.load(path, sr=16_000, mono=True)
    np.testing.assert_allclose(read(path, 16_000), reference, atol=1e-5)
    assert inspect(path).seconds == pytest.approx(librosa.get_duration(y=reference, sr=16_000), abs=1e-3)
