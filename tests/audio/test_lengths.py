"""All the sound in a file is heard, or a warning says how much of it was not and where."""

import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from genre_core.audio.decode import BadAudio, inspect, read

CASES = Path(__file__).parents[3] / "shared/cases"
RATE = 22_050
SECONDS = 4
NOISE = np.random.default_rng(0).normal(scale=0.1, size=(SECONDS * RATE, 2))

# name, libsndfile format, subtype, of formats whose header states a length that damage does not change
STATED = [
    ("a.wav", "WAV", "PCM_16"),
    ("a-24-bit.wav", "WAVEX", "PCM_24"),
    ("adpcm.wav", "WAV", "IMA_ADPCM"),
    ("a.rf64", "RF64", "PCM_16"),
    ("a.w64", "W64", "FLOAT"),
    ("a.aiff", "AIFF", "PCM_16"),
    ("a.au", "AU", "PCM_16"),
    ("a.mp3", "MP3", "MPEG_LAYER_III"),
]
OTHERS = [
    ("a.caf", "CAF", "PCM_16"),
    ("a.voc", "VOC", "PCM_16"),
    ("a.flac", "FLAC", "PCM_16"),
    ("a.ogg", "OGG", "VORBIS"),
    ("a.opus", "OGG", "OPUS"),
]


def whole(folder: Path, name: str, form: str, subtype: str) -> Path:
    """Noise of SECONDS in a file."""
    rate = 48_000 if subtype == "OPUS" else RATE
    noise = NOISE if rate == RATE else np.resize(NOISE, (SECONDS * rate, 2))
    soundfile.write(folder / name, noise, rate, format=form, subtype=subtype)
    return folder / name


def changed(path: Path, change: Callable[[bytes], bytes]) -> Path:
    path.write_bytes(change(path.read_bytes()))
    return path


def halved(data: bytes) -> bytes:
    return data[: len(data) // 2]


def zeroed(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(3_000) + data[middle + 3_000 :]


def numbers(text: str) -> list[float]:
    """The lengths and places in a warning or a reason."""
    return [float(number) for number in re.findall(r"(\d+\.\d+) s\b", text)]


@pytest.mark.parametrize(("name", "form", "subtype"), STATED + OTHERS, ids=[c[0] for c in STATED + OTHERS])
def test_a_whole_file_has_no_warning(tmp_path: Path, name: str, form: str, subtype: str) -> None:
    assert inspect(whole(tmp_path, name, form, subtype)).warnings == ()


@pytest.mark.parametrize(("name", "form", "subtype"), STATED, ids=[c[0] for c in STATED])
def test_a_file_cut_short_is_used_with_both_lengths(
    tmp_path: Path, name: str, form: str, subtype: str
) -> None:
    facts = inspect(changed(whole(tmp_path, name, form, subtype), halved))
    assert facts.seconds == pytest.approx(SECONDS / 2, abs=0.1)
    heard, stated = numbers(facts.warnings[0])
    assert (heard, stated) == pytest.approx((facts.seconds, SECONDS), abs=0.1)


def test_a_caf_cut_short_is_named(tmp_path: Path) -> None:
    path = changed(whole(tmp_path, *OTHERS[0]), halved)
    with pytest.raises(BadAudio, match=r"^unreadable: CAF, cut off after \d+ of 352800 bytes"):
        inspect(path)


@pytest.mark.parametrize("name", ["a.ogg", "a.opus"])
def test_an_ogg_cut_short_is_used_with_a_warning(tmp_path: Path, name: str) -> None:
    case = next(case for case in OTHERS if case[0] == name)
    facts = inspect(changed(whole(tmp_path, *case), halved))
    assert facts.seconds < SECONDS - 1
    (length,) = numbers("".join(facts.warnings))
    assert length == pytest.approx(facts.seconds, abs=0.01)


@pytest.mark.parametrize("change", [halved, zeroed])
def test_a_damaged_flac_is_refused_with_the_place_and_the_length(
    tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    path = changed(whole(tmp_path, "a.flac", "FLAC", "PCM_16"), change)
    with pytest.raises(BadAudio, match=r"^unreadable") as caught:
        inspect(path)
    place, length = numbers(str(caught.value))
    assert place == pytest.approx(SECONDS / 2, abs=0.3)
    assert length == SECONDS


@pytest.mark.parametrize("name", ["a.ogg", "a.opus"])
def test_damaged_pages_are_a_warning_with_their_place(tmp_path: Path, name: str) -> None:
    case = next(case for case in OTHERS if case[0] == name)
    facts = inspect(changed(whole(tmp_path, *case), zeroed))
    (place,) = numbers(facts.warnings[-1])
    assert place == pytest.approx(SECONDS / 2, abs=1.1)  # a page holds a second


def constant_rate(folder: Path) -> Path:
    """An MP3 of 4 s whose frames all have one size."""
    path = folder / "a.mp3"
    soundfile.write(path, NOISE, RATE, bitrate_mode="CONSTANT", compression_level=0.5)
    return path


def test_a_gap_in_an_mp3_that_is_passed_has_its_place(tmp_path: Path) -> None:
    path = constant_rate(tmp_path)
    data = path.read_bytes()
    frame = data.find(b"\xff\xf3", len(data) // 2)
    path.write_bytes(data[:frame] + bytes(400) + data[frame + 400 :])
    facts = inspect(path)
    places = numbers(facts.warnings[-1])
    assert places[0] == pytest.approx(SECONDS / 2, abs=0.2)


def test_a_hole_that_the_decoder_does_not_pass_is_refused_with_its_place(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = changed(constant_rate(tmp_path), zeroed)
    with pytest.raises(BadAudio, match=r"^unreadable") as caught:
        inspect(path)
    assert numbers(str(caught.value)) == pytest.approx([SECONDS / 2, SECONDS], abs=0.2)
    assert capfd.readouterr() == ("", "")


def without_its_first_frame(data: bytes) -> bytes:
    """An MP3 without the frame that states its length: the second of them begins where the next sync is."""
    return data[data.find(b"\xff\xf3", 4) :]


def test_a_variable_rate_without_a_stated_length_is_heard_whole(tmp_path: Path) -> None:
    quiet_at_first = np.concatenate([NOISE * 0.0001, NOISE])  # small frames, then large ones
    path = tmp_path / "a.mp3"
    soundfile.write(path, quiet_at_first[::-1], RATE, bitrate_mode="VARIABLE", compression_level=0.1)
    changed(path, without_its_first_frame)
    assert soundfile.info(path).duration < 2 * SECONDS - 1  # what libsndfile would read
    facts = inspect(path)
    assert facts.seconds == pytest.approx(2 * SECONDS, abs=0.15)
    assert facts.warnings == ()
    wave = read(path, RATE, content=facts.content)
    assert len(wave) == pytest.approx(2 * SECONDS * RATE, abs=0.15 * RATE)
    assert np.abs(wave[RATE : 3 * RATE]).mean() > 100 * np.abs(wave[5 * RATE : 7 * RATE]).mean()


def test_mp3s_joined_end_to_end_are_heard_whole_with_both_lengths(tmp_path: Path) -> None:
    facts = inspect(changed(constant_rate(tmp_path), lambda data: data + data))
    assert facts.seconds == pytest.approx(2 * SECONDS, abs=0.3)
    heard, stated = numbers(facts.warnings[0])
    assert (heard, stated) == pytest.approx((facts.seconds, SECONDS), abs=0.01)


def test_oggs_joined_end_to_end_are_reported_with_both_lengths(tmp_path: Path) -> None:
    facts = inspect(changed(whole(tmp_path, "a.ogg", "OGG", "VORBIS"), lambda data: data + data))
    assert numbers(facts.warnings[0]) == [SECONDS, 2 * SECONDS]


def wav_with(size: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:40] + struct.pack("<I", size) + data[44:]


def test_a_wav_of_a_recorder_that_crashed_is_heard_to_its_end(tmp_path: Path) -> None:
    path = whole(tmp_path, "a.wav", "WAV", "PCM_16")
    right = inspect(path)
    facts = inspect(changed(path, wav_with(0)))
    assert (facts.seconds, facts.content) == (SECONDS, right.content)
    assert numbers(facts.warnings[0]) == [SECONDS, 0]


@pytest.mark.parametrize("size", [0xFFFF_FFFF, 0x7FFF_FFFF, 0xFFFF_FFFF - 36])
def test_a_wav_whose_length_was_left_open_is_good(tmp_path: Path, size: int) -> None:
    facts = inspect(changed(whole(tmp_path, "a.wav", "WAV", "PCM_16"), wav_with(size)))
    assert (facts.seconds, facts.warnings) == (SECONDS, ())


def test_a_wav_that_states_too_little_is_reported_with_both_lengths(tmp_path: Path) -> None:
    facts = inspect(changed(whole(tmp_path, "a.wav", "WAV", "PCM_16"), wav_with(RATE * 4)))
    assert numbers(facts.warnings[0]) == [1, SECONDS]


def chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content


@pytest.mark.parametrize(
    "tail",
    [chunk(b"LIST", b"x" * 90_000), chunk(b"id3 ", b"\1" * 90_000), bytes(90_000), b"ID3" + b"\1" * 90_000],
)
def test_what_is_no_sound_after_the_samples_of_a_wav_is_no_warning(tmp_path: Path, tail: bytes) -> None:
    assert inspect(changed(whole(tmp_path, "a.wav", "WAV", "PCM_16"), lambda d: d + tail)).warnings == ()


def test_a_wav_without_samples_but_with_tags_is_empty(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", NOISE[:0], RATE)
    with pytest.raises(BadAudio, match=r"^empty"):
        inspect(changed(tmp_path / "a.wav", lambda data: data + chunk(b"LIST", b"x" * 90_000)))


def flac_with(samples: int) -> Callable[[bytes], bytes]:
    """Another number of samples in the header: the last 36 of 40 bits at byte 21."""

    def change(data: bytes) -> bytes:
        field = int.from_bytes(data[21:26]) >> 36 << 36 | samples
        return data[:21] + field.to_bytes(5) + data[26:]

    return change


@pytest.mark.parametrize(("samples", "lengths"), [(0, []), (RATE, [SECONDS, 1.0])])
def test_a_flac_that_states_no_length_or_too_little_is_heard_to_its_end(
    tmp_path: Path, samples: int, lengths: list[float]
) -> None:
    path = whole(tmp_path, "a.flac", "FLAC", "PCM_16")
    right = inspect(path)
    facts = inspect(changed(path, flac_with(samples)))
    assert (facts.seconds, facts.content) == (SECONDS, right.content)
    assert numbers("".join(facts.warnings)) == lengths


def test_a_flac_of_one_frame_that_states_no_length_is_heard(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", NOISE[:3_000], RATE)
    assert inspect(changed(tmp_path / "a.flac", flac_with(0))).seconds == 3_000 / RATE


QUIET = """
import os, sys
from pathlib import Path
from genre_core.audio import decode
from genre_core.audio.decoder_noise import quiet_decoder

with quiet_decoder():
    os.write(2, b"from elsewhere\\n[src/libmpg123/a.c:f():1] error: noise\\nNote: Trying to resync...\\nas well\\n")
decode.inspect(Path(sys.argv[1]))
os.write(2, b"after it\\n")
"""


def test_standard_error_has_what_others_write_and_not_the_decoder(tmp_path: Path) -> None:
    path = constant_rate(tmp_path)
    data = path.read_bytes()
    frame = data.find(b"\xff\xf3", len(data) // 2)
    path.write_bytes(data[:frame] + bytes(400) + data[frame + 400 :])
    done = subprocess.run([sys.executable, "-c", QUIET, path], capture_output=True, text=True, check=True)
    assert done.stderr.split("\n") == ["from elsewhere", "as well", "after it", ""]


def test_standard_error_is_restored_when_many_decode_at_once(tmp_path: Path) -> None:
    path = constant_rate(tmp_path)
    before = os.fstat(2)
    with ThreadPoolExecutor(8) as pool:
        contents = set(pool.map(lambda _: inspect(path).content, range(24)))
    assert len(contents) == 1
    assert (os.fstat(2).st_dev, os.fstat(2).st_ino) == (before.st_dev, before.st_ino)


def test_a_process_without_standard_error_decodes(tmp_path: Path) -> None:
    path = constant_rate(tmp_path)
    code = (
        f"import os; os.close(2)\nimport sys\nfrom genre_core.audio import decode\n{QUIET.splitlines()[-2]}"
    )
    done = subprocess.run(
        [sys.executable, "-c", "from pathlib import Path\n" + code, path], stdout=subprocess.PIPE, check=False
    )
    assert done.returncode == 0


# file, seconds that are heard, what a warning or the reason names
SAMPLES = [
    ("vbr-without-xing.mp3", 30.07, ""),
    (
        "hole-after-10s.mp3",
        None,
        r"unreadable: damaged at 10\.00 s of 30\.00 s: .*repair the file or leave it out",
    ),
    ("recorder-crash-data-size-0.wav", 8.0, r"8\.00 s are heard, but its header says 0\.00 s"),
    ("antiphase-stereo.wav", None, "silent: its channels cancel each other"),
    ("float-with-int16-range.wav", 6.0, r"integers stored as floats: .* 16384.* 32768.*"),
    ("song.m4a", 8.03, ""),
    ("git-lfs-pointer.wav", None, "unreadable: a Git LFS pointer .*git lfs pull"),
    ("html-page.mp3", None, "unreadable: a web page"),
]


@pytest.mark.skipif(not CASES.is_dir(), reason="the sample inputs are not beside the project")
@pytest.mark.parametrize(("name", "seconds", "words"), SAMPLES, ids=[c[0] for c in SAMPLES])
def test_inputs_that_were_handled_wrongly(
    name: str, seconds: float | None, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    if seconds is None:
        with pytest.raises(BadAudio, match=f"^{words}"):
            inspect(CASES / name)
    else:
        facts = inspect(CASES / name)
        assert facts.seconds == pytest.approx(seconds, abs=0.05)
        assert re.fullmatch(words, "".join(facts.warnings))
    assert capfd.readouterr() == ("", "")
