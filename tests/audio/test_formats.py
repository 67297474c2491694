"""Music files of everyday formats are heard by PyAV; without it, they are named with the way out."""

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

from genre_core.audio.decode import BadAudio, Samples, inspect, read
from genre_core.corpus.audit import audit, reason_counts, warned
from genre_core.corpus.tracks import read_corpus

av = pytest.importorskip("av", reason="PyAV, the extra av, is not installed")

RATE = 48_000
LEVELS = (0.2, 0.6)  # of the two channels
FADED = np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE) * np.hanning(2 * RATE)
STEREO = np.outer(FADED, LEVELS)
HEARD = FADED * np.mean(LEVELS)
DELAY = 4_096  # samples that an encoder may put before the sound

each_format = pytest.mark.parametrize("name", ENCODED)


def encoded(folder: Path, name: str, samples: np.ndarray = STEREO, **options: str) -> Path:
    return encode(folder / name, samples, RATE, *ENCODED[name], **options)


def misfit(wave: Samples, expected: np.ndarray) -> float:
    """Largest difference at the best of the delays that an encoder may cause."""
    padded = np.pad(expected, DELAY)
    coarse = 8 * int(np.argmax(np.correlate(padded[::8], wave[::8], "valid")))
    fits = (padded[lag : lag + len(wave)] for lag in range(max(0, coarse - 8), coarse + 9))
    return min(float(np.abs(wave - fit).max()) for fit in fits if len(fit) == len(wave))


@each_format
def test_what_was_encoded_is_heard(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = encoded(tmp_path, name)
    facts = inspect(path)
    assert (facts.sample_rate, facts.channels, facts.warnings) == (RATE, 2, ())
    assert facts.seconds == pytest.approx(2, abs=0.1)
    wave = read(path, RATE, content=facts.content)
    assert wave.dtype == np.float32
    assert misfit(wave, HEARD) < 0.02
    assert capfd.readouterr() == ("", "")


def test_a_mono_file_keeps_its_level(tmp_path: Path) -> None:
    wave = read(encoded(tmp_path, "alac.m4a", FADED), RATE)
    np.testing.assert_allclose(wave, FADED, atol=1e-4)


def test_other_rates_are_resampled_as_those_of_sound_files_are(tmp_path: Path) -> None:
    path = encoded(tmp_path, "alac.m4a")
    with av.open(path) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
    decoded = np.concatenate(frames, axis=1).T.astype(np.float32) / 2**15
    np.testing.assert_allclose(
        read(path, 22_050), soxr.resample(decoded.mean(axis=1), RATE, 22_050), atol=1e-6
    )


@each_format
def test_silence_is_silent_in_every_format(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadAudio, match=r"^silent"):
        inspect(encoded(tmp_path, name, 0 * STEREO))


def test_opposite_phase_is_silent(tmp_path: Path) -> None:
    with pytest.raises(BadAudio, match=r"^silent: its channels cancel"):
        inspect(encoded(tmp_path, "alac.m4a", np.outer(FADED, [0.5, -0.5])))


@each_format
def test_without_pyav_the_format_and_the_extra_are_named(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encoded(tmp_path, name)
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.delitem(sys.modules, "genre_core.audio.av_file", raising=False)
    with pytest.raises(BadAudio, match=r"^unreadable: .*pip install 'genre-search\[av\]'") as caught:
        inspect(path)
    words = {"m4a": "M4A", "mp4": "MP4", "mov": "MP4", "aac": "AAC", "wma": "WMA", "webm": "WebM"}
    assert words.get(path.suffix[1:], "") in str(caught.value)


def test_a_pyav_that_cannot_be_loaded_is_no_missing_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encoded(tmp_path, "aac.m4a")
    monkeypatch.setitem(sys.modules, "av", ModuleType("av"))
    for name in [name for name in sys.modules if name.startswith("av.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "genre_core.audio.av_file", raising=False)
    with pytest.raises(BadAudio, match=r"^unreadable: PyAV is installed and cannot be loaded"):
        inspect(path)


def test_installing_pyav_is_noticed_although_the_audit_remembers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "music/jazz").mkdir(parents=True)
    encoded(tmp_path / "music/jazz", "aac.m4a")
    encoded(tmp_path / "music/jazz", "windows.wma", 0.5 * STEREO)
    corpus = read_corpus(tmp_path / "music")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "av", None)
        without.delitem(sys.modules, "genre_core.audio.av_file", raising=False)
        before = audit(corpus, minimum_seconds=1, cache=tmp_path / "cache", workers=1)
    after = audit(corpus, minimum_seconds=1, cache=tmp_path / "cache", workers=1)
    assert reason_counts(before) == {"unreadable": 2}
    assert (reason_counts(after), warned(after)) == ({}, [])


@each_format
def test_a_folder_of_genres_has_files_of_every_format(tmp_path: Path, name: str) -> None:
    (tmp_path / "jazz").mkdir()
    encoded(tmp_path / "jazz", name)
    assert len(read_corpus(tmp_path).tracks) == 1


def halved(data: bytes) -> bytes:
    return data[: len(data) // 2]


def spoilt(data: bytes) -> bytes:
    """Bytes of noise in the middle."""
    middle = len(data) // 2
    noise = np.random.default_rng(0).bytes(len(data) // 20)
    return data[:middle] + noise + data[middle + len(noise) :]


NOISE = np.random.default_rng(0).normal(scale=0.1, size=(2 * RATE, 2))


def changed(path: Path, change: Callable[[bytes], bytes]) -> Path:
    path.write_bytes(change(path.read_bytes()))
    return path


def test_a_file_whose_cut_the_decoder_does_not_pass_is_refused_with_both_lengths(tmp_path: Path) -> None:
    with pytest.raises(BadAudio, match=r"^unreadable: damaged at 1\.00 s of 2\.00 s"):
        inspect(changed(encoded(tmp_path, "pack.wv", NOISE), halved))


@pytest.mark.parametrize("name", ["windows.wma", "opus.webm", "flac.mka"])
def test_a_file_cut_short_is_used_with_both_lengths(tmp_path: Path, name: str) -> None:
    facts = inspect(changed(encoded(tmp_path, name, NOISE), halved))
    assert facts.seconds == pytest.approx(1, abs=0.5)
    assert f"{facts.seconds:.2f} s are heard" in facts.warnings[0]
    assert "2.0" in facts.warnings[0]


def test_an_m4a_that_was_indexed_first_and_cut_short_is_used_with_both_lengths(tmp_path: Path) -> None:
    facts = inspect(changed(encoded(tmp_path, "aac.m4a", NOISE, movflags="faststart"), halved))
    assert facts.seconds == pytest.approx(1, abs=0.2)
    assert "but its header says 2.0" in facts.warnings[0]


@pytest.mark.parametrize("installed", [True, False])
def test_an_m4a_without_its_index_is_called_cut_off(
    tmp_path: Path, installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = changed(encoded(tmp_path, "aac.m4a", NOISE), halved)
    if not installed:
        monkeypatch.setitem(sys.modules, "av", None)
        monkeypatch.delitem(sys.modules, "genre_core.audio.av_file", raising=False)
    with pytest.raises(BadAudio, match=rf"^unreadable: MP4 or M4A .*cut off .*{path.stat().st_size} bytes"):
        inspect(path)


@pytest.mark.parametrize("name", ["aac.m4a", "flac.mka", "windows.wma"])
def test_damage_is_a_warning_with_its_place_and_no_noise(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    facts = inspect(changed(encoded(tmp_path, name, NOISE, movflags="faststart"), spoilt))
    assert facts.warnings
    (place,) = re.findall(r"near (\d+\.\d+) s", facts.warnings[-1])
    assert float(place) == pytest.approx(1, abs=0.3)
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
def test_what_only_looks_like_music_is_refused(
    tmp_path: Path, name: str, content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadAudio, match=r"^unreadable: .*") as caught:
        inspect(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_film_without_sound_is_refused(tmp_path: Path) -> None:
    with av.open(tmp_path / "a.mp4", "w") as output:
        stream = output.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        for packet in (*stream.encode(av.VideoFrame(64, 64, "yuv420p")), *stream.encode(None)):
            output.mux(packet)
    with pytest.raises(BadAudio, match=r"^unreadable: MP4 .*: no sound"):
        inspect(tmp_path / "a.mp4")


def test_memory_holds_the_result_and_not_the_decoded_channels(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.m4a", np.tile(NOISE, (30, 1)), RATE, "ipod", "aac")
    tracemalloc.start()
    wave = read(path, 8_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    decoded = 60 * RATE * 2 * 4
    assert wave.nbytes == pytest.approx(decoded / 12, rel=0.01)
    assert peak < decoded / 3


def test_pyav_is_loaded_where_it_is_needed_only() -> None:
    code = "import sys, genre_core.audio.decode, genre_core.corpus.audit; sys.exit('av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
