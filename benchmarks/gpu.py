"""Measure training on a GPU: images per second, whole trials, and trials side by side, without Ray.

    PYTHONPATH=. python benchmarks/gpu.py [--device cuda|cpu] [--quick] [--families resnet18] [--processes 4 16]
        [--parts rates busy trials processes fused convolutions] [--stacks 1 4 16 64] [--mps]

compares this project's fine-tune with a plain PyTorch loop of the same recipe whose data is on the device, which is
the upper reference, and with the recipe of Ray Tune's PyTorch tutorial. Data is noise and weights are random, which
affects no speed; decoding and log-mels are not part of it. It needs torch, torchvision, torchaudio, numpy, pandas,
pyarrow, scipy, safetensors, filelock and psutil only; `make gpu BIN_PYTHON=python3` runs it after the GPU's tests.
"""

import argparse
import gc
import json
import multiprocessing
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise, product
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

HERE = Path(__file__).parent
sys.path.append(str(HERE / "contenders"))

import gpu_fused  # noqa: E402
import plain  # noqa: E402
from mps import mps_daemon  # noqa: E402

from genre_core.audio.mel import front_end  # noqa: E402
from genre_core.models.initial_weights import initial_weights  # noqa: E402
from genre_core.models.network import ToImage, allow_tf32, build  # noqa: E402
from genre_core.models.registry import BLOCKS  # noqa: E402
from genre_core.recipe import Recipe  # noqa: E402
from genre_core.system.disk_cache import NodeCache  # noqa: E402
from genre_core.training.fine_tune import FineTune  # noqa: E402
from genre_core.training.segments import SegmentArrays, Segments, level_statistics  # noqa: E402
from search.tune.torch_trainer import TorchTrainer, WorkingSet  # noqa: E402

FAMILIES = tuple(BLOCKS)
GENRES = 10
EPOCHS = 5
"""Epochs of a whole trial."""
WINDOW_SECONDS = 8.0
"""How long processes side by side train."""
MEASURED_SECONDS, MAX_REPEATS = 0.25, 7
"""Epochs are repeated until they have taken this long, at least twice and at most so often; their median counts."""
CACHES = ("weights", "kept", "trials")
"""Folders of node caches: without activations, with those of the fine-tunes, with those of whole trials."""
CACHE_BYTES = 16 * 2**30
PARTS = ("rates", "busy", "trials", "processes", "fused", "convolutions")
"""What is measured, in this order."""
FULLY_CONNECTED = (("alexnet", 6), ("alexnet", 5), ("vgg16", 6))
"""Tails with one, two and one hidden linear layers: backbone and depth."""
CONVOLUTION_COUNTS = (4, 16, 64)
"""Trials in a stack of convolutions."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is trained."""

    backbone: str
    depth: int
    batch_size: int
    side: int
    """Pixels of a square image."""
    precision: str

    def recipe(self, epochs: int = EPOCHS) -> Recipe:
        """The recipe of a fine-tune."""
        return Recipe(
            backbone=self.backbone,
            weights="random",
            frozen_blocks=self.depth,
            learning_rate=plain.LEARNING_RATE,
            momentum=plain.MOMENTUM,
            batch_size=self.batch_size,
            precision=self.precision,
            epochs=epochs,
            patience=epochs,
        )


def depths(backbone: str) -> tuple[int, int, int]:
    """Nothing frozen, half of the blocks, all but the head."""
    blocks = len(BLOCKS[backbone])
    return 0, blocks // 2, blocks


def settings(quick: bool, families: Sequence[str]) -> Iterator[Setting]:
    """The measured settings; large batches matter where there is much to train, small images show overheads."""
    side = 64 if quick else 128
    for backbone, precision in product(families, ("float32", "bfloat16")):
        for depth in depths(backbone):
            for batch_size in (32,) if quick or depth == len(BLOCKS[backbone]) else (32, 128):
                yield Setting(
                    backbone=backbone, depth=depth, batch_size=batch_size, side=side, precision=precision
                )
    if not quick:
        for backbone in ("resnet18", "vgg16"):
            for depth in depths(backbone) if backbone in families else ():
                yield Setting(backbone=backbone, depth=depth, batch_size=32, side=64, precision="bfloat16")


def fused_settings(families: Sequence[str], *, quick: bool, side: int, precision: str) -> list[Setting]:
    """Heads of the families, then their fully connected tails; the quick form has one of each."""
    heads = [(name, len(BLOCKS[name])) for name in families]
    tails = [kind for kind in FULLY_CONNECTED if kind[0] in families]
    kinds = [*heads[-1:], *tails[:1]] if quick else [*heads, *tails]
    return [
        Setting(backbone=name, depth=depth, batch_size=32, side=side, precision=precision)
        for name, depth in kinds
    ]


def noise(count: int, side: int) -> SegmentArrays:
    """Segments of noise, one a track."""
    mels = np.random.default_rng(count).normal(plain.MEAN, plain.STD, (count, 1, side, side))
    numbers = np.arange(count)
    return SegmentArrays.of(mels.astype(np.float16), track=numbers, genre=numbers % GENRES, n_genres=GENRES)


class Bench:
    """Measurements on one device."""

    def __init__(self, device: torch.device, segments: int, folder: Path) -> None:
        """Args: the device, the number of training segments, a folder for the caches of activations and weights."""
        self.device = device
        self._folder = folder
        self._data = {side: (noise(segments, side), noise(segments // 4, side)) for side in (64, 128)}
        self._on_device: dict[int, tuple[Segments, Segments]] = {}

    def create_weights(self, backbones: Sequence[str]) -> None:
        """Initialise the networks once, in all caches: it takes seconds, and is not measured."""
        first, *others = (self._folder / name for name in CACHES)
        for backbone in backbones:
            cache = NodeCache(first, budget_bytes=CACHE_BYTES)
            initial_weights(backbone, weights="random", seed=0, node_cache=cache)
        for folder in others:
            folder.mkdir()
            for file in first.glob("[!.]*"):
                os.link(file, folder / file.name)

    def fine_tune(self, setting: Setting, *, cached: bool, recipe: Recipe | None = None) -> FineTune:
        """This project's fine-tune; without `cached`, each lookup computes its activations."""
        allow_tf32(setting.precision != "float32")
        train, validation = self._segments(setting.side)
        cache = NodeCache(self._folder / ("kept" if cached else "weights"), budget_bytes=CACHE_BYTES)
        network = build(
            setting.backbone,
            weights="random",
            n_genres=GENRES,
            frozen_blocks=setting.depth,
            image=ToImage(*level_statistics(train)),
            seed=0,
            node_cache=cache,
            precision=setting.precision,
            device=self.device,
        )
        with caching(cached):
            return FineTune(
                network,
                recipe or setting.recipe(100),
                train=train,
                validation=validation,
                node_cache=cache,
            )

    def _segments(self, side: int) -> tuple[Segments, Segments]:
        """The segments on the device, once for all fine-tunes."""
        if side not in self._on_device:
            train, validation = (part.to(self.device) for part in self._data[side])
            self._on_device[side] = train, validation
        return self._on_device[side]

    def parameters(self, setting: Setting) -> int:
        """Number of trainable parameters."""
        return self.fine_tune(setting, cached=False).network.trainable_parameters

    def rates(self, setting: Setting) -> dict[str, Any]:
        """Images per second by contender."""
        train, _ = self._data[setting.side]
        resident = train.to(self.device)
        count = len(resident)
        own = self.fine_tune(setting, cached=True)
        row: dict[str, Any] = asdict(setting) | {"features": own.features}
        row["ours"] = count / self._epoch_seconds(own.train)
        if own.features == "shared":
            row["ours_computed"] = count / self._epoch_seconds(self.fine_tune(setting, cached=False).train)
        elif setting.depth:
            row["ours_computed"] = row["ours"]
        del own
        arguments: dict[str, Any] = {"batch_size": setting.batch_size}
        reference = plain.resident(
            setting.backbone, setting.depth, resident, precision=setting.precision, **arguments
        )
        row["plain"] = count / self._epoch_seconds(reference)
        if setting.precision == "float32" and not setting.depth:
            reference = plain.resident(
                setting.backbone, setting.depth, resident, precision="tf32", **arguments
            )
            row["plain_tf32"] = count / self._epoch_seconds(reference)
        if setting.precision == "float32" and setting.batch_size == 32:
            tutorial = plain.tutorial(setting.backbone, setting.depth, resident, **arguments)
            row["tutorial"] = count / self._epoch_seconds(tutorial)
        return row

    def _epoch_seconds(self, epoch: Callable[[], object]) -> float:
        """Median seconds of an epoch after a warm-up of one."""
        epoch()
        seconds: list[float] = []
        while len(seconds) < 2 or (sum(seconds) < MEASURED_SECONDS and len(seconds) < MAX_REPEATS):
            self.synchronize()
            began = time.perf_counter()
            epoch()
            self.synchronize()
            seconds.append(time.perf_counter() - began)
        return statistics.median(seconds)

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def busy(self, setting: Setting, trace: Path | None) -> dict[str, Any]:
        """Share of an epoch in which the GPU computes, and kernels per step."""
        own = self.fine_tune(setting, cached=False)
        seconds = self._epoch_seconds(own.train)
        activities = [torch.profiler.ProfilerActivity.CUDA]
        if trace:
            activities.append(torch.profiler.ProfilerActivity.CPU)
        with torch.profiler.profile(activities=activities) as profile:
            own.train()
            self.synchronize()
        if trace:
            profile.export_chrome_trace(str(trace))
        kernels = [
            event
            for event in profile.events() or []
            if event.device_type.name == "CUDA" and not getattr(event, "is_user_annotation", False)
        ]
        steps = -(-len(self._data[setting.side][0].mels) // setting.batch_size)
        return asdict(setting) | {
            "busy": sum(kernel.time_range.elapsed_us() for kernel in kernels) / 1e6 / seconds,
            "kernels_per_step": len(kernels) / steps,
            "step_ms": 1000 * seconds / steps,
        }

    def trial(self, setting: Setting, trainer: TorchTrainer) -> dict[str, Any]:
        """Seconds of a whole trial: preparing with activations, epochs, and releasing memory."""
        times = [time.perf_counter()]
        training = trainer.prepare(setting.recipe())
        self.synchronize()
        times.append(time.perf_counter())
        features = training.facts.features, training.facts.features_seconds
        while not training.finished:
            training.epoch(trial=0, attempt=1)
        times.append(time.perf_counter())
        peak = trainer.memory()
        del training
        trainer.release()
        times.append(time.perf_counter())
        prepare, epochs, release = (after - before for before, after in pairwise(times))
        return {
            "features": features[0],
            "features_seconds": features[1],
            "prepare": prepare,
            "epochs": epochs,
            "release": release,
            "total": times[-1] - times[0],
            "peak_gib": peak / 2**30,
        }

    def trainer(self, side: int) -> TorchTrainer:
        """The trainer of a search, whose workers share activations in the folder."""
        train, validation = self._data[side]
        working_set = WorkingSet(
            genres=(),
            split={},
            train=train,
            validation=validation,
            front_end=front_end("mel128"),
            segments_per_track=1,
            weights=dict.fromkeys(FAMILIES, "random"),
            cache=self._folder,
            data_cache_bytes=0,
            cache_bytes=CACHE_BYTES,
            threads=1,
            device=self.device.type,
            gpu_shared=False,
            epoch_limit=3600.0,
            checkpoints=False,
        )
        cache = NodeCache(self._folder / "trials", budget_bytes=CACHE_BYTES)
        return TorchTrainer(working_set, node_cache=cache, weights=None)


@contextmanager
def caching(allowed: bool) -> Iterator[None]:
    """Let activations be cached where that is faster, or never."""
    if allowed:
        yield
        return
    with patch("genre_core.training.activation_cache.caching_is_faster", lambda *_, **__: False):
        yield


def whole_trials(bench: Bench, kinds: Sequence[Setting]) -> list[dict[str, Any]]:
    """Each kind twice: with an empty cache, and with the activations of the first time."""
    trainer = bench.trainer(kinds[0].side)
    bench.trial(kinds[0], trainer)  # the first trial of a process initialises libraries
    gc.freeze()  # as a worker of a search does: trials end with a collection of garbage
    rows = []
    for setting in kinds[1:]:
        first, again = bench.trial(setting, trainer), bench.trial(setting, trainer)
        rows.append(asdict(setting) | {"first": first, "again": again})
        print_row(setting, first["total"], again["total"])
    return rows


def side_by_side(
    count: int, kinds: Sequence[Setting], device: str, segments: int, folder: Path
) -> dict[str, Any]:
    """Trials per hour of some processes that share the device, each of which trains one trial after another."""
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(count)
    with spawn.Pool(count, initializer=_meet, initargs=(barrier,)) as pool:
        calls = [(number, kinds, device, segments, folder) for number in range(count)]
        trials = pool.starmap(_trials_in_window, calls, chunksize=1)
    return {
        "processes": count,
        "trials": sum(trials),
        "trials_per_hour": sum(trials) * 3600 / WINDOW_SECONDS,
    }


_barrier: Barrier


def _meet(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier


def _trials_in_window(
    number: int, kinds: Sequence[Setting], device: str, segments: int, folder: Path
) -> float:
    """Trials of this process in the window, the last one in part."""
    bench = Bench(torch.device(device), segments, folder)
    trainer = bench.trainer(kinds[0].side)
    bench.trial(kinds[number % len(kinds)], trainer)
    gc.freeze()
    _barrier.wait(300)
    ends, done = time.perf_counter() + WINDOW_SECONDS, 0.0
    while (began := time.perf_counter()) < ends:
        number += 1
        bench.trial(kinds[number % len(kinds)], trainer)
        done += min(1.0, (ends - began) / (time.perf_counter() - began))
    return done


def print_row(setting: Setting, *values: float | str | None) -> None:
    """Print a row of a Markdown table."""
    cells = [
        setting.backbone,
        setting.depth,
        setting.side,
        setting.batch_size,
        setting.precision,
        *(
            "-" if value is None else f"{value:,.3g}" if isinstance(value, float) else value
            for value in values
        ),
    ]
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def print_header(title: str, *columns: str) -> None:
    """Print the head of a Markdown table."""
    names = ["backbone", "frozen", "pixels", "batch", "precision", *columns]
    print(f"\n{title}\n\n| {' | '.join(names)} |\n|{'---|' * len(names)}", flush=True)


Found = dict[str, Any]
"""All results so far, by name."""


def measure(arguments: argparse.Namespace, folder: Path, found: Found, save: Callable[[], None]) -> None:
    """Add the measurements of the parts to `found`, and save after each of them."""
    quick = arguments.quick
    bench = Bench(torch.device(arguments.device), arguments.segments, folder)
    families = arguments.families or (("alexnet", "resnet18") if quick else FAMILIES)
    bench.create_weights(families)
    side = 64 if quick else 128
    kinds = [
        Setting(backbone=name, depth=depth, batch_size=32, side=side, precision=arguments.precision)
        for name in families
        for depth in depths(name)
    ]
    fused = fused_settings(families, quick=quick, side=side, precision=arguments.precision)
    parts: dict[str, Callable[[], None]] = {
        "rates": lambda: measure_rates(bench, settings(quick, families), found, save),
        "busy": lambda: measure_busy(bench, kinds, found, arguments.trace),
        "trials": lambda: measure_trials(bench, kinds, found),
        "processes": lambda: measure_processes(arguments, kinds, folder, found),
        "fused": lambda: measure_fused(bench, arguments, fused, folder, found, save),
        "convolutions": lambda: measure_convolutions(bench, families, side, arguments.precision, found),
    }
    for name, part in parts.items():
        if name in arguments.parts:
            part()
            save()


def measure_rates(bench: Bench, measured: Iterator[Setting], found: Found, save: Callable[[], None]) -> None:
    """Training images per second."""
    contenders = ("ours", "ours_computed", "plain", "plain_tf32", "tutorial")
    print_header("Training images per second", *contenders, "activations", "ours / plain")
    found["rates"] = []
    for setting in measured:
        row = bench.rates(setting)
        found["rates"].append(row)
        rates = [round(row[name]) if name in row else None for name in contenders]
        cells = [None if rate is None else f"{rate:,}" for rate in rates]
        print_row(setting, *cells, row["features"], row["ours"] / row["plain"])
        save()


def measure_busy(bench: Bench, kinds: Sequence[Setting], found: Found, trace: Path | None) -> None:
    """How busy a GPU is."""
    if bench.device.type != "cuda":
        return
    print_header("GPU at work in our loop, activations computed", "share", "kernels per step", "ms per step")
    found["busy"] = []
    for setting in kinds:
        if setting.depth < len(BLOCKS[setting.backbone]):
            row = bench.busy(setting, trace)
            found["busy"].append(row)
            print_row(setting, row["busy"], row["kernels_per_step"], row["step_ms"])


def measure_trials(bench: Bench, kinds: Sequence[Setting], found: Found) -> None:
    """Seconds of whole trials."""
    print_header(f"Seconds of a trial of {EPOCHS} epochs", "empty cache", "warm cache")
    found["trials"] = whole_trials(bench, [kinds[0], *kinds])


def measure_processes(
    arguments: argparse.Namespace, kinds: Sequence[Setting], folder: Path, found: Found
) -> None:
    """Trials side by side, without and with MPS."""
    found["side_by_side"] = _processes(arguments, kinds, folder, "processes")
    if arguments.mps:
        with tempfile.TemporaryDirectory(prefix="mps-") as own, mps_daemon(Path(own)):
            found["side_by_side_mps"] = _processes(arguments, kinds, folder, "processes with MPS")


def _processes(
    arguments: argparse.Namespace, kinds: Sequence[Setting], folder: Path, title: str
) -> list[dict[str, Any]]:
    print(f"\n| {title} | trials per hour |\n|---|---|", flush=True)
    rows = []
    for count in arguments.processes:
        row = side_by_side(count, kinds, arguments.device, arguments.segments, folder)
        rows.append(row)
        print(f"| {count} | {row['trials_per_hour']:,.0f} |", flush=True)
    return rows


def measure_fused(
    bench: Bench,
    arguments: argparse.Namespace,
    kinds: Sequence[Setting],
    folder: Path,
    found: Found,
    save: Callable[[], None],
) -> None:
    """Trials per hour in stacks, one after another, and, for the first and the last kind, in several processes."""
    stacks = [f"stack of {count}" for count in arguments.stacks]
    print_header("Trials per hour without their preparation", "alone", *stacks, "ms of preparation")
    found["fused"] = []
    for setting in kinds:
        row = gpu_fused.stacked_trials(bench, setting, arguments.stacks, EPOCHS)
        found["fused"].append(row)
        rates = [row["alone_per_hour"], *(own["per_hour"] for own in row["stacked"])]
        cells = [None if rate is None else f"{rate:,.0f}" for rate in rates]
        print_row(setting, *cells, f"{1000 * row['prepare']:.0f}")
        save()
    for setting in dict.fromkeys((kinds[0], kinds[-1])):
        title = f"processes, {setting.backbone} frozen {setting.depth}, preparation included"
        row = {"setting": asdict(setting), "rows": _processes(arguments, [setting], folder, title)}
        found.setdefault("fused_processes", []).append(row)


def measure_convolutions(
    bench: Bench, families: Sequence[str], side: int, precision: str, found: Found
) -> None:
    """Convolutions of several trials: milliseconds of forward and backward."""
    names = ("channels", "kernel", "stride", "input", "trials", "alone", "groups", "vmap")
    print(f"\nMilliseconds of forward and backward of one layer of several trials, {precision}\n")
    print(f"| backbone | {' | '.join(names)} |\n|{'---|' * (1 + len(names))}", flush=True)
    found["convolutions"] = []
    for backbone in families:
        for own in gpu_fused.convolutions(backbone, batch_size=32, side=side):
            for count in CONVOLUTION_COUNTS if bench.device.type == "cuda" else CONVOLUTION_COUNTS[:2]:
                times = gpu_fused.stacked_convolution(own, count, device=bench.device, precision=precision)
                row = {"backbone": backbone, **own.facts, "trials": count, **times}
                found["convolutions"].append(row)
                cells = [f"{row[name]:.3g}" if name in times else str(row[name]) for name in names]
                print(f"| {backbone} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--quick", action="store_true", help="small images and batches; the default is two families"
    )
    parser.add_argument(
        "--families", nargs="+", choices=FAMILIES, help="backbones [default: all; quick: two]"
    )
    parser.add_argument("--segments", type=int, default=1024, help="training segments")
    parser.add_argument("--precision", default="bfloat16", help="of whole trials")
    parser.add_argument(
        "--processes", type=int, nargs="*", help="side by side [default: 1 4 16; quick: none]"
    )
    parser.add_argument("--stacks", type=int, nargs="+", default=[1, 4, 16, 64], help="trials in a stack")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure")
    parser.add_argument(
        "--mps",
        action="store_true",
        help="measure processes also with MPS, whose daemon is started and stopped",
    )
    parser.add_argument("--trace", type=Path, help="write a Chrome trace of the last profiled epoch")
    parser.add_argument("--results", type=Path)
    arguments = parser.parse_args()
    if arguments.processes is None:
        arguments.processes = [] if arguments.quick else [1, 4, 16]
    if arguments.mps and not (arguments.processes and "processes" in arguments.parts):
        parser.error("--mps measures processes: add --processes, and `processes` to --parts")
    torch.set_num_threads(1)
    cuda = arguments.device == "cuda"
    name = torch.cuda.get_device_name() if cuda else "cpu"
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    path = arguments.results or HERE / "results" / f"gpu-{slug}.json"
    asked = {key: value for key, value in vars(arguments).items() if key not in ("trace", "results")}
    found: dict[str, Any] = {
        "device": name,
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]  # torch's
        "data": "noise, random weights",
        "asked": asked,
    }
    print(f"{name}, torch {torch.__version__}, {os.cpu_count()} cores; noise as data, random weights")
    began = time.perf_counter()

    def save() -> None:
        found["seconds"] = time.perf_counter() - began
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n")

    with tempfile.TemporaryDirectory() as folder:
        measure(arguments, Path(folder), found, save)
    print(f"\n{found['seconds']:.0f} s; written to {path}")


if __name__ == "__main__":
    main()
