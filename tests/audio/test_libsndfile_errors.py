"""Canaries for undocumented behaviour of libsndfile and libmpg123 that the decoder depends on.

A failure here means that a new libsndfile behaves differently; the message says what to change.
"""

import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from encoded import encode

from genre_core.audio.decoder_noise import without_noise
from genre_core.audio.libsndfile_errors import Refusal, decoding_error_text, refusal_of

RATE = 22_050
NOISE = np.random.default_rng(0).normal(scale=0.1, size=(4 * RATE, 2))
BYTES = np.random.default_rng(0).bytes(20_000)


def error_of_opening(path: Path) -> soundfile.LibsndfileError:
    with pytest.raises(soundfile.LibsndfileError) as caught:
        soundfile.SoundFile(path)
    return caught.value


def mp3_with_gap(path: Path, size: int) -> Path:
    """An MP3 with zeros in the middle."""
    soundfile.write(path, NOISE, RATE, bitrate_mode="CONSTANT", compression_level=0.5)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + size] = bytes(size)
    path.write_bytes(data)
    return path


def test_canary_an_mp3_without_mpeg_frames_has_its_own_error_code(tmp_path: Path) -> None:
    (tmp_path / "a.mp3").write_bytes(BYTES)
    error = error_of_opening(tmp_path / "a.mp3")
    assert refusal_of(error) is Refusal.NO_MPEG_FRAMES, (
        f"libsndfile now reports code {error.code} ({error.error_string!r}) for an .mp3 without MPEG frames: "
        "adapt _SFE_BAD_FILE in genre_core/audio/libsndfile_errors.py"
    )


def wav_with_an_unknown_subformat(folder: Path) -> Path:
    soundfile.write(folder / "a.wav", NOISE, RATE)
    data = (folder / "a.wav").read_bytes()
    (folder / "a.wav").write_bytes(data[:20] + struct.pack("<H", 0xFFFE) + data[22:])
    return folder / "a.wav"


def caf_with_alac_of_ffmpeg(folder: Path) -> Path:
    pytest.importorskip("av", reason="the extra av is not installed")
    return encode(folder / "a.caf", NOISE, RATE, "caf", "alac")


@pytest.mark.parametrize("make", [wav_with_an_unknown_subformat, caf_with_alac_of_ffmpeg])
def test_canary_an_unsupported_codec_is_recognised_by_the_error_text(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    error = error_of_opening(make(tmp_path))
    assert refusal_of(error) is Refusal.UNSUPPORTED_CODEC, (
        f"libsndfile now reports {error.error_string!r} for a codec that it lacks: "
        "adapt _UNSUPPORTED_CODEC in genre_core/audio/libsndfile_errors.py"
    )


def test_canary_a_gap_in_an_mp3_is_reported_as_an_internal_error(tmp_path: Path) -> None:
    with pytest.raises(soundfile.LibsndfileError) as caught:
        soundfile.read(mp3_with_gap(tmp_path / "a.mp3", 3_000))
    assert decoding_error_text(caught.value) != caught.value.error_string, (
        f"libsndfile now reports {caught.value.error_string!r} for a gap in an MP3: if a user understands that, "
        "remove decoding_error_text in genre_core/audio/libsndfile_errors.py, otherwise adapt _INTERNAL_ERROR"
    )


def test_canary_all_that_libmpg123_prints_is_recognised_as_noise(tmp_path: Path) -> None:
    path = mp3_with_gap(tmp_path / "a.mp3", 400)
    code = "import soundfile, sys; soundfile.read(sys.argv[1])"
    printed = subprocess.run([sys.executable, "-c", code, path], capture_output=True, check=True).stderr
    assert printed, (
        "libsndfile no longer prints messages of libmpg123: check whether genre_core/audio/decoder_noise.py "
        "can be removed"
    )
    assert without_noise(printed) == b"", (
        f"libmpg123 prints new messages, {without_noise(printed)!r}: add them to _NOISE in "
        "genre_core/audio/decoder_noise.py"
    )


def test_canary_arbitrary_bytes_with_an_audio_suffix_open_as_raw(tmp_path: Path) -> None:
    (tmp_path / "a.snd").write_bytes(BYTES)
    with soundfile.SoundFile(tmp_path / "a.snd") as file:
        assert file.format == "RAW", (
            f"libsndfile now opens arbitrary bytes in a .snd as {file.format!r}: adapt the check for RAW in "
            "open_source of genre_core/audio/sndfile_decoder.py"
        )


def test_canary_a_length_that_the_header_leaves_open_is_a_huge_number_of_frames(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", NOISE, RATE)
    data = bytearray((tmp_path / "a.flac").read_bytes())
    data[21:26] = (int.from_bytes(data[21:26]) >> 36 << 36).to_bytes(5)
    (tmp_path / "a.flac").write_bytes(data)
    with soundfile.SoundFile(tmp_path / "a.flac") as file:
        assert not 0 <= file.frames < 2**62, (
            f"libsndfile now counts {file.frames} frames in a FLAC without a stated length: adapt "
            "_UNKNOWN_LENGTH in genre_core/audio/sndfile_decoder.py"
        )
