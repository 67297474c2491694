"""Record a surface: uniform random trials without pruning, and what each kind of trial costs.

    python benchmarks/surfaces/record.py curves CONFIG.yaml RUN [--processes 2] [--device cuda]
    python benchmarks/surfaces/record.py costs CONFIG.yaml RUN [--device cuda]
    python benchmarks/surfaces/record.py pack RUN SURFACE

`curves` trains in processes with one thread each, and continues where it was interrupted. `costs` measures each
(backbone, freeze depth), because curves may be recorded on a busy machine: on a CPU the seconds of one thread, which
other load hardly changes; on a GPU the seconds until it has finished, while nothing else may run. `pack` writes the
folder that `genre-search simulate` reads: the curves with the measured seconds. No Ray is needed.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import optuna
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.numpy import load_file, save_file

from genre_core.corpus.corpus_table import write_corpus
from genre_core.models.registry import block_names
from genre_core.recipe import Recipe
from genre_core.system.disk_cache import NodeCache
from genre_core.system.progress import ProgressCallback
from search.config.schema import SearchConfig, load, to_yaml
from search.data import prepare
from search.engine.ports import Diverged
from search.run.folder import RunFolder
from search.run.schemas import EPOCHS, TRIALS, EpochRow, TrialRow, new_trial
from search.run.tables import ResultsWriter, read_epochs, read_trials
from search.study.suggest import sample
from search.tune.torch_trainer import TorchTrainer, WorkingSet

T = TypeVar("T")

MEASURED_EPOCHS = 2
"""Epochs per (backbone, depth) in `costs`; the faster one counts, because the first one warms up."""


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
    """Run the chosen step."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=("curves", "costs", "pack"))
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--processes", type=int, default=1, help="1 on a GPU, to measure costs")
    given = parser.parse_args()
    match given.step:
        case "curves":
            curves(given.source, given.target, device=given.device, processes=given.processes)
        case "costs":
            costs(given.source, given.target, device=given.device, processes=given.processes)
        case "pack":
            pack(given.source, given.target)


def curves(source: Path, run: Path, *, device: str, processes: int) -> None:
    """Train every trial of the configuration that the run does not have yet."""
    config, given = _prepare(source, run, device=device)
    writer = ResultsWriter(run)
    done = {int(row["trial"]): row for row in _rows(run) if row["state"] != "RUNNING"}
    for earlier in done.values():
        writer.put_trial(TrialRow(**earlier))
    left = [(number, recipe) for number, recipe in enumerate(recipes(config)) if number not in done]
    with _processes(processes, given, run) as pool:
        for task in as_completed([pool.submit(_train, number, recipe) for number, recipe in left]):
            row, epochs = task.result()
            for epoch in epochs:
                writer.add_epoch(epoch, row)
            writer.put_trial(row)
            print(row.trial, row.backbone, row.frozen_blocks, row.state, row.val_f1, row.seconds, flush=True)
    writer.flush()


def recipes(config: SearchConfig) -> list[Recipe]:
    """The recipes of all trials, drawn uniformly."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=config.seed))
    return [sample(study.ask(), config) for _ in range(config.trials)]


@dataclass(frozen=True)
class _Worker:
    """What a process of the pool works with."""

    given: WorkingSet
    trainer: TorchTrainer
    name: str


_WORKERS: list[_Worker] = []
"""The only element is this process."""


def _processes(count: int, given: WorkingSet, run: Path) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        count, mp_context=get_context("spawn"), initializer=_start, initargs=(given, run)
    )


def _start(given: WorkingSet, run: Path) -> None:
    _WORKERS.append(_Worker(given, _trainer(given, run / "cache"), run.name))


def _train(number: int, recipe: Recipe) -> tuple[TrialRow, list[EpochRow]]:
    """Train a trial in a process of the pool."""
    trainer = _WORKERS[0].trainer
    row, epochs = new_trial(_WORKERS[0].name, number, recipe, started=datetime.now(UTC)), []
    began = time.perf_counter()
    try:
        training = trainer.prepare(recipe)
        row.features, row.features_seconds = training.facts.features, training.facts.features_seconds
        row.trainable_parameters = training.facts.trainable_parameters
        while not training.finished:
            epoch = training.epoch(trial=number, attempt=1)
            row.epochs, row.seconds = epoch.epoch, time.perf_counter() - began
            if training.best_epoch == epoch.epoch:
                row.best_epoch, row.val_f1, row.val_loss = epoch.epoch, epoch.val_f1, epoch.val_loss
                row.val_accuracy, row.val_precision = epoch.val_accuracy, epoch.val_precision
                row.val_recall = epoch.val_recall
            epochs.append(epoch)
        row.state = "COMPLETE"
    except Diverged as error:
        row.state, row.error = "FAIL", str(error)
    row.finished = datetime.now(UTC)
    trainer.release()
    return row, epochs


def costs(source: Path, run: Path, *, device: str, processes: int) -> None:
    """Measure each (backbone, depth): the network, the activations, an epoch, a checkpoint."""
    config, given = _prepare(source, run, device=device)
    kinds = [
        _recipe(config, backbone, depth)
        for backbone in config.backbones
        for depth in range(len(block_names(backbone)) + 1)
    ]
    with _processes(processes, given, run) as pool:
        rows = []
        for row in pool.map(_measure, kinds):
            rows.append(row)
            print(row, flush=True)
    pd.DataFrame(rows).to_parquet(run / "costs.parquet", index=False)


def _recipe(config: SearchConfig, backbone: str, depth: int) -> Recipe:
    """A recipe that does not diverge."""
    small = {"backbone": backbone, "learning_rate": 1e-4, "momentum": 0.5, "frozen_blocks": depth}
    fixed = config.model_copy(update={"space": config.space.model_copy(update=small)})
    return sample(optuna.trial.FixedTrial({}), fixed)


def _measure(recipe: Recipe) -> dict[str, Any]:
    given = _WORKERS[0].given
    timed = _gpu_timed if given.device == "cuda" else _cpu_timed
    with tempfile.TemporaryDirectory(prefix="costs-") as folder:
        trainer = _trainer(given, Path(folder) / "cache")
        training, _ = timed(lambda: trainer.prepare(recipe))
        features_seconds = training.facts.features_seconds
        del training
        trainer.release()
        training, build_seconds = timed(lambda: trainer.prepare(recipe))
        epoch_seconds = min(
            timed(lambda: training.epoch(trial=0, attempt=1))[1] for _ in range(MEASURED_EPOCHS)
        )
        file = Path(folder) / "checkpoint"
        _, save_seconds = timed(lambda: save_file(dict(training.state()), file))
        _, restore_seconds = timed(lambda: training.load(load_file(file)))
        return {
            "backbone": recipe.backbone,
            "frozen_blocks": recipe.frozen_blocks,
            "features_seconds": features_seconds,
            "build_seconds": build_seconds,
            "epoch_seconds": epoch_seconds,
            "checkpoint_bytes": file.stat().st_size,
            "save_seconds": save_seconds,
            "restore_seconds": restore_seconds,
        }


def _cpu_timed(work: Callable[[], T]) -> tuple[T, float]:
    """The result of some work and its CPU seconds."""
    began = time.process_time()
    result = work()
    return result, time.process_time() - began


def _gpu_timed(work: Callable[[], T]) -> tuple[T, float]:
    """The result of some work and the seconds until the GPU has finished it."""
    torch.cuda.synchronize()
    began = time.perf_counter()
    result = work()
    torch.cuda.synchronize()
    return result, time.perf_counter() - began


def pack(run: Path, surface: Path) -> None:
    """Write the small folder that can be replayed, with the measured seconds in place of the recorded ones."""
    trials, epochs = read_trials(run), read_epochs(run)
    measured = pd.read_parquet(run / "costs.parquet").set_index(["backbone", "frozen_blocks"])
    kind = pd.MultiIndex.from_frame(trials[["backbone", "frozen_blocks"]])
    cost = measured.loc[kind].set_index(trials.index)
    trials["features_seconds"] = cost["features_seconds"]
    trials["training_seconds"] = cost["epoch_seconds"] * trials["epochs"] + cost["build_seconds"]
    trials["seconds"] = trials["training_seconds"] + trials["features_seconds"]
    trials["study"] = surface.name
    trials["weights"] = trials["weights"].where(trials["weights"] == "random", "pretrained")
    epochs["seconds"] = epochs["trial"].map(dict(zip(trials["trial"], cost["epoch_seconds"], strict=True)))
    for name in ("arithmetic_seconds", "samples_per_second"):
        epochs[name] = None
    target = RunFolder(surface)
    target.epochs.mkdir(parents=True, exist_ok=True)
    _write(trials, TRIALS, target.trials)
    _write(epochs, EPOCHS, target.epochs / "all.parquet")
    shutil.copyfile(run / "costs.parquet", surface / "costs.parquet")


def _write(rows: pd.DataFrame, schema: pa.Schema, file: Path) -> None:
    pq.write_table(pa.Table.from_pandas(rows, schema=schema, preserve_index=False), file, compression="zstd")


def _prepare(source: Path, run: Path, *, device: str) -> tuple[SearchConfig, WorkingSet]:
    """The configuration and the data of its trials, prepared once."""
    config = load(source, {})
    run.mkdir(parents=True, exist_ok=True)
    tracks, prepared = prepare.prepare(
        config, prepare.read_data(config), cache=run / "cache", reporter=Printer()
    )
    write_corpus(tracks, RunFolder(run).corpus)
    RunFolder(run).config.write_text(to_yaml(config), encoding="utf-8")
    return config, WorkingSet.of(
        config,
        genres=prepared.genres,
        split=prepared.split,
        cache=run / "cache",
        train=prepared.train,
        validation=prepared.validation,
        weights=prepared.weights,
        device=device,
        gpu_shared=False,
    )


def _trainer(given: WorkingSet, cache: Path) -> TorchTrainer:
    return TorchTrainer(
        given, node_cache=NodeCache(cache / "shared", budget_bytes=given.cache_bytes), weights=None
    )


def _rows(run: Path) -> list[dict[str, Any]]:
    file = RunFolder(run).trials
    rows: list[dict[str, Any]] = pq.read_table(file).to_pylist() if file.exists() else []
    return rows


if __name__ == "__main__":
    main()
