"""Memory of a GPU: nothing is kept after a trial, running out of it has a way out, and two workers share it."""

import json
import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle, islice, product
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import Ledger
from noise import GENRES, RECIPE, arrays
from numpy.typing import NDArray
from on_device import (
    KINDS,
    MARKS,
    NEEDS_GPU,
    ON_GPU,
    TRAIN,
    VALIDATION,
    allocated,
    deterministic,
    models,
    session,
    trainer,
)

from genre_core.recipe import Recipe
from genre_core.training.segments import SegmentArrays
from search.engine.gpu_demand import CONTEXT_BYTES
from search.engine.messages import Assignment, EpochReport, Failure, Report, Waiting
from search.engine.ports import Arrays
from search.engine.worker import WorkerSession
from search.tune.gpu_ledger import GpuMemoryLedger
from search.tune.torch_trainer import TorchTrainer, TorchTraining

pytestmark = MARKS
Logits = NDArray[np.float32]
SPAWN = multiprocessing.get_context("spawn")
TRIALS = 50
WARM_UP = 2 * len(KINDS)
"""Trials after which libraries hold all the buffers that they keep."""
MIB = 2**20
HOST_GROWTH = 200 * MIB
"""Upper bound on what the process may grow by within the trials, which is that of its allocators."""
BIG = 2**30
"""Bytes of the data that does not fit."""


@pytest.fixture(autouse=True)
def networks() -> Iterator[None]:
    with models():
        yield


def recipes() -> Iterator[Recipe]:
    """All backbones at three depths with two batch sizes and both precisions; one in seven diverges."""
    variants = product(("float32", "bfloat16"), (16, 48))
    for number, ((backbone, depth), (precision, batch)) in enumerate(zip(cycle(KINDS), cycle(variants))):
        rate = 1e20 if number % 7 == 6 else 0.01
        changes: dict[str, Any] = {"precision": precision, "batch_size": batch, "learning_rate": rate}
        yield replace(RECIPE, backbone=backbone, frozen_blocks=depth, **changes)


def test_after_trials_of_all_kinds_no_memory_is_held(tmp_path: Path) -> None:
    own = trainer(tmp_path, TRAIN, VALIDATION, cache_bytes=2**32)
    worker = session(tmp_path, own)
    before, resident = 0, 0
    reports = []
    for number, recipe in enumerate(islice(recipes(), WARM_UP + TRIALS)):
        worker.begin(Assignment(trial=number, recipe=recipe))
        reports += [worker.step() for _ in range(1 + number % 2)]  # half of the trials are stopped midway
        if number == WARM_UP - 1:
            worker.release()
            before, resident = allocated(), host_bytes()
    worker.release()
    assert {type(report) for report in reports} == {EpochReport, Failure}, reports
    print(f"allocated {before / MIB:.1f} MiB before, {allocated() / MIB:.1f} MiB after {TRIALS} trials")
    assert allocated() <= before
    if ON_GPU:
        assert torch.cuda.memory_reserved() <= before + 64 * MIB, "the rest is returned to other processes"
    assert host_bytes() <= resident + HOST_GROWTH


def test_paused_trials_continue_in_the_devices_memory_with_the_same_bits_until_they_are_no_longer_paused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes = [
        replace(RECIPE, backbone="alexnet", frozen_blocks=2, epochs=4),
        replace(RECIPE, backbone="densenet121", frozen_blocks=1, epochs=4),
    ]
    own = trainer(tmp_path, TRAIN, VALIDATION)
    monkeypatch.setattr(TorchTrainer, "has_spare_memory", lambda _: True)
    with deterministic():
        undisturbed = session(tmp_path / "undisturbed", own)
        expected = []
        for number, recipe in enumerate(recipes):
            undisturbed.begin(Assignment(trial=number, recipe=recipe))
            expected.append([losses(undisturbed.step()) for _ in range(3)])
        undisturbed.release()
        before = allocated()
        worker = session(tmp_path / "paused", own)
        found: list[list[tuple[int, float, float | None]]] = [[], []]
        for epoch, number in product(range(3), range(2)):
            paused = (1 - number,)
            worker.begin(
                Assignment(
                    trial=number, recipe=recipes[number], attempt=epoch + 1, epochs=epoch, paused=paused
                )
            )
            found[number].append(losses(worker.step()))
    assert found == expected, "without a replay"
    assert allocated() > before
    worker.begin(Assignment(trial=2, recipe=recipes[0]))
    assert allocated() <= before


def losses(report: Report) -> tuple[int, float, float | None]:
    """Epoch, training loss and validation loss of a report of an epoch."""
    assert isinstance(report, EpochReport), report
    assert report.row.train_loss is not None
    return report.row.epoch, report.row.train_loss, report.row.val_loss


def host_bytes() -> int:
    """Bytes that this process has in memory."""
    import psutil

    return int(psutil.Process().memory_info().rss)


@NEEDS_GPU
def test_a_fine_tune_that_runs_out_of_memory_is_repeated_until_its_data_is_on_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, validation = images(BIG), images(BIG // 32)
    recipe = replace(
        RECIPE, frozen_blocks=0, batch_size=16, epochs=1, precision="bfloat16", learning_rate=0.002
    )
    own = trainer(tmp_path / "streamed", train, validation)
    expected = own.prepare(recipe, stream=True).epoch(trial=0, attempt=1)
    needed = torch.cuda.max_memory_reserved()
    own.release(data=True)
    modes, prepare = [], TorchTrainer.prepare

    def note(self: TorchTrainer, recipe: Recipe, *, stream: bool = False) -> TorchTraining:
        modes.append(stream)
        return prepare(self, recipe, stream=stream)

    monkeypatch.setattr(TorchTrainer, "prepare", note)
    ledger = Ledger()
    worker = session(tmp_path, trainer(tmp_path, train, validation), ledger)
    worker.begin(Assignment(trial=0, recipe=recipe))
    with memory_limit(needed + BIG // 4):
        report = worker.step()
    assert isinstance(report, EpochReport), report
    assert modes == [False, False, True]
    assert [alone for _, alone in ledger.requests] == [False, True, True]
    assert not report.usage.resident
    assert report.row.train_loss == pytest.approx(expected.train_loss, rel=0.02)


@NEEDS_GPU
def test_a_fine_tune_that_never_fits_fails_and_the_next_one_trains(tmp_path: Path) -> None:
    worker = session(tmp_path, trainer(tmp_path, arrays(64, side=256), arrays(32, side=256)), Ledger())
    large = replace(RECIPE, backbone="vgg16", frozen_blocks=0, batch_size=64, epochs=1)
    with memory_limit(torch.cuda.memory_reserved() + 1024 * MIB):
        worker.begin(Assignment(trial=0, recipe=large))
        report = worker.step()
        assert isinstance(report, Failure), report
        assert "memory" in report.reason.lower() or "ALLOC" in report.reason
        assert "\n" not in report.reason
        worker.begin(Assignment(trial=1, recipe=replace(RECIPE, frozen_blocks=5, epochs=1)))
        assert isinstance(worker.step(), EpochReport)


@NEEDS_GPU
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("backbone", "depth"), KINDS)
def test_the_estimate_of_a_trials_memory_covers_what_it_takes(
    backbone: str, depth: int, precision: str, tmp_path: Path
) -> None:
    own = trainer(tmp_path, arrays(640, side=128), arrays(320, side=128), cache_bytes=2**32)
    recipe = replace(
        RECIPE, backbone=backbone, frozen_blocks=depth, precision=precision, batch_size=32, epochs=2
    )
    own.release(data=True)
    own.prepare(recipe).epoch(trial=0, attempt=1)
    taken, estimate = own.memory() + CONTEXT_BYTES, own.demand(recipe, stream=False).estimate
    own.release(data=True)
    assert estimate is not None
    print(f"{backbone}/{depth} {precision}: {taken / MIB:.0f} MiB taken, {estimate / MIB:.0f} MiB estimated")
    assert taken <= estimate


@NEEDS_GPU
def test_predictions_that_run_out_of_memory_are_repeated_until_their_data_is_on_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = images(BIG)
    recipe = replace(RECIPE, frozen_blocks=0, batch_size=16, epochs=1, precision="bfloat16")
    own = trainer(tmp_path / "streamed", test, None)
    model = own.prepare(recipe, stream=True)
    tensors = model.tensors(model.frozen_blocks)
    del model
    own.release()
    expected = own.predict(recipe, tensors, stream=True)
    needed = own.memory()
    estimate = own.prediction_demand(recipe, stream=True).estimate
    assert estimate is not None
    assert needed + CONTEXT_BYTES <= estimate
    own.release(data=True)
    modes, predict = [], TorchTrainer.predict

    def note(self: TorchTrainer, recipe: Recipe, tensors: Arrays, *, stream: bool = False) -> Logits:
        modes.append(stream)
        return predict(self, recipe, tensors, stream=stream)

    monkeypatch.setattr(TorchTrainer, "predict", note)
    ledger = Ledger()
    worker = session(tmp_path, trainer(tmp_path, test, None), ledger)
    worker.begin(Assignment(trial=0, recipe=recipe))
    with memory_limit(needed + BIG // 4):
        found = worker.predict(tensors)
    assert modes == [False, False, True]
    assert [alone for _, alone in ledger.requests] == [False, True, True]
    np.testing.assert_array_equal(found, expected)


class memory_limit:  # noqa: N801  # a context manager
    """Limits the GPU memory of this process to a number of bytes."""

    def __init__(self, limit: int) -> None:
        self._share = limit / torch.cuda.get_device_properties(0).total_memory

    def __enter__(self) -> None:
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(self._share)

    def __exit__(self, *_: object) -> None:
        torch.cuda.set_per_process_memory_fraction(1.0)


def images(size: int) -> SegmentArrays:
    """Noise of so many bytes: large segments, of which there are few."""
    side = 256
    tracks = size // (2 * 3 * side * side)
    few = np.random.default_rng(tracks).normal(-50, 15, (16, 3, side, side)).astype(np.float16)
    mels = np.resize(few, (tracks, *few.shape[1:]))
    numbers = np.arange(tracks)
    return SegmentArrays.of(mels, track=numbers, genre=numbers % GENRES, n_genres=GENRES)


def test_two_workers_share_the_device_and_compute_what_one_computes(tmp_path: Path) -> None:
    together = workers(tmp_path / "together", 2)
    (alone,) = workers(tmp_path / "alone", 1)
    assert sum(waits for _, waits in together) > 0, "there is memory for one at a time"
    assert alone[1] == 0
    for losses, _ in together:
        assert losses == alone[0]
    book = json.loads((tmp_path / "together" / "gpu.json").read_text())
    assert book["asked"] == []
    assert len(book["peaks"]) == len(TWO_KINDS)


TWO_KINDS = [("resnet18", 0), ("alexnet", 5)]


def workers(folder: Path, count: int) -> list[tuple[list[float], int]]:
    """Losses and number of waits of each of several processes that train the same trials on one device."""
    folder.mkdir()
    barrier = SPAWN.Barrier(count)
    with SPAWN.Pool(count, initializer=_meet, initargs=(barrier,)) as pool:
        return pool.starmap(_work, [(folder, number) for number in range(count)], chunksize=1)


_barrier: Barrier


def _meet(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier


def _work(folder: Path, number: int) -> tuple[list[float], int]:
    import os

    own = trainer(folder / str(number), TRAIN, VALIDATION)
    ledger = GpuMemoryLedger(folder / "gpu.json", capacity=1, pid=os.getpid())
    worker = session(folder / str(number), own, ledger)
    losses, waits = [], 0
    with models(), deterministic():
        _barrier.wait(120)
        for trial, (backbone, depth) in enumerate(TWO_KINDS * 2):
            small_steps = replace(RECIPE, backbone=backbone, frozen_blocks=depth, learning_rate=0.002)
            worker.begin(Assignment(trial=trial, recipe=small_steps))
            try:
                waited, found = _trained(worker)
            finally:
                worker.release()  # or the other worker waits as long as this process lives
            losses += found
            waits += waited
    return losses, waits


def _trained(worker: WorkerSession) -> tuple[int, list[float]]:
    """Number of waits and losses of a trial."""
    waits, losses = 0, list[float]()
    while True:
        report = worker.step()
        if isinstance(report, Waiting):
            waits += 1
            continue
        assert isinstance(report, EpochReport), report
        assert report.row.train_loss is not None
        losses.append(report.row.train_loss)
        if report.finished:
            return waits, losses
