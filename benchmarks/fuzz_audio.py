"""Fuzz the audio reader with randomly damaged files: each must be read, or refused with a reason.

    python benchmarks/fuzz_audio.py --seconds 180 --seed 0 [--keep DIR]

Real files of each format are damaged in a few random places and read in child processes. A native crash or a hang
ends only the child; it is counted, and the file that caused it is kept. Exits with 1 if there is any.
"""

import argparse
import json
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile

from genre_core.audio import decode

RATE = 8_000  # Hz, of the decoded samples
RATE_ENCODED = 48_000  # Hz, of the files encoded by PyAV
BATCH = 2_000  # maximum number of files per process
LIMIT = 10  # seconds per file, which has less than one second of sound
MEMORY = 4 * 2**30  # maximum address space of a process, bytes

# name of a format -> extension, soundfile's format and subtype
FORMATS = {
    "wav 8-bit": ("wav", "WAV", "PCM_U8"),
    "wav 16-bit": ("wav", "WAV", "PCM_16"),
    "wav 64-bit float": ("wav", "WAV", "DOUBLE"),
    "wav float": ("wav", "WAV", "FLOAT"),
    "wav ADPCM": ("wav", "WAV", "IMA_ADPCM"),
    "wav GSM": ("wav", "WAV", "GSM610"),
    "wav extensible": ("wav", "WAVEX", "PCM_24"),
    "w64": ("w64", "W64", "PCM_16"),
    "rf64": ("rf64", "RF64", "PCM_16"),
    "aiff": ("aiff", "AIFF", "PCM_16"),
    "au": ("au", "AU", "ULAW"),
    "caf": ("caf", "CAF", "ALAC_16"),
    "voc": ("voc", "VOC", "PCM_16"),
    "flac": ("flac", "FLAC", "PCM_16"),
    "vorbis": ("ogg", "OGG", "VORBIS"),
    "opus": ("opus", "OGG", "OPUS"),
    "mp3": ("mp3", "MP3", "MPEG_LAYER_III"),
}
# formats encoded by PyAV -> extension, FFmpeg's container and codec
AV_FORMATS = {
    "aac in m4a": ("m4a", "ipod", "aac"),
    "alac in mov": ("mov", "mov", "alac"),
    "aac": ("aac", "adts", "aac"),
    "wma": ("wma", "asf", "wmav2"),
    "opus in webm": ("webm", "webm", "libopus"),
    "flac in matroska": ("mka", "matroska", "flac"),
    "wavpack": ("wv", "wv", "wavpack"),
    "ac3": ("ac3", "ac3", "ac3"),
    "alac in caf": ("caf", "caf", "alac"),
}
NOISE = "arbitrary bytes"
EXTENSIONS = sorted({extension for extension, *_ in FORMATS.values()} | {"snd", "m4a", "raw", "wma", "webm"})
SPECIAL_VALUES = [
    b"\0" * 4,
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x80\0\0\0",
    b"\1\0\0\0",
]


def main() -> int:
    """Print the results as JSON and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--keep", type=Path, default=Path("fuzz-audio"), help="folder for files that cause failures"
    )
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.batch is not None:
        return _read_batch(arguments.folder, arguments.seed, arguments.batch, arguments.seconds)
    results = fuzz(arguments.seconds, arguments.seed, arguments.keep)
    print(json.dumps(results, indent=1))
    return 1 if results["wrong"] else 0


def fuzz(seconds: float, seed: int, keep: Path) -> dict[str, object]:
    """Read damaged files for a number of seconds, in one process after another."""
    outcomes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    wrong: list[dict[str, str]] = []
    end, batch = time.monotonic() + seconds, 0
    with tempfile.TemporaryDirectory(prefix="gsb") as folder:
        while (left := end - time.monotonic()) > 0:
            command = [sys.executable, __file__, "--folder", folder, "--batch", str(batch)]
            command += ["--seed", str(seed), "--seconds", str(left)]
            child = subprocess.run(command, capture_output=True, check=False)
            lines = [json.loads(line) for line in child.stdout.decode().splitlines()]
            for line in lines:
                outcomes[line["format"]][line["outcome"]] += 1
            wrong += [line for line in lines if line["outcome"] == "wrong"]
            if child.returncode:
                wrong.append(_death(child, Path(folder), keep / f"{seed}-{batch}"))
            batch += 1
    return {
        "seed": seed,
        "seconds": seconds,
        "processes": batch,
        "tried": sum(counts.total() for counts in outcomes.values()),
        "read": sum(counts["read"] for counts in outcomes.values()),
        "formats": {name: dict(counts.most_common()) for name, counts in sorted(outcomes.items())},
        "wrong": wrong,
    }


def _death(child: "subprocess.CompletedProcess[bytes]", folder: Path, keep: Path) -> dict[str, str]:
    """A dead process's error output, and where its last file is kept."""
    keep.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        shutil.copy(path, keep)
    cause = "hang" if child.returncode == -signal.SIGALRM else f"exit code {child.returncode}"
    return {"outcome": cause, "kept": str(keep), "said": child.stderr.decode(errors="replace")[-2_000:]}


def _read_batch(folder: Path, seed: int, batch: int, seconds: float) -> int:
    """Read damaged files and print one JSON line each; SIGALRM kills the process if one hangs."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    rng = np.random.default_rng([seed, batch])
    whole = {name: _whole(folder, *form) for name, form in FORMATS.items()}
    whole |= {name: _encoded(folder, *form) for name, form in AV_FORMATS.items()}
    extensions = {name: form[0] for name, form in (FORMATS | AV_FORMATS).items()}
    names = [*whole, NOISE]
    end = time.monotonic() + seconds
    for _ in range(BATCH):
        if time.monotonic() > end:
            break
        name = names[rng.integers(len(names))]
        content = rng.bytes(int(rng.integers(4_096))) if name == NOISE else damaged(whole[name], rng)
        extension = extensions.get(name)
        if extension is None or rng.random() < 0.1:
            extension = EXTENSIONS[rng.integers(len(EXTENSIONS))]
        path = folder / f"damaged.{extension}"
        path.write_bytes(content)
        signal.alarm(LIMIT)
        try:
            outcome = {"format": name, "outcome": outcome_of(path)}
        except Exception:  # noqa: BLE001  # any other exception is a finding
            outcome = {"format": name, "outcome": "wrong", "said": traceback.format_exc()}
            outcome["hex"] = content.hex()
        signal.alarm(0)
        path.unlink()
        print(json.dumps(outcome), flush=True)
    return 0


def outcome_of(path: Path) -> str:
    """`read`, or the reason for refusing the file; inspecting and reading it must agree."""
    reason, when_read = _reason(decode.inspect, path), _reason(_read, path)
    # silence is refused for training, but can be read
    assert when_read == (None if reason == decode.Reason.SILENT else reason), f"{when_read}, but {reason}"
    return reason or "read"


def _read(path: Path) -> None:
    samples = decode.read(path, RATE)
    assert samples.dtype == np.float32
    assert np.isfinite(samples).all()


def _reason(call: Callable[[Path], object], path: Path) -> str | None:
    try:
        call(path)
    except decode.BadAudio as bad:
        return str(bad.reason)
    return None


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """The bytes with one or a few random faults, half of them near the beginning, in the header."""
    data = bytearray(content)
    for _ in range(rng.geometric(0.5)):
        within = min(len(data), 64) if rng.random() < 0.5 else len(data)
        place = int(rng.integers(within + 1))
        length = int(rng.integers(1, 64))
        match rng.integers(6):
            case 0:
                data[place : place + 1] = bytes([int(rng.integers(256))])
            case 1:
                data[place : place + 4] = SPECIAL_VALUES[rng.integers(len(SPECIAL_VALUES))]
            case 2:
                data[place : place + length] = rng.bytes(length)
            case 3:
                data[place:place] = rng.bytes(length)
            case 4:
                del data[place : place + length]
            case 5:
                del data[int(rng.integers(len(data) + 1)) :]
    return bytes(data)


def _whole(folder: Path, extension: str, form: str, subtype: str) -> bytes:
    """A short sound in two channels, or one if the format has no more."""
    channels = 1 if subtype in ("GSM610", "IMA_ADPCM") else 2
    rate = 48_000 if subtype == "OPUS" else 22_050
    noise = np.random.default_rng(0).normal(scale=0.2, size=(rate // 4, channels))
    path = folder / f"whole.{extension}"
    soundfile.write(path, noise, rate, format=form, subtype=subtype)
    content = path.read_bytes()
    path.unlink()
    return content


def _encoded(folder: Path, extension: str, container: str, codec: str) -> bytes:
    """A short sound encoded by PyAV."""
    noise = np.random.default_rng(0).normal(scale=0.2, size=(2, RATE_ENCODED // 4))
    integers = np.round(np.clip(noise, -1, 1) * 32_767).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(integers, format="s16p", layout="stereo")
    frame.sample_rate, frame.time_base, frame.pts = RATE_ENCODED, Fraction(1, RATE_ENCODED), 0
    path = folder / f"whole.{extension}"
    with av.open(path, "w", format=container) as output:
        stream = output.add_stream(codec, rate=RATE_ENCODED, layout="stereo")
        assert isinstance(stream, av.AudioStream)
        stream.bit_rate = 128_000
        for packet in (*stream.encode(frame), *stream.encode(None)):
            output.mux(packet)
    content = path.read_bytes()
    path.unlink()
    return content


if __name__ == "__main__":
    sys.exit(main())
