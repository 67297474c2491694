"""Compare throughput: the same configurations on the same data, run by this project and by four other systems.

    python benchmarks/compare.py --data MANIFEST --weights alexnet=PATH --weights vgg16=PATH

writes results/compare.json and prints the tables. Needs Syne Tune (genre-search[bench]).
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

from genre_core.audio.mel import front_end
from genre_core.corpus.audit import audit
from genre_core.corpus.splits import split_corpus
from genre_core.corpus.tracks import read_corpus
from genre_core.models.registry import block_names

HERE = Path(__file__).parent
BACKBONES = ("alexnet", "densenet121", "resnet18", "resnet34", "vgg16")
FRONT_END, SEGMENT_SECONDS = "mel64", 3.0
LEARNING_RATES, MOMENTA = (1e-3, 5e-2), (0.5, 0.95)
SLOW_LEARNING_RATES = (1e-5, 5e-4)
"""Range for the list of configurations: none diverges, which (a) would stop early and the others would not."""

CONTENDERS = {
    "a": ("ours.py", "genre-search"),
    "a warm": ("ours.py", "genre-search, warm cache"),
    "a bf16": ("ours.py", "genre-search, bfloat16"),
    "b": ("ours.py", "genre-search, cache off"),
    "c": ("ray_tutorial.py", "Ray Tune's PyTorch tutorial"),
    "d": ("optuna_processes.py", "Optuna in processes"),
    "e": ("syne_tune_local.py", "Syne Tune, local backend"),
}
"""Letter -> script and title."""

DEPTHS = {
    "nothing frozen": (0.0, 0.0),
    "less than half": (0.01, 0.49),
    "half or more": (0.5, 0.99),
    "head only": (1.0, 1.0),
}
"""Title -> lowest and highest fraction of frozen blocks."""

Run = dict[str, Any]
Trial = dict[str, Any]


def main() -> None:
    """Run the contenders, and write and print the results."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="gsb", dir="/tmp") as folder:
        scratch = Path(folder)
        task = _task(arguments, scratch)
        runs: list[Run] = []
        for repeat in range(arguments.repeats):
            for letter in arguments.contenders:
                runs.append(_run(letter, repeat, task, scratch))
                print(_line(runs[-1]), flush=True)
                _write(arguments, runs)
    if arguments.target:
        target = arguments.target if arguments.within is None else best_f1(runs) - arguments.within
        print(time_table(runs, target))
    else:
        print(throughput_table(runs), depth_table(runs), sep="\n\n")


def throughput_table(runs: Sequence[Run]) -> str:
    """Markdown: each contender's best repeat, and the median speed-up over (c) per configuration."""
    best = {letter: _best(runs, letter) for letter in CONTENDERS if any(r["letter"] == letter for r in runs)}
    lines = [
        "| | rate relative to (c) | all depths | deeper half | head only"
        " | trials per hour | overhead per trial | arithmetic | start |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for letter, run in best.items():
        ratios = _ratios(best["c"], run) if "c" in best else []
        cells = [
            f"{run['rate'] / best['c']['rate']:.1f}" if "c" in best else "",
            *[_median([r for share, r in ratios if low <= share]) for low in (0.0, 0.5, 1.0)],
            f"{run['rate']:.0f}",
            f"{run['overhead']:.2f} s",
            f"{run['arithmetic_share']:.0%}",
            f"{run['start']:.0f} s",
        ]
        lines.append(f"| ({letter}) {CONTENDERS[letter][1]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def depth_table(runs: Sequence[Run]) -> str:
    """Markdown: (c)'s median seconds by backbone and fraction of frozen blocks; speed-ups with (a) and (a warm)."""
    letters = [letter for letter in ("c", "a", "a warm") if any(run["letter"] == letter for run in runs)]
    if "c" not in letters:
        return ""
    seconds = {letter: _seconds(_best(runs, letter)) for letter in letters}
    lines = [f"| backbone | {' | '.join(DEPTHS)} |", "|---" * (1 + len(DEPTHS)) + "|"]
    for backbone in dict.fromkeys(sorted(key[0] for key in seconds["c"])):
        cells = []
        for low, high in DEPTHS.values():
            keys = [k for k in seconds["c"] if k[0] == backbone and low <= _frozen_share(k) <= high]
            ratios = [_median([seconds["c"][k] / seconds[letter][k] for k in keys]) for letter in letters[1:]]
            cells.append(
                f"{_median([seconds['c'][k] for k in keys])} s: {', '.join(ratios)}" if keys else "-"
            )
        lines.append(f"| {backbone} | {' | '.join(cells)} |")
    return "\n".join(lines)


def best_f1(runs: Sequence[Run]) -> float:
    """The best validation F1 of all runs."""
    return float(max((f1 for run in runs for _, f1 in run["improvements"]), default=0.0))


def time_table(runs: Sequence[Run], target: float) -> str:
    """Markdown: seconds until the first validation F1 of at least the target, including the start.

    Median and each repeat; `inf` where the limit came first.
    """
    lines = [f"| | seconds until F1 {target:.3f} | speed relative to (c) |", "|---|---|---|"]
    times = {
        letter: [_seconds_to(target, run) for run in runs if run["letter"] == letter]
        for letter in dict.fromkeys(run["letter"] for run in runs)
    }
    for letter, own in times.items():
        ratio = f"{median(times['c']) / median(own):.1f}" if "c" in times else ""
        each = ", ".join(f"{seconds:.0f}" for seconds in sorted(own))
        lines.append(f"| ({letter}) {CONTENDERS[letter][1]} | {median(own):.0f} ({each}) | {ratio} |")
    return "\n".join(lines)


def _seconds_to(target: float, run: Run) -> float:
    return next((seconds for seconds, f1 in run["improvements"] if f1 >= target), float("inf"))


def machine() -> str:
    """Processor, cores and memory of this machine."""
    model = next(
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB"


def _write(arguments: argparse.Namespace, runs: Sequence[Run]) -> None:
    """Write the results so far."""
    asked = {name: value for name, value in vars(arguments).items() if name not in ("data", "weights")}
    out = HERE / "results" / ("time_to_f1.json" if arguments.target else "compare.json")
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps({"machine": machine(), "asked": asked, "runs": runs}, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, required=True, help="a manifest, or a folder with one subfolder per genre"
    )
    parser.add_argument("--weights", action="append", default=[], help="BACKBONE=PATH; others are random")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--trials", type=int, default=60, help="trials per contender, without --target")
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES))
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--loader-workers", type=int, default=0, help="num_workers of the other systems' DataLoader"
    )
    parser.add_argument("--target", type=float, help="instead, search with pruning until this validation F1")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds per contender with --target")
    parser.add_argument(
        "--within",
        type=float,
        help="with a --target that is out of reach, such as 1: compare the times to the best F1 of all minus this",
    )
    return parser.parse_args()


def _task(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """The task of every contender."""
    setting = front_end(FRONT_END)
    corpus = split_corpus(
        audit(read_corpus(arguments.data), minimum_seconds=SEGMENT_SECONDS, cache=scratch / "audit"),
        validation=0.2,
        test=0.2,
        seed=0,
    )
    manifest = scratch / "manifest.csv"
    columns = ("path", "genre", "group", "split")
    pd.DataFrame([{name: getattr(track, name) for name in columns} for track in corpus.usable]).to_csv(
        manifest, index=False
    )
    configurations = [] if arguments.target else _configurations(arguments.backbones, arguments.trials)
    return {
        "manifest": str(manifest),
        "weights": dict(pair.split("=", 1) for pair in arguments.weights),
        "configurations": configurations,
        "n_blocks": {backbone: len(block_names(backbone)) for backbone in arguments.backbones},
        "learning_rate": LEARNING_RATES,
        "momentum": MOMENTA,
        "trials": len(configurations) or 1000,
        "epochs": arguments.epochs,
        "batch_size": 32,
        "workers": arguments.workers,
        "loader_workers": arguments.loader_workers,
        "target": arguments.target,
        "limit": arguments.limit,
        "front_end": FRONT_END,
        "sample_rate": setting.sample_rate,
        "n_fft": setting.n_fft,
        "hop_length": setting.hop_length,
        "n_mels": setting.n_mels,
        "segment_seconds": SEGMENT_SECONDS,
        "segment_frames": setting.frames(SEGMENT_SECONDS),
    }


def _configurations(backbones: Sequence[str], trials: int) -> list[dict[str, Any]]:
    """Random configurations in random order: equally many per backbone, with a uniformly drawn freeze depth."""
    random = np.random.default_rng(0)
    return [
        {
            "backbone": backbones[i],
            "frozen_blocks": int(random.integers(len(block_names(backbones[i])), endpoint=True)),
            "learning_rate": float(np.exp(random.uniform(*np.log(SLOW_LEARNING_RATES)))),
            "momentum": float(random.uniform(*MOMENTA)),
        }
        for i in random.permutation(np.arange(trials) % len(backbones))
    ]


def _run(letter: str, repeat: int, task: dict[str, Any], scratch: Path) -> Run:
    """Run a contender once, in its own process group; `a warm` uses the cache of the preceding `a`."""
    place = scratch / f"{letter.replace(' ', '-')}-{repeat}"
    place.mkdir()
    cache = scratch / f"cache-{letter.removesuffix(' warm').replace(' ', '-')}-{repeat}"
    own = {
        "seed": repeat,
        "log": str(place / "log.jsonl"),
        "scratch": str(place / "scratch"),
        "cache": str(cache),
        "feature_cache": 0 if letter == "b" else 20,
        "precision": "bfloat16" if letter == "a bf16" else "float32",
    }
    (place / "task.json").write_text(json.dumps(task | own))
    environment = os.environ | {
        "PYTHONPATH": f"{HERE / 'contenders'}:{HERE.parent}",
        "OMP_NUM_THREADS": "1",
        "SYNETUNE_FOLDER": str(place / "syne"),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    command = [sys.executable, str(HERE / "contenders" / CONTENDERS[letter][0]), str(place / "task.json")]
    began = time.time()
    with (place / "output.txt").open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=environment, start_new_session=True
        )
        _watch(process, place / "log.jsonl", task, began)
    ended = time.time()
    lines = _lines(place / "log.jsonl")
    trials = [line for line in lines if "began" in line]
    if task["target"] is None and len(trials) < task["trials"]:
        raise SystemExit(f"({letter}) ended early:\n{(place / 'output.txt').read_text()[-3000:]}")
    shutil.rmtree(place / "scratch", ignore_errors=True)
    if letter != "a":
        shutil.rmtree(cache, ignore_errors=True)
    run = {
        "letter": letter,
        "repeat": repeat,
        "wall": ended - began,
        "improvements": _improvements(lines, began),
    }
    return run | _summary(trials, began, task["workers"]) | {"trials": trials}


def _watch(process: "subprocess.Popen[bytes]", log: Path, task: dict[str, Any], began: float) -> None:
    """Wait for the end, or for the target or the limit, and kill the process group then."""
    while process.poll() is None:
        time.sleep(0.2)
        if task["target"] is None:
            continue
        reached = any(line.get("f1", 0.0) >= task["target"] for line in _lines(log))
        if reached or time.time() - began > task["limit"]:
            break
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        time.sleep(3)
    with contextlib.suppress(ProcessLookupError):  # no process of the group is left
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _improvements(lines: Sequence[dict[str, Any]], began: float) -> list[tuple[float, float]]:
    """Each new best validation F1, with the seconds since the start: [(seconds, F1)]."""
    found: list[tuple[float, float]] = []
    for line in sorted((line for line in lines if "f1" in line), key=lambda line: float(line["at"])):
        if not found or line["f1"] > found[-1][1]:
            found.append((line["at"] - began, line["f1"]))
    return found


def _lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def _summary(trials: Sequence[dict[str, Any]], began: float, workers: int) -> dict[str, float]:
    """Start (until the first trial trains), rate and overhead (a worker's seconds between two trials, per trial)."""
    if len(trials) <= workers:
        return {}
    starts = sorted(trial["began"] for trial in trials)
    followed = [pair for lane in _lanes(trials, workers) for pair in lane]
    overhead = float(np.mean([later["began"] - earlier["ended"] for earlier, later in followed]))
    for trial in trials:
        trial["overhead"] = overhead  # for a worker's first trial, which has no predecessor
    for earlier, later in followed:
        later["overhead"] = later["began"] - earlier["ended"]
    busy = sum(trial["seconds"] for trial in trials) + len(trials) * overhead
    return {
        "start": starts[0] - began,
        "overhead": overhead,
        "rate": 3600 * workers * len(trials) / busy,
        "arithmetic_share": sum(trial["arithmetic"] for trial in trials) / busy,
    }


def _lanes(trials: Sequence[Trial], workers: int) -> list[list[tuple[Trial, Trial]]]:
    """Pairs of consecutive trials per worker process; if each trial has its own process, in order of time."""
    begun, ended = (sorted(trials, key=lambda trial: float(trial[moment])) for moment in ("began", "ended"))
    if "worker" not in trials[0]:
        return [list(zip(ended, begun[workers:], strict=False))]
    return [
        list(pairwise([trial for trial in begun if trial["worker"] == worker]))
        for worker in {trial["worker"] for trial in trials}
    ]


def _best(runs: Sequence[Run], letter: str) -> Run:
    return max((run for run in runs if run["letter"] == letter), key=lambda run: float(run["rate"]))


def _ratios(reference: Run, run: Run) -> list[tuple[float, float]]:
    """For each configuration, (fraction of frozen blocks, the reference's seconds divided by the run's)."""
    theirs, ours = _seconds(reference), _seconds(run)
    return [(_frozen_share(key), theirs[key] / ours[key]) for key in theirs if key in ours]


def _seconds(run: Run) -> dict[tuple[Any, ...], float]:
    """Seconds of each configuration, including overhead."""
    names = ("backbone", "frozen_blocks", "learning_rate", "momentum")
    return {tuple(t[name] for name in names): t["seconds"] + t["overhead"] for t in run["trials"]}


def _frozen_share(configuration: tuple[Any, ...]) -> float:
    return float(configuration[1] / len(block_names(configuration[0])))


def _median(ratios: Sequence[float]) -> str:
    return f"{median(ratios):.1f}" if ratios else "-"


def _line(run: Run) -> str:
    name = f"({run['letter']}) repeat {run['repeat']}: {run['wall']:.0f} s, {len(run['trials'])} trials"
    rate = f", {run['rate']:.0f} trials per hour" if "rate" in run else ""
    if not run["improvements"]:
        return name + rate
    seconds, f1 = run["improvements"][-1]
    return f"{name}{rate}, best F1 {f1:.3f} after {seconds:.0f} s"


if __name__ == "__main__":
    main()
