"""Formats that libsndfile does not support: decoded with PyAV, and named with the extra to install without it."""

import re
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soxr
from encoded import ENCODED, encode

from genre_core.audio.decode import AudioInfo, BadAudio, Fault, Reason, Samples, inspect, read
from genre_core.corpus.audit import audit, reason_counts, track_warnings
from genre_core.corpus.tracks import read_corpus

av = pytest.importorskip("av", reason="PyAV, the extra av, is not installed")

RATE = 48_000
LEVELS = (0.2, 0.6)  # amplitudes of the two channels
FADED = np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE) * np.hanning(2 * RATE)
STEREO = np.outer(FADED, LEVELS)
MONO = FADED * np.mean(LEVELS)
DELAY = 4_096  # samples that an encoder may insert before the audio

each_format = pytest.mark.parametrize("name", ENCODED)


def encoded(folder: Path, name: str, samples: np.ndarray = STEREO, **options: str) -> Path:
    return encode(folder / name, samples, RATE, *ENCODED[name], **options)


def misfit(wave: Samples, expected: np.ndarray) -> float:
    """Largest difference from the expected wave, at the best delay that an encoder may cause."""
    padded = np.pad(expected, DELAY)
    coarse = 8 * int(np.argmax(np.correlate(padded[::8], wave[::8], "valid")))
    fits = (padded[lag : lag + len(wave)] for lag in range(max(0, coarse - 8), coarse + 9))
    return min(float(np.abs(wave - fit).max()) for fit in fits if len(fit) == len(wave))


@each_format
def test_an_encoded_file_decodes_to_its_original(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = encoded(tmp_path, name)
    info = inspect(path)
    assert (info.sample_rate, info.channels, info.warnings) == (RATE, 2, ())
    assert info.seconds == pytest.approx(2, abs=0.1)
    wave = read(path, RATE, content=info.content)
    assert wave.dtype == np.float32
    assert misfit(wave, MONO) < 0.02
    assert capfd.readouterr() == ("", "")


def test_a_mono_file_keeps_its_level(tmp_path: Path) -> None:
    wave = read(encoded(tmp_path, "alac.m4a", FADED), RATE)
    np.testing.assert_allclose(wave, FADED, atol=1e-4)


def test_audio_decoded_by_pyav_is_resampled_like_other_audio(tmp_path: Path) -> None:
    path = encoded(tmp_path, "alac.m4a")
    with av.open(path) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
    decoded = np.concatenate(frames, axis=1).T.astype(np.float32) / 2**15
    np.testing.assert_allclose(
        read(path, 22_050), soxr.resample(decoded.mean(axis=1), RATE, 22_050), atol=1e-6
    )


@each_format
def test_silence_is_silent_in_every_format(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadAudio) as caught:
        inspect(encoded(tmp_path, name, 0 * STEREO))
    assert (caught.value.reason, caught.value.fault) == (Reason.SILENT, Fault.TOO_QUIET)


def test_opposite_phase_is_silent(tmp_path: Path) -> None:
    with pytest.raises(BadAudio) as caught:
        inspect(encoded(tmp_path, "alac.m4a", np.outer(FADED, [0.5, -0.5])))
    assert (caught.value.reason, caught.value.fault) == (Reason.SILENT, Fault.CHANNELS_CANCEL)


def without_pyav(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "av", None)
    patch.delitem(sys.modules, "genre_core.audio.av_decoder", raising=False)


@each_format
def test_without_pyav_the_format_and_the_extra_are_named(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encoded(tmp_path, name)
    without_pyav(monkeypatch)
    with pytest.raises(BadAudio) as caught:
        inspect(path)
    assert (caught.value.reason, caught.value.fault) == (Reason.UNREADABLE, Fault.PYAV_MISSING)
    assert "pip install 'genre-search[av]'" in str(caught.value)
    names = {"m4a": "M4A", "mp4": "MP4", "mov": "MP4", "aac": "AAC", "wma": "WMA", "webm": "WebM"}
    assert names.get(path.suffix[1:], "") in str(caught.value)


def test_a_broken_pyav_is_reported_as_broken_not_as_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encoded(tmp_path, "aac.m4a")
    monkeypatch.setitem(sys.modules, "av", ModuleType("av"))
    for name in [name for name in sys.modules if name.startswith("av.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "genre_core.audio.av_decoder", raising=False)
    with pytest.raises(BadAudio) as caught:
        inspect(path)
    assert caught.value.fault is Fault.PYAV_BROKEN
    assert "pip install 'genre-search[av]'" in str(caught.value)


def test_files_are_audited_again_after_pyav_was_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "music/jazz").mkdir(parents=True)
    encoded(tmp_path / "music/jazz", "aac.m4a")
    encoded(tmp_path / "music/jazz", "windows.wma", 0.5 * STEREO)
    corpus = read_corpus(tmp_path / "music")
    with monkeypatch.context() as without:
        without_pyav(without)
        before = audit(corpus, minimum_seconds=1, cache=tmp_path / "cache", workers=1)
    after = audit(corpus, minimum_seconds=1, cache=tmp_path / "cache", workers=1)
    assert reason_counts(before) == {"unreadable": 2}
    assert (reason_counts(after), track_warnings(after)) == ({}, [])


@each_format
def test_every_format_is_found_in_a_genre_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "jazz").mkdir()
    encoded(tmp_path / "jazz", name)
    assert len(read_corpus(tmp_path).tracks) == 1


def halved(data: bytes) -> bytes:
    return data[: len(data) // 2]


def spoilt(data: bytes) -> bytes:
    """Replace bytes in the middle by noise."""
    middle = len(data) // 2
    noise = np.random.default_rng(0).bytes(len(data) // 20)
    return data[:middle] + noise + data[middle + len(noise) :]


NOISE = np.random.default_rng(0).normal(scale=0.1, size=(2 * RATE, 2))


def changed(path: Path, change: Callable[[bytes], bytes]) -> Path:
    path.write_bytes(change(path.read_bytes()))
    return path


def test_a_truncated_file_that_the_decoder_gives_up_is_refused_with_both_lengths(tmp_path: Path) -> None:
    with pytest.raises(BadAudio) as caught:
        inspect(changed(encoded(tmp_path, "pack.wv", NOISE), halved))
    assert (caught.value.reason, caught.value.fault) == (Reason.UNREADABLE, Fault.DAMAGED)
    assert "1.00 s of 2.00 s" in str(caught.value)


@pytest.mark.parametrize("name", ["windows.wma", "opus.webm", "flac.mka"])
def test_a_truncated_file_is_used_with_a_warning_of_both_lengths(tmp_path: Path, name: str) -> None:
    info = inspect(changed(encoded(tmp_path, name, NOISE), halved))
    assert info.seconds == pytest.approx(1, abs=0.5)
    assert_both_lengths(info, stated="2.0")


def test_a_truncated_m4a_with_its_index_first_is_used_with_a_warning_of_both_lengths(tmp_path: Path) -> None:
    info = inspect(changed(encoded(tmp_path, "aac.m4a", NOISE, movflags="faststart"), halved))
    assert info.seconds == pytest.approx(1, abs=0.2)
    assert_both_lengths(info, stated="2.0")


def assert_both_lengths(info: AudioInfo, stated: str) -> None:
    kind, _, detail = info.warnings[0].partition(": ")
    assert kind == "length"
    assert f"{info.seconds:.2f} s" in detail
    assert f" {stated}" in detail


@pytest.mark.parametrize("installed", [True, False])
def test_an_m4a_without_its_index_is_reported_as_cut_off(
    tmp_path: Path, installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = changed(encoded(tmp_path, "aac.m4a", NOISE), halved)
    if not installed:
        without_pyav(monkeypatch)
    with pytest.raises(BadAudio) as caught:
        inspect(path)
    assert (caught.value.reason, caught.value.fault) == (Reason.UNREADABLE, Fault.CUT_OFF)
    assert "M4A" in str(caught.value)
    assert f"{path.stat().st_size} bytes" in str(caught.value)


@pytest.mark.parametrize("name", ["aac.m4a", "flac.mka", "windows.wma"])
def test_damage_causes_a_warning_with_its_position_and_no_decoder_messages(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    info = inspect(changed(encoded(tmp_path, name, NOISE, movflags="faststart"), spoilt))
    kind, _, detail = info.warnings[-1].partition(": ")
    assert kind == "damaged"
    position = re.findall(r"(\d+\.\d+) s", detail)[0]
    assert float(position) == pytest.approx(1, abs=0.3)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.m4a", b"just words in a file\n" * 99),
        ("list.m4a", b"#EXTM3U\nhttp://192.0.2.1/a.m4a\n"),
        ("list.aac", b"ffconcat version 1.0\nfile 'other.wav'\n"),
        ("noise.m4a", np.random.default_rng(1).bytes(9_000)),
        ("only-its-name.mp4", b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom"),
        ("head.webm", b"\x1a\x45\xdf\xa3" + np.random.default_rng(1).bytes(9_000)),
        ("head.wma", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11" + bytes(9_000)),
        ("head.aac", b"\xff\xf1" + np.random.default_rng(1).bytes(9_000)),
    ],
)
def test_a_file_that_only_looks_like_audio_is_refused(
    tmp_path: Path, name: str, content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadAudio) as caught:
        inspect(tmp_path / name)
    assert caught.value.reason is Reason.UNREADABLE
    assert caught.value.detail
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_video_without_audio_is_refused(tmp_path: Path) -> None:
    with av.open(tmp_path / "a.mp4", "w") as output:
        stream = output.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        for packet in (*stream.encode(av.VideoFrame(64, 64, "yuv420p")), *stream.encode(None)):
            output.mux(packet)
    with pytest.raises(BadAudio) as caught:
        inspect(tmp_path / "a.mp4")
    assert (caught.value.reason, caught.value.fault) == (Reason.UNREADABLE, Fault.NO_AUDIO_STREAM)
    assert "MP4" in str(caught.value)


def test_memory_holds_the_result_and_not_the_decoded_channels(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.m4a", np.tile(NOISE, (30, 1)), RATE, "ipod", "aac")
    tracemalloc.start()
    wave = read(path, 8_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    decoded = 60 * RATE * 2 * 4
    assert wave.nbytes == pytest.approx(decoded / 12, rel=0.01)
    assert peak < decoded / 3


def test_pyav_is_imported_only_when_needed() -> None:
    code = "import sys, genre_core.audio.decode, genre_core.corpus.audit; sys.exit('av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
