"""A fine-tune by PyTorch as the engine sees it: rows, arrays of the host, and the engine's own errors."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from noise import GENRES, RECIPE, TRAIN, VALIDATION, network
from working_sets import working_set

from genre_core.system import memory
from genre_core.system.disk_cache import NodeCache
from genre_core.training import fine_tune
from genre_core.training.fine_tune import FineTune
from genre_core.training.segments import SegmentArrays, Segments, shared_level_statistics
from search.engine.ports import Diverged, OutOfMemory
from search.run.schemas import EPOCHS
from search.tune import torch_trainer
from search.tune.torch_trainer import TorchTrainer, TorchTraining

NOTHING_KEPT = NodeCache(Path("nowhere"), budget_bytes=0)


@pytest.fixture
def training() -> TorchTraining:
    """A fine-tune before its first epoch."""
    return _training()


def _training() -> TorchTraining:
    own = network(RECIPE, NOTHING_KEPT)
    return TorchTraining(FineTune(own, RECIPE, train=TRAIN, validation=VALIDATION, node_cache=NOTHING_KEPT))


def test_an_epochs_row_has_every_column(training: TorchTraining) -> None:
    row = training.epoch(trial=3, attempt=2)
    assert (row.trial, row.attempt, row.epoch) == (3, 2, training.epochs_done)
    assert [name for name in EPOCHS.names if getattr(row, name) is None] == []
    assert np.array(row.confusion).shape == (GENRES, GENRES)
    assert training.validation()["validation"]["f1"] == row.val_f1


def test_another_fine_tune_continues_from_a_state(training: TorchTraining) -> None:
    training.epoch(trial=0, attempt=1)
    state = {name: array.copy() for name, array in training.state().items()}
    row = training.epoch(trial=0, attempt=1)
    other = _training()
    other.load(state)
    assert other.epochs_done == 1
    again = other.epoch(trial=0, attempt=2)
    assert (again.val_loss, again.confusion) == (row.val_loss, row.confusion)
    assert other.finished


def test_a_fine_tune_holds_no_gradients_between_its_epochs(training: TorchTraining) -> None:
    training.epoch(trial=0, attempt=1)
    trainable = list(training._fine_tune.network.trainable.parameters())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in trainable)


@pytest.mark.parametrize(("free", "expected"), [(49, False), (50, True)])
def test_there_is_memory_to_spare_while_half_of_it_is_free(
    free: int, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_and_total", lambda: (free, 100))
    trainer = TorchTrainer.__new__(TorchTrainer)
    trainer._device = torch.device("cpu")
    assert trainer.has_spare_memory() is expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB"), OutOfMemory),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            OutOfMemory,
        ),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), OutOfMemory),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be …"), OutOfMemory),
        (RuntimeError("CUDA error: device-side assert triggered"), RuntimeError),
        (fine_tune.Diverged("diverged in epoch 1: its loss is nan"), Diverged),
    ],
)
@pytest.mark.parametrize("name", ["epoch", "train", "load_state_dict"])
def test_what_the_engine_acts_on_is_raised_as_its_own_error_in_one_line(
    error: Exception,
    expected: type[Exception],
    name: str,
    training: TorchTraining,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(FineTune, name, fail)
    calls: dict[str, Callable[[], object]] = {
        "epoch": lambda: training.epoch(trial=0, attempt=1),
        "train": training.train,
        "load_state_dict": lambda: training.load({}),
    }
    with pytest.raises(expected) as caught:
        calls[name]()
    if expected is RuntimeError:
        assert caught.value is error, "nothing to act on"
        return
    assert str(caught.value) == f"{type(error).__name__}: {str(error).splitlines()[0]}"
    assert caught.value.__cause__ is None


def test_a_fine_tune_can_be_prepared_after_memory_ran_out_while_the_data_was_prepared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer = TorchTrainer(working_set(Path("nowhere")), node_cache=NOTHING_KEPT, weights=None)

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch_trainer, "shared_level_statistics", fail)
    with pytest.raises(OutOfMemory):
        trainer.prepare(RECIPE)
    monkeypatch.setattr(torch_trainer, "shared_level_statistics", shared_level_statistics)
    assert trainer.prepare(RECIPE).epochs_done == 0


def test_data_that_one_fine_tune_left_on_the_host_is_moved_for_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places, to = list[bool | None](), SegmentArrays.to

    def note(self: SegmentArrays, device: torch.device, *, stream: bool | None = None) -> Segments:
        places.append(stream)
        return to(self, device, stream=stream)

    monkeypatch.setattr(SegmentArrays, "to", note)
    own = TorchTrainer(working_set(tmp_path, validation=None), node_cache=NOTHING_KEPT, weights=None)
    for stream in (False, False, True, True, False):
        own.prepare(RECIPE, stream=stream)
    assert places == [None, True, None]


@pytest.mark.parametrize("stream", [False, True])
def test_predictions_are_the_mean_logits_of_each_track(stream: bool, tmp_path: Path) -> None:
    given = working_set(tmp_path, validation=None)
    own = TorchTrainer(given, node_cache=NOTHING_KEPT, weights=None)
    trained = own.prepare(RECIPE)
    trained.train()
    tensors = trained.tensors(trained.frozen_blocks)
    found = own.predict(RECIPE, tensors, stream=stream)
    network = trained._fine_tune.network.eval()
    mels = given.train.mels[torch.arange(len(given.train.mels))]
    with torch.inference_mode():
        logits = network(mels)
    expected = [logits[given.train.track == track].mean(dim=0) for track in np.unique(given.train.track)]
    np.testing.assert_allclose(found, torch.stack(expected), rtol=1e-4, atol=1e-5)


class Gpu:
    """Stands for PyTorch's view of a GPU of some bytes, of which few are free at the moment."""

    def __init__(self, total: int) -> None:
        self.total_memory = total


@pytest.mark.parametrize(
    ("shared", "share", "asked", "expected"),
    [
        (True, 0.5, False, False),
        (True, 0.25, False, True),
        (True, 0.5, True, True),
        (False, 1.0, False, None),
        (False, 1.0, True, True),
    ],
    ids=["fits its half", "too large for its quarter", "asked for", "by what is free", "asked for, alone"],
)
def test_on_a_shared_gpu_a_workers_part_of_it_decides_where_the_data_is(
    shared: bool,
    share: float,
    asked: bool,
    expected: bool | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = working_set(tmp_path, gpu_shared=shared, gpus=share)
    assert given.validation is not None
    data = given.train.mels.nbytes + given.validation.mels.nbytes
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Gpu(total=5 * data))
    monkeypatch.setattr(TorchTrainer, "can_stream", True)
    own = TorchTrainer(given, node_cache=NOTHING_KEPT, weights=None)
    assert own._placed(asked) is expected
    streamed = own.demand(RECIPE, stream=asked).kind.endswith("/streamed")
    assert streamed is bool(expected)
