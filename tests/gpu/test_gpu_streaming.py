"""Training does not wait for a GPU at each step, wherever its data is. Only the CPU has run these tests so far."""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from noise import RECIPE, arrays
from on_device import MARKS, NEEDS_GPU, deterministic, models, trainer

from search.tune.torch_trainer import TorchTraining

pytestmark = [*MARKS, NEEDS_GPU]
SYNCHRONIZES = "synchronizing CUDA operation"
"""In PyTorch's warning of an operation that makes the host wait for the device."""
BATCH_SIZE = 16
STEPS = (15, 45)
"""Steps of one size in an epoch, enough for a graph."""
KINDS = [("resnet18", 0), ("resnet18", 2), ("resnet18", 5), ("alexnet", 5)]
SETTINGS: list[dict[str, Any]] = [{}, {"mixup": 0.4}, {"masking": 0.3}, {"mixup": 0.4, "augment_at": "input"}]


@pytest.fixture(autouse=True)
def networks() -> Iterator[None]:
    with models():
        yield


def prepared(
    folder: Path, steps: int, backbone: str, depth: int, *, stream: bool, **changes: Any
) -> TorchTraining:
    """A fine-tune with so many steps in an epoch, and few validation segments."""
    own: dict[str, Any] = {"learning_rate": 2e-5, "batch_size": BATCH_SIZE, "epochs": 3}
    recipe = replace(RECIPE, backbone=backbone, frozen_blocks=depth, **own | changes)
    data = arrays(steps * BATCH_SIZE), arrays(20, seed=1)
    return trainer(folder / str(steps), *data, cache_bytes=2**32).prepare(recipe, stream=stream)


def waits(training: TorchTraining) -> int:
    """How often the host waits for the device in the second epoch."""
    training.epoch(trial=0, attempt=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            training.epoch(trial=0, attempt=1)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum(SYNCHRONIZES in str(one.message) for one in caught)


@pytest.mark.parametrize("changes", SETTINGS, ids=str)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("backbone", "depth"), KINDS)
def test_a_longer_epoch_does_not_wait_for_the_device_more_often(
    backbone: str, depth: int, stream: bool, changes: dict[str, Any], tmp_path: Path
) -> None:
    few, many = (
        waits(prepared(tmp_path, steps, backbone, depth, stream=stream, **changes)) for steps in STEPS
    )
    print(f"{backbone}/{depth} stream={stream} {changes}: {few} and {many} waits")
    assert 0 < few == many


@pytest.mark.parametrize(("backbone", "depth"), [("resnet18", 2), ("alexnet", 5)])
def test_activations_on_the_host_give_the_bits_of_activations_on_the_device(
    backbone: str, depth: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genre_core.training.activation_cache.caching_is_faster", lambda *_, **__: True)
    rows = []
    for share in (0.4, 0.0):
        monkeypatch.setattr("genre_core.training.activation_cache.ACTIVATIONS_GPU_SHARE", share)
        with deterministic():
            training = prepared(tmp_path, STEPS[0], backbone, depth, stream=False)
            assert training.facts.features == "shared"
            results = [training.epoch(trial=0, attempt=1) for _ in range(3)]
        rows.append([(row.train_loss, row.val_loss) for row in results])
    assert rows[0] == rows[1]
