"""All audio in a file is decoded, or a warning states how much is missing and where."""

import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

from genre_core.audio.decode import AudioInfo, BadAudio, Fault, Reason, inspect, read

INPUTS = Path(__file__).parents[3] / "shared/cases"
RATE = 22_050
SECONDS = 4
NOISE = np.random.default_rng(0).normal(scale=0.1, size=(SECONDS * RATE, 2))

# name, libsndfile format, subtype: formats whose stated length survives damage
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
    """Write SECONDS of noise to a file."""
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


def lengths(info: AudioInfo) -> list[float]:
    """The decoded and the stated length in a file's first warning, in seconds."""
    kind, _, detail = info.warnings[0].partition(":")
    assert kind == "length"
    return numbers(detail)


def numbers(text: str) -> list[float]:
    """The lengths and positions in a warning or a reason, in seconds."""
    return [float(number) for number in re.findall(r"(\d+\.\d+) s\b", text)]


@pytest.mark.parametrize(("name", "form", "subtype"), STATED + OTHERS, ids=[c[0] for c in STATED + OTHERS])
def test_an_intact_file_causes_no_warning(tmp_path: Path, name: str, form: str, subtype: str) -> None:
    assert inspect(whole(tmp_path, name, form, subtype)).warnings == ()


@pytest.mark.parametrize(("name", "form", "subtype"), STATED, ids=[c[0] for c in STATED])
def test_a_truncated_file_is_used_with_a_warning_of_both_lengths(
    tmp_path: Path, name: str, form: str, subtype: str
) -> None:
    info = inspect(changed(whole(tmp_path, name, form, subtype), halved))
    assert info.seconds == pytest.approx(SECONDS / 2, abs=0.1)
    assert lengths(info) == pytest.approx([info.seconds, SECONDS], abs=0.1)


def test_a_truncated_caf_is_refused_with_its_sizes(tmp_path: Path) -> None:
    path = changed(whole(tmp_path, *OTHERS[0]), halved)
    with pytest.raises(BadAudio) as caught:
        inspect(path)
    assert (caught.value.reason, caught.value.fault) == (Reason.UNREADABLE, Fault.CUT_OFF)
    assert "CAF" in str(caught.value)
    assert " of 352800 bytes" in str(caught.value)


@pytest.mark.parametrize("name", ["a.ogg", "a.opus"])
def test_a_truncated_ogg_is_used_with_a_warning(tmp_path: Path, name: str) -> None:
    case = next(case for case in OTHERS if case[0] == name)
    info = inspect(changed(whole(tmp_path, *case), halved))
    assert info.seconds < SECONDS - 1
    (length,) = numbers("".join(info.warnings))
    assert length == pytest.approx(info.seconds, abs=0.01)


@pytest.mark.parametrize("change", [halved, zeroed])
def test_a_damaged_flac_is_refused_with_the_position_and_the_length(
    tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    path = changed(whole(tmp_path, "a.flac", "FLAC", "PCM_16"), change)
    with pytest.raises(BadAudio) as caught:
        inspect(path)
    assert (caught.value.reason, caught.value.fault) == (Reason.UNREADABLE, Fault.DAMAGED)
    position, length = numbers(str(caught.value))
    assert position == pytest.approx(SECONDS / 2, abs=0.3)
    assert length == SECONDS


@pytest.mark.parametrize("name", ["a.ogg", "a.opus"])
def test_damaged_pages_cause_a_warning_with_their_position(tmp_path: Path, name: str) -> None:
    case = next(case for case in OTHERS if case[0] == name)
    info = inspect(changed(whole(tmp_path, *case), zeroed))
    (position,) = numbers(info.warnings[-1])
    assert position == pytest.approx(SECONDS / 2, abs=1.1)  # a page holds a second


def constant_rate(folder: Path) -> Path:
    """An MP3 of 4 s whose frames all have one size."""
    path = folder / "a.mp3"
    soundfile.write(path, NOISE, RATE, bitrate_mode="CONSTANT", compression_level=0.5)
    return path


def test_a_gap_in_an_mp3_causes_a_warning_with_its_position(tmp_path: Path) -> None:
    path = constant_rate(tmp_path)
    data = path.read_bytes()
    frame = data.find(b"\xff\xf3", len(data) // 2)
    path.write_bytes(data[:frame] + bytes(400) + data[frame + 400 :])
    info = inspect(path)
    assert info.warnings[-1].startswith("damaged:")
    assert numbers(info.warnings[-1])[0] == pytest.approx(SECONDS / 2, abs=0.2)


def test_a_gap_that_the_decoder_cannot_skip_is_refused_with_its_position(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = changed(constant_rate(tmp_path), zeroed)
    with pytest.raises(BadAudio) as caught:
        inspect(path)
    assert (caught.value.reason, caught.value.fault) == (Reason.UNREADABLE, Fault.DAMAGED)
    assert numbers(str(caught.value)) == pytest.approx([SECONDS / 2, SECONDS], abs=0.2)
    assert capfd.readouterr() == ("", "")


def without_its_first_frame(data: bytes) -> bytes:
    """Remove the frame that states the length of an MP3; the next frame begins at the next sync word."""
    return data[data.find(b"\xff\xf3", 4) :]


def test_a_variable_rate_mp3_without_a_stated_length_is_decoded_completely(tmp_path: Path) -> None:
    quiet_at_first = np.concatenate([NOISE * 0.0001, NOISE])  # small frames, then large ones
    path = tmp_path / "a.mp3"
    soundfile.write(path, quiet_at_first[::-1], RATE, bitrate_mode="VARIABLE", compression_level=0.1)
    changed(path, without_its_first_frame)
    assert soundfile.info(path).duration < 2 * SECONDS - 1  # what libsndfile alone would read
    info = inspect(path)
    assert info.seconds == pytest.approx(2 * SECONDS, abs=0.15)
    assert info.warnings == ()
    wave = read(path, RATE, content=info.content)
    assert len(wave) == pytest.approx(2 * SECONDS * RATE, abs=0.15 * RATE)
    assert np.abs(wave[RATE : 3 * RATE]).mean() > 100 * np.abs(wave[5 * RATE : 7 * RATE]).mean()


def test_concatenated_mp3s_are_decoded_completely_with_a_warning_of_both_lengths(tmp_path: Path) -> None:
    info = inspect(changed(constant_rate(tmp_path), lambda data: data + data))
    assert info.seconds == pytest.approx(2 * SECONDS, abs=0.3)
    assert lengths(info) == pytest.approx([info.seconds, SECONDS], abs=0.01)


def test_concatenated_oggs_cause_a_warning_of_both_lengths(tmp_path: Path) -> None:
    info = inspect(changed(whole(tmp_path, "a.ogg", "OGG", "VORBIS"), lambda data: data + data))
    assert lengths(info) == [SECONDS, 2 * SECONDS]


def wav_with(size: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:40] + struct.pack("<I", size) + data[44:]


def test_a_wav_of_a_crashed_recorder_is_decoded_completely(tmp_path: Path) -> None:
    path = whole(tmp_path, "a.wav", "WAV", "PCM_16")
    right = inspect(path)
    info = inspect(changed(path, wav_with(0)))
    assert (info.seconds, info.content) == (SECONDS, right.content)
    assert lengths(info) == [SECONDS, 0]


@pytest.mark.parametrize("size", [0xFFFF_FFFF, 0x7FFF_FFFF, 0xFFFF_FFFF - 36])
def test_a_streamed_wav_without_a_length_is_good(tmp_path: Path, size: int) -> None:
    info = inspect(changed(whole(tmp_path, "a.wav", "WAV", "PCM_16"), wav_with(size)))
    assert (info.seconds, info.warnings) == (SECONDS, ())


def test_a_wav_that_states_too_small_a_size_causes_a_warning_of_both_lengths(tmp_path: Path) -> None:
    info = inspect(changed(whole(tmp_path, "a.wav", "WAV", "PCM_16"), wav_with(RATE * 4)))
    assert lengths(info) == [1, SECONDS]


def chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content


@pytest.mark.parametrize(
    "tail",
    [chunk(b"LIST", b"x" * 90_000), chunk(b"id3 ", b"\1" * 90_000), bytes(90_000), b"ID3" + b"\1" * 90_000],
)
def test_chunks_tags_and_zeros_after_the_samples_of_a_wav_cause_no_warning(
    tmp_path: Path, tail: bytes
) -> None:
    assert inspect(changed(whole(tmp_path, "a.wav", "WAV", "PCM_16"), lambda d: d + tail)).warnings == ()


def test_a_wav_without_samples_but_with_tags_is_empty(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", NOISE[:0], RATE)
    with pytest.raises(BadAudio) as caught:
        inspect(changed(tmp_path / "a.wav", lambda data: data + chunk(b"LIST", b"x" * 90_000)))
    assert caught.value.reason is Reason.EMPTY


def flac_with(samples: int) -> Callable[[bytes], bytes]:
    """Set the number of samples in the header: the last 36 of 40 bits at byte 21."""

    def change(data: bytes) -> bytes:
        field = int.from_bytes(data[21:26]) >> 36 << 36 | samples
        return data[:21] + field.to_bytes(5) + data[26:]

    return change


@pytest.mark.parametrize(("samples", "warned"), [(0, []), (RATE, [SECONDS, 1.0])])
def test_a_flac_that_states_no_length_or_too_short_a_one_is_decoded_completely(
    tmp_path: Path, samples: int, warned: list[float]
) -> None:
    path = whole(tmp_path, "a.flac", "FLAC", "PCM_16")
    right = inspect(path)
    info = inspect(changed(path, flac_with(samples)))
    assert (info.seconds, info.content) == (SECONDS, right.content)
    assert numbers("".join(info.warnings)) == warned


def test_a_flac_of_one_frame_without_a_stated_length_is_decoded(tmp_path: Path) -> None:
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


def test_standard_error_lacks_only_the_messages_of_the_decoder(tmp_path: Path) -> None:
    path = constant_rate(tmp_path)
    data = path.read_bytes()
    frame = data.find(b"\xff\xf3", len(data) // 2)
    path.write_bytes(data[:frame] + bytes(400) + data[frame + 400 :])
    done = subprocess.run([sys.executable, "-c", QUIET, path], capture_output=True, text=True, check=True)
    assert done.stderr.split("\n") == ["from elsewhere", "as well", "after it", ""]


def test_standard_error_is_restored_after_many_threads_decoded(tmp_path: Path) -> None:
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


@dataclass(frozen=True)
class Case:
    """A file that was once handled wrongly."""

    name: str
    seconds: float | None = None
    """Decoded length; None for a bad file."""
    kind: str = ""
    """Of the warning; "" for none."""
    fault: Fault | None = None
    values: tuple[str, ...] = ()
    """What the warning or the exception contains."""


CASES = [
    Case("vbr-without-xing.mp3", seconds=30.07),
    Case("hole-after-10s.mp3", fault=Fault.DAMAGED, values=("10.00 s of 30.00 s", "repair", "leave it out")),
    Case("recorder-crash-data-size-0.wav", seconds=8.0, kind="length", values=("8.00 s", "0.00 s")),
    Case("antiphase-stereo.wav", fault=Fault.CHANNELS_CANCEL),
    Case(
        "float-with-int16-range.wav",
        seconds=6.0,
        kind="integers stored as floats",
        values=("16384", "32768"),
    ),
    Case("song.m4a", seconds=8.03),
    Case("git-lfs-pointer.wav", fault=Fault.NOT_AUDIO, values=("Git LFS", "git lfs pull")),
    Case("html-page.mp3", fault=Fault.NOT_AUDIO, values=("HTML", "download")),
]


@pytest.mark.skipif(not INPUTS.is_dir(), reason="needs the sample inputs in ../shared/cases")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_inputs_that_were_once_handled_wrongly(case: Case, capfd: pytest.CaptureFixture[str]) -> None:
    if case.seconds is None:
        with pytest.raises(BadAudio) as caught:
            inspect(INPUTS / case.name)
        assert caught.value.fault is case.fault
        text = str(caught.value)
    else:
        info = inspect(INPUTS / case.name)
        assert info.seconds == pytest.approx(case.seconds, abs=0.05)
        assert [warning.partition(":")[0] for warning in info.warnings] == [case.kind] * bool(case.kind)
        text = "".join(info.warnings)
    assert all(value in text for value in case.values)
    assert capfd.readouterr() == ("", "")
