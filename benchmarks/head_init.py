"""Compare fine-tunes whose head starts from a linear probe with fine-tunes whose head is random (LP-FT).

    OMP_NUM_THREADS=1 python benchmarks/head_init.py --data MANIFEST --weights alexnet=FILE vgg16=FILE --results FILE

trains each configuration with both heads, in this process with one thread, and prints the paired differences of the
validation F1. Each seed draws its own split. Runs that are already in the results file are skipped; weights that are
not given are random.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from compare import machine
from scipy import stats

from genre_core.models.network import ToImage, build
from genre_core.models.registry import block_names
from genre_core.recipe import Recipe
from genre_core.system.disk_cache import NodeCache
from genre_core.system.progress import ProgressCallback
from genre_core.training.fine_tune import Diverged, FineTune
from genre_core.training.segments import Segments, level_statistics
from search.config.schema import load
from search.data import prepare

HEADS = ("random", "probe")
CONFIDENCE = 0.95
MUSIC, BUILTIN = "music", "builtin"
SHARED: dict[str, Any] = {"front_end": "mel64", "segment_seconds": 3.2, "segments_per_track": 1}
"""Settings of both corpora."""
EASY: dict[str, Any] = {"tracks_per_genre": 20, "seconds": 3.3, "difficulty": 0.05}
"""The built-in corpus."""
TRAINING: dict[str, Any] = {
    "epochs": 5,
    "patience": 100,
    "warmup_epochs": 0.5,
    "momentum": 0.8,
    "batch_size": 16,
}
GRID: tuple[tuple[str, str, int, tuple[float, ...]], ...] = (
    (MUSIC, "densenet121", 4, (0.003, 0.015)),
    (MUSIC, "vgg16", 6, (0.003, 0.015)),
    (MUSIC, "resnet18", 4, (0.003, 0.015)),
    (MUSIC, "alexnet", 6, (0.003, 0.015)),
    (BUILTIN, "densenet121", 4, (0.015,)),
    (BUILTIN, "resnet18", 4, (0.015,)),
    (MUSIC, "alexnet", 4, (0.003,)),
    (MUSIC, "resnet18", 2, (0.015,)),
    (MUSIC, "densenet121", 2, (0.015,)),
    (MUSIC, "alexnet", 0, (0.003,)),
    (MUSIC, "resnet18", 0, (0.015,)),
    (MUSIC, "densenet121", 0, (0.015,)),
    (MUSIC, "vgg16", 5, (0.003,)),
    (BUILTIN, "alexnet", 6, (0.015,)),
    (BUILTIN, "alexnet", 4, (0.015,)),
    (MUSIC, "alexnet", 4, (0.015,)),
    (MUSIC, "alexnet", 0, (0.015,)),
)
"""Corpus, backbone, freeze depth, learning rates. On the built-in corpus, all weights are random."""
_TRAINABLE = {(False, True): "all blocks", (True, False): "last block"}
"""Whether any block is frozen, and whether several are trainable -> name."""


class Printer:
    """A reporter that prints messages and shows no progress."""

    def say(self, text: str) -> None:
        """Print a line."""
        print(text, flush=True)

    @contextmanager
    def progress(self, title: str) -> Iterator[ProgressCallback]:
        """Show nothing."""
        yield lambda done, total: None


def main() -> None:
    """Run what is missing in the results file, and print the table."""
    arguments = _arguments()
    torch.set_num_threads(1)
    file: Path = arguments.results
    runs: list[dict[str, Any]] = json.loads(file.read_text())["runs"] if file.exists() else []
    weights = dict(pair.split("=", 1) for pair in arguments.weights)
    with tempfile.TemporaryDirectory(prefix="gsb") as folder:
        corpora = Corpora(arguments.data, Path(folder))
        for asked in _missing(arguments.seeds, runs):
            given = weights if asked["corpus"] == MUSIC else {}
            runs.append(asked | _run(corpora, given.get(asked["backbone"], "random"), **asked))
            print(json.dumps(runs[-1]), flush=True)
            settings = {"corpora": SHARED, "builtin": EASY, "training": TRAINING}
            content = {"machine": machine(), "settings": settings, "runs": runs}
            file.write_text(json.dumps(content, indent=1) + "\n")
    print(table(runs))


def table(runs: Sequence[dict[str, Any]]) -> str:
    """Markdown: paired differences of F1, with an interval, by kind of weights and trainable blocks, and in detail."""
    pairs = _pairs(runs)
    groups = (["weights", "trainable"], ["corpus", "backbone", "weights", "frozen_blocks"])
    return "\n\n".join(_table(pairs, keys) for keys in groups)


def _table(pairs: pd.DataFrame, keys: list[str]) -> str:
    titles = [*keys, "pairs", "best F1, random", "epoch 1", "epoch 2", "best", "lowest loss"]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for values, own in pairs.groupby(keys, sort=False):
        differences = [_interval(own[name].to_numpy()) for name in titles[-4:]]
        cells = [*map(str, values), str(len(own)), f"{own['random'].mean():.3f}", *differences]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _pairs(runs: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """One row for each configuration and seed: probe minus random."""
    shared = ["corpus", "backbone", "weights", "frozen_blocks", "learning_rate", "seed"]
    rows = []
    for values, pair in pd.DataFrame(runs).groupby(shared, sort=False):
        of_head = {run["head_init"]: dict(run) for run in map(runs.__getitem__, pair.index)}
        if len(of_head) == len(HEADS):
            settings = dict(zip(shared, values, strict=True))
            rows.append(settings | _difference(*(of_head[head] for head in HEADS)))
    return pd.DataFrame(rows)


def _difference(random: dict[str, Any], probe: dict[str, Any]) -> dict[str, Any]:
    """The differences of a pair in F1 and validation loss."""
    f1 = [_all_epochs(run["val_f1"]) for run in (random, probe)]
    blocks = len(block_names(random["backbone"])) - random["frozen_blocks"]
    return {
        "trainable": _TRAINABLE.get((random["frozen_blocks"] > 0, blocks > 1), "about half"),
        "random": max(f1[0]),
        "epoch 1": f1[1][0] - f1[0][0],
        "epoch 2": f1[1][1] - f1[0][1],
        "best": max(f1[1]) - max(f1[0]),
        "lowest loss": min(probe["val_loss"], default=math.nan) - min(random["val_loss"], default=math.nan),
    }


def _all_epochs(f1: Sequence[float]) -> list[float]:
    """F1 by epoch; 0 after a fine-tune has diverged."""
    return [*f1, *[0.0] * (TRAINING["epochs"] - len(f1))]


def _interval(differences: "np.ndarray[Any, np.dtype[np.float64]]") -> str:
    """Mean and half the width of Student's interval; runs of a seed share their split and are taken as independent."""
    count = len(differences)
    if count < 2:
        return f"{differences.mean():+.3f}"
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)
    return f"{differences.mean():+.3f} ± {quantile * differences.std(ddof=1) / math.sqrt(count):.3f}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument(
        "--data", type=Path, required=True, help="a manifest, or a folder with one subfolder per genre"
    )
    parser.add_argument("--weights", nargs="*", default=[], help="BACKBONE=PATH; others are random")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    return parser.parse_args()


def _missing(seeds: int, runs: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    names = ("corpus", "backbone", "frozen_blocks", "learning_rate", "seed", "head_init")
    done = {tuple(run[name] for name in names) for run in runs}
    for seed in range(seeds):
        for corpus, backbone, depth, rates in GRID:
            for asked in product((corpus,), (backbone,), (depth,), rates, (seed,), HEADS):
                if asked not in done:
                    yield dict(zip(names, asked, strict=True))


class Corpora:
    """The segments of both corpora, by the seed of their split."""

    def __init__(self, data: Path, folder: Path) -> None:
        """Args: a manifest or a folder, and where files are cached."""
        self.node_cache = NodeCache(folder / "shared", budget_bytes=2**33)
        self._data, self._folder = data, folder
        self.parts = cache(self._parts)

    def _parts(self, corpus: str, seed: int) -> tuple[Segments, Segments]:
        """The training and validation segments."""
        own = {"data": "builtin", "synthetic": EASY} if corpus == BUILTIN else {"data": str(self._data)}
        config = load(None, {**SHARED, **own, "split.seed": seed, "weights": "random"})
        _, prepared = prepare.prepare(
            config, prepare.read_data(config), cache=self._folder, reporter=Printer()
        )
        assert prepared.validation
        cpu = torch.device("cpu")
        return prepared.train.to(cpu), prepared.validation.to(cpu)


def _run(corpora: Corpora, weights: str, *, corpus: str, seed: int, **settings: Any) -> dict[str, Any]:
    """Train one fine-tune: F1 and losses by epoch."""
    train, validation = corpora.parts(corpus, seed)
    recipe = Recipe(weights=weights, seed=seed, **TRAINING, **settings)
    network = build(
        recipe.backbone,
        weights=weights,
        n_genres=train.n_genres,
        frozen_blocks=recipe.frozen_blocks,
        image=ToImage(*level_statistics(train)),
        seed=seed,
        node_cache=corpora.node_cache,
    )
    fine_tune = FineTune(network, recipe, train=train, validation=validation, node_cache=corpora.node_cache)
    epochs, error = [], None
    try:
        while not fine_tune.finished:
            epochs.append(fine_tune.epoch())
    except Diverged as diverged:
        error = str(diverged)
    return {
        "weights": "random" if weights == "random" else "pretrained",
        "val_f1": [round(epoch.scores.f1, 4) for epoch in epochs],
        "val_loss": [round(epoch.val_loss, 4) for epoch in epochs],
        "train_loss": [round(epoch.train_loss, 4) for epoch in epochs],
        "features_seconds": round(fine_tune.features_seconds, 2),
        "seconds": round(sum(epoch.seconds for epoch in epochs), 2),
        "error": error,
    }


if __name__ == "__main__":
    main()
