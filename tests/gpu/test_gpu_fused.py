"""A stack of fine-tunes computes on a GPU what each of them computes alone. Only the CPU has run these tests so far."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from noise import RECIPE, arrays
from on_device import DEVICE, FAMILIES, MARKS, NEEDS_GPU, ON_GPU, deterministic, fine_tune, models, node_cache
from torch import nn

from genre_core.training import step_graph
from genre_core.training.fine_tune import EpochResult, FineTune
from genre_core.training.fused import FusedFineTunes
from search.tune.torch_trainer import on_host

pytestmark = [*MARKS, pytest.mark.filterwarnings("default")]  # where there is no deterministic kernel
TRAIN, VALIDATION = (arrays(400), arrays(70, seed=1)) if ON_GPU else (arrays(21), arrays(11, seed=1))
"""On a GPU, 25 steps of one size."""
BATCH_SIZE = 16 if ON_GPU else 8
EPOCHS = 2
TAILS = [("alexnet", 6), ("alexnet", 5), ("vgg16", 6)]
ROUNDING = {"float32": 1e-3, "bfloat16": 5e-2}
"""Relative difference of losses that other kernels explain."""
OPTIMIZERS: dict[str, list[dict[str, Any]]] = {
    "sgd": [
        {"momentum": 0.8},
        {"momentum": 0.0, "weight_decay": 0.01},
        {"nesterov": True, "mixup": 0.4, "label_smoothing": 0.1},
    ],
    "adamw": [{"weight_decay": 0.1}, {"momentum": 0.5, "head_lr_ratio": 3.0}],
}
"""Changes of the recipe of each fine-tune in a stack."""


@pytest.fixture(autouse=True)
def networks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("genre_core.training.activation_cache.caching_is_faster", lambda *_, **__: True)
    with models(), deterministic():
        yield


def made(
    folder: Path, backbone: str, depth: int, optimizer: str, *, dropout: bool = True, **changes: Any
) -> list[FineTune]:
    """Fine-tunes of one backbone and depth with different settings."""
    rate = 2e-5 if backbone == "resnet34" else 0.002
    shared: dict[str, Any] = {"learning_rate": rate, "batch_size": BATCH_SIZE, "epochs": EPOCHS}
    base = replace(RECIPE, backbone=backbone, frozen_blocks=depth, optimizer=optimizer, **shared | changes)
    recipes = [replace(base, **own) for own in OPTIMIZERS[optimizer]]
    found = [fine_tune(recipe, TRAIN, VALIDATION, node_cache(folder)) for recipe in recipes]
    for member in found:
        for layer in member.network.trainable.modules():
            if isinstance(layer, nn.Dropout) and not dropout:
                layer.p = 0.0
    return found


def stacked(stack: FusedFineTunes, epochs: int = EPOCHS) -> list[list[tuple[float, float]]]:
    """Training and validation losses of each member and epoch."""
    results = [stack.epoch() for _ in range(epochs)]
    return [losses(own) for own in zip(*results, strict=True)]


def losses(results: Sequence[object]) -> list[tuple[float, float]]:
    """Training and validation losses of epochs."""
    found = [own for own in results if isinstance(own, EpochResult)]
    assert len(found) == len(results), results
    return [(own.train_loss, own.val_loss) for own in found]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("backbone", "depth"), [*FAMILIES.items(), *TAILS])
def test_a_stack_has_the_losses_of_its_members_alone(
    backbone: str, depth: int, optimizer: str, precision: str, tmp_path: Path
) -> None:
    """Without dropout, whose numbers differ on a GPU."""
    members, alone = (
        made(tmp_path, backbone, depth, optimizer, dropout=False, precision=precision) for _ in range(2)
    )
    found = stacked(FusedFineTunes(members))
    expected = [losses([member.epoch() for _ in range(EPOCHS)]) for member in alone]
    print(f"{backbone}/{depth} {optimizer} {precision}: {found}, alone {expected}")
    assert np.allclose(found, expected, rtol=ROUNDING[precision], atol=1e-6)


@NEEDS_GPU
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("backbone", "depth"), [("resnet18", 5), ("alexnet", 5)])
def test_captured_steps_of_a_stack_have_the_losses_of_eager_ones(
    backbone: str, depth: int, optimizer: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captured = stacked(FusedFineTunes(made(tmp_path, backbone, depth, optimizer, precision=precision)))
    monkeypatch.setattr(step_graph, "MIN_STEPS", 10**9)
    eager = stacked(FusedFineTunes(made(tmp_path, backbone, depth, optimizer, precision=precision)))
    print(f"{backbone}/{depth} {optimizer} {precision}: {captured}, eager {eager}")
    assert np.allclose(captured, eager, rtol=ROUNDING[precision], atol=1e-6)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("backbone", "depth"), [("resnet18", 5), ("vgg16", 6)])
def test_a_member_that_leaves_does_not_change_the_others_and_resumes_alone_to_the_same_bits(
    backbone: str, depth: int, optimizer: str, tmp_path: Path
) -> None:
    expected = stacked(FusedFineTunes(made(tmp_path, backbone, depth, optimizer, epochs=4)), 4)
    members = made(tmp_path, backbone, depth, optimizer, epochs=4)
    stack = FusedFineTunes(members)
    stacked(stack, 2)
    left = members[-1]
    stack.leave(left)
    state = {name: torch.tensor(array) for name, array in on_host(left.state_dict()).items()}
    rest = stacked(stack, 2)
    assert np.allclose(rest, [own[2:] for own in expected[:-1]], rtol=ROUNDING["float32"], atol=1e-6)
    resumed = made(tmp_path, backbone, depth, optimizer, epochs=4)[-1]
    resumed.load_state_dict(state)
    ends = []
    for own in (left, resumed):
        while not own.finished:
            own.epoch()
        ends.append(on_host(own.network.flat_state()))
    assert all(np.array_equal(ends[1][name], array) for name, array in ends[0].items())


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_dropout_of_a_stack_has_the_given_share_of_zeros_and_keeps_the_mean(
    share: float, tmp_path: Path
) -> None:
    members = made(tmp_path, "alexnet", 6, "sgd")
    stack = FusedFineTunes(members)
    for layer in stack._layers:
        if isinstance(layer, nn.Dropout):
            layer.p = share
    units, batch = 4096, 64
    inputs = torch.zeros(len(members), batch, units, device=DEVICE)
    generators = [torch.Generator(DEVICE).manual_seed(seed) for seed in range(len(members))]
    mask = stack._dropout_masks(inputs, generators)[0]
    assert mask.shape == inputs.shape
    for own in mask:
        assert own.unique().tolist() == pytest.approx([0.0, 1 / (1 - share)])
        deviation = (share / (1 - share) / (batch * units)) ** 0.5
        assert float(own.mean()) == pytest.approx(1.0, abs=5 * deviation)
    assert not torch.equal(mask[0], mask[1]), "each member has its own"
