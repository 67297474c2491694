"""Steps replayed as a CUDA graph compute what eager ones compute."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from documented import DEPTHS, files, importable
from noise import RECIPE, arrays
from on_device import (
    FAMILIES,
    KINDS,
    MARKS,
    NEEDS_GPU,
    allocated,
    deterministic,
    fine_tune,
    models,
    node_cache,
)

from genre_core.recipe import Recipe
from genre_core.training import step_graph
from genre_core.training.fine_tune import EpochResult
from search.tune.torch_trainer import _is_out_of_memory, on_host

pytestmark = [
    *MARKS,
    NEEDS_GPU,
    pytest.mark.filterwarnings("default"),
]  # where there is no deterministic kernel
TRAIN, VALIDATION = arrays(400), arrays(70, seed=1)
BATCH_SIZE = 16
"""400 segments are 25 steps of one size."""
ROUNDING = {"float32": 1e-4, "bfloat16": 1e-2}
"""Relative difference of the losses of two epochs, where the kernels differ."""


@pytest.fixture(autouse=True)
def networks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("genre_core.training.activation_cache.caching_is_faster", lambda *_, **__: True)
    with models(), deterministic():
        yield


def recipe(backbone: str, depth: int, precision: str, **changes: Any) -> Recipe:
    rate = 2e-5 if (backbone, depth) == ("resnet34", FAMILIES["resnet34"]) else 0.002
    own: dict[str, Any] = {
        "learning_rate": rate,
        "batch_size": BATCH_SIZE,
        "epochs": 2,
        "precision": precision,
    }
    return replace(RECIPE, backbone=backbone, frozen_blocks=depth, **own | changes)


def trained(own: Recipe, folder: Path, *, budget: int = 2**33) -> tuple[list[EpochResult], dict[str, Any]]:
    """The epochs' results without their times, and the final tensors."""
    one = fine_tune(own, TRAIN, VALIDATION, node_cache(folder, budget))
    results = []
    while not one.finished:
        results.append(replace(one.epoch(), seconds=0, arithmetic_seconds=0, samples_per_second=0))
    return results, on_host(one.network.flat_state())


def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take all steps of the following fine-tunes eagerly."""
    monkeypatch.setattr(step_graph, "MIN_STEPS", 10**9)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("backbone", "depth"), KINDS)
def test_captured_steps_have_the_losses_of_eager_ones(
    backbone: str, depth: int, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = recipe(backbone, depth, precision)
    captured, captured_state = trained(own, tmp_path)
    eager(monkeypatch)
    plain, plain_state = trained(own, tmp_path)
    same = all(np.array_equal(plain_state[name], array) for name, array in captured_state.items())
    losses = [[(one.train_loss, one.val_loss) for one in results] for results in (captured, plain)]
    print(f"{backbone}/{depth} {precision}: same bits {same}, losses {losses}")
    assert np.allclose(losses[0], losses[1], rtol=ROUNDING[precision], atol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("backbone", DEPTHS)
def test_captured_steps_of_a_documented_backbone_have_the_losses_of_eager_ones(
    backbone: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with importable(tmp_path, files("python")):
        for depth in (0, 2):
            own = recipe(backbone, depth, precision)
            captured, _ = trained(own, tmp_path)
            with monkeypatch.context() as eagerly:
                eager(eagerly)
                plain, _ = trained(own, tmp_path)
            losses = [[(one.train_loss, one.val_loss) for one in results] for results in (captured, plain)]
            print(f"{backbone}/{depth} {precision}: {losses}")
            assert np.allclose(losses[0], losses[1], rtol=ROUNDING[precision], atol=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {"mixup": 0.4},
        {"masking": 0.3},
        {"mixup": 0.4, "masking": 0.3, "augment_at": "input"},
        {"class_weights": "balanced", "nesterov": True, "weight_decay": 1e-3},
        {"class_weights": "balanced", "label_smoothing": 0.1},
        {"label_smoothing": 0.1},
        {"momentum": 0.0},
        {"head_lr_ratio": 10.0, "schedule": "constant"},
        {"optimizer": "adamw", "learning_rate": 2e-4, "weight_decay": 0.05, "head_lr_ratio": 10.0},
        {"optimizer": "adamw", "learning_rate": 2e-4, "momentum": 0.0},
    ],
)
@pytest.mark.parametrize("budget", [0, 2**33])
def test_captured_steps_follow_every_setting(
    budget: int, changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = recipe("resnet18", 2, "float32", **changes)
    captured, _ = trained(own, tmp_path, budget=budget)
    eager(monkeypatch)
    plain, _ = trained(own, tmp_path, budget=budget)
    losses = [[(one.train_loss, one.val_loss) for one in results] for results in (captured, plain)]
    print(f"{changes}: {losses}")
    assert np.allclose(losses[0], losses[1], rtol=ROUNDING["float32"], atol=1e-6)


@pytest.mark.parametrize("changes", [{}, {"optimizer": "adamw", "learning_rate": 2e-4}], ids=["sgd", "adamw"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("backbone", FAMILIES)
def test_a_fine_tune_restored_between_captured_epochs_continues_to_the_same_bits(
    backbone: str, precision: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    own = recipe(backbone, 2, precision, epochs=3, **changes)
    made = [fine_tune(own, TRAIN, VALIDATION, node_cache(tmp_path)) for _ in range(2)]
    made[0].epoch()
    made[1].load_state_dict({k: torch.tensor(v) for k, v in on_host(made[0].state_dict()).items()})
    ends = []
    for one in made:
        while not one.finished:
            one.epoch()
        ends.append(on_host(one.network.flat_state()))
    assert all(np.array_equal(ends[1][name], array) for name, array in ends[0].items())


def test_a_graph_holds_no_memory_after_its_epoch(tmp_path: Path) -> None:
    one = fine_tune(recipe("resnet18", 0, "float32"), TRAIN, VALIDATION, node_cache(tmp_path))
    one.epoch()
    before = allocated()
    one.epoch()
    assert allocated() == before


def test_memory_that_runs_out_while_capturing_is_recognised() -> None:
    def step(batch: torch.Tensor) -> torch.Tensor:
        return torch.empty(2**50, dtype=torch.uint8, device=batch.device)

    with pytest.raises(RuntimeError) as caught:
        step_graph.StepGraph(step, (torch.zeros(4, device="cuda"),))
    print(repr(caught.value), repr(caught.value.__context__))
    assert _is_out_of_memory(caught.value)
    assert float(torch.ones(4, device="cuda").sum()) == 4.0
