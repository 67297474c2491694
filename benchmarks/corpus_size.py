"""Measure the memory and the time of a search's start as its corpus grows.

    python benchmarks/corpus_size.py [--tracks 1000 10000] [--front-end mel64] [--folder DIR] [--label after]

For each number of tracks it writes a corpus of 30-second tracks without audio (empty files, the findings of an audit,
and a spectrogram store of noise), starts a search with two workers and trials of one epoch, and records the seconds
until the first epoch is on disk and the peak memory of the driver, of each worker and of Ray's object store. The
network is a small one (PROBED below), so that an epoch takes about as long as reading the segments. Adds the results
to results/corpus_size.json. 100,000 tracks take 8 GB on disk with mel64, 33 GB with mel128.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from torch import nn

from genre_core.audio.mel import FrontEnd, front_end
from genre_core.corpus import audit, spectrogram_store
from genre_core.models.backbone import Backbone

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "corpus_size.json"
SECONDS, GENRES = 30.0, 10
BLOCK = 500
"""Tracks of noise that are written again and again."""
SAMPLED_SECONDS = 0.1
WORKERS = ("ray::GenreTrial", "ray::_Inner")
"""Prefixes of the process title of a worker."""
KINDS = {"own": "RssAnon", "mapped": "RssFile", "shared": "RssShmem"}
"""Kind of memory -> its name in /proc/PID/status: the process's own, pages of files, and Ray's object store."""


class Probed(nn.Module):
    """Averages a segment to 8 x 8 pixels, which go through one layer."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(8), nn.Flatten())
        self.hidden = nn.Sequential(nn.Linear(3 * 64, 64), nn.ReLU())


PROBED = Backbone(
    model=Probed,
    blocks={"pool": lambda net: net.pool, "hidden": lambda net: net.hidden},
    features=64,
)


def main() -> None:
    """Generate the corpora, search them, and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tracks", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--front-end", default="mel64")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--label", default="after")
    arguments = parser.parse_args()
    for tracks in arguments.tracks:
        with tempfile.TemporaryDirectory(prefix="gsc", dir=arguments.folder) as folder:
            generate(Path(folder), tracks, front_end(arguments.front_end))
            measured = measure(Path(folder), arguments.front_end)
        record(f"{arguments.label}, {tracks} tracks, {arguments.front_end}", measured)


def generate(folder: Path, tracks: int, setting: FrontEnd) -> None:
    """Write a corpus as a search finds it after its audit and its spectrograms: music/ and cache/ in the folder."""
    paths = [folder / "music" / f"genre{n % GENRES}" / f"{n:06d}.wav" for n in range(tracks)]
    for genre in {path.parent for path in paths}:
        genre.mkdir(parents=True)
    for path in paths:
        path.touch()
    rows = [_finding(path) for path in paths]
    (cache := folder / "cache").mkdir()
    table = pa.Table.from_pylist(rows, schema=audit.CACHE_SCHEMA)
    pq.write_table(table, cache / audit.CACHE_NAME, row_group_size=audit.CACHE_ROWS)
    identities = [str(row["file_hash"]) for row in rows]
    store = cache / "spectrograms" / spectrogram_store._name(identities, setting)
    store.mkdir(parents=True)
    frames = 1 + int(SECONDS * setting.sample_rate) // setting.hop_length
    places = {name: (number * frames, frames) for number, name in enumerate(identities)}
    (store / "index.json").write_text(json.dumps(places))
    random = np.random.default_rng(0)
    shape = (BLOCK, frames, len(setting.windows), setting.n_mels)
    noise = (random.standard_normal(shape, np.float32) * 15 - 50).astype(np.float16)
    with (store / "mels.f16").open("wb") as file:
        for first in range(0, tracks, BLOCK):
            noise[: tracks - first].tofile(file)
        os.fsync(file.fileno())


def _finding(path: Path) -> dict[str, object]:
    status = path.stat()
    content = hashlib.sha256(path.name.encode()).hexdigest()
    return {
        "path": str(path),
        "size": status.st_size,
        "modified": status.st_mtime_ns,
        "seconds": SECONDS,
        "content": content,
        "file_hash": content,
        "warnings": [],
    }


def measure(folder: Path, front_end_name: str) -> dict[str, object]:
    """Run a search of two trials with one epoch each; seconds and peaks of memory in MB."""
    settings = {
        "front_end": front_end_name,
        "space.backbone": "corpus_size:PROBED",
        "space.frozen_blocks": 0,
        "space.learning_rate": {"low": 1e-4, "high": 1e-3, "log": True},
        "space.momentum": 0.9,
        "space.batch_size": 256,
        "weights": "random",
        "training.epochs": 1,
        "training.head_init": "random",
        "workers": 2,
    }
    pairs = [part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    arguments = [
        "run",
        "--data",
        folder / "music",
        "--runs",
        folder,
        "--name",
        "run",
        "--trials",
        "2",
        *pairs,
    ]
    paths = [str(HERE), str(HERE.parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = {
        "GENRE_SEARCH_CACHE": str(folder / "cache"),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    began = time.monotonic()
    with (folder / "log").open("w") as log:
        driver = subprocess.Popen(
            [str(Path(sys.executable).parent / "genre-search"), *map(str, arguments)],
            env=os.environ | environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        peaks: defaultdict[str, dict[str, float]] = defaultdict(lambda: dict.fromkeys(KINDS, 0.0))
        first_epoch = None
        while driver.poll() is None:
            for role, used in _memory(driver.pid):
                peaks[role] = {kind: max(peaks[role][kind], used[kind]) for kind in KINDS}
            if first_epoch is None and any(folder.glob("run/results/epochs/*.parquet")):
                first_epoch = time.monotonic() - began
            time.sleep(SAMPLED_SECONDS)
    assert driver.returncode == 0, (folder / "log").read_text()
    workers = [used for role, used in peaks.items() if role.startswith("worker")]
    return {
        "store MB": round(sum(file.stat().st_size for file in folder.rglob("*.f16")) / 1e6),
        "seconds to first epoch": None if first_epoch is None else round(first_epoch, 1),
        "seconds in all": round(time.monotonic() - began, 1),
        "driver MB": {kind: round(peaks["driver"][kind]) for kind in KINDS},
        "worker MB": {kind: round(max(used[kind] for used in workers)) for kind in KINDS},
        "workers": len(workers),
    }


def _memory(driver: int) -> Iterator[tuple[str, dict[str, float]]]:
    """The driver and the workers, each with its memory by kind in MB."""
    with suppress(psutil.Error, OSError):
        yield "driver", _used(driver)
        for process in psutil.Process(driver).children(recursive=True):
            with suppress(psutil.Error, OSError):
                if " ".join(process.cmdline()).startswith(WORKERS):
                    yield f"worker {process.pid}", _used(process.pid)


def _used(pid: int) -> dict[str, float]:
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {kind: int(lines.get(name, "0").split()[0]) * 1024 / 1e6 for kind, name in KINDS.items()}


def record(name: str, measured: dict[str, object]) -> None:
    """Print a result and add it to the file."""
    print(name, json.dumps(measured), flush=True)
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    partial = RESULTS.with_suffix(".partial")
    partial.write_text(json.dumps(known | {name: measured}, indent=1) + "\n")
    shutil.move(partial, RESULTS)


if __name__ == "__main__":
    main()
