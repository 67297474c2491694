"""One fine-tune: reproducible, resumable, and equal to a plain training loop."""

import copy
import io
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import noise
import numpy as np
import pytest
import torch
from noise import GENRES
from sklearn.utils.class_weight import compute_class_weight
from small_models import SIZES, models_of
from torch import nn

from genre_core.errors import ErrorCode, InputError
from genre_core.models.network import Network
from genre_core.recipe import CHOICES, Recipe, state_bytes
from genre_core.system.disk_cache import NodeCache
from genre_core.training.activation_cache import ActivationCache
from genre_core.training.fine_tune import (
    Diverged,
    EpochResult,
    FineTune,
    genre_weights,
    learning_rate_factor,
    track_logits,
)
from genre_core.training.metrics import confusion_matrix, scores
from genre_core.training.segments import SegmentArrays, Segments, level_statistics

NO_CACHE = NodeCache(Path("nowhere"), budget_bytes=0)
RECIPE = replace(noise.RECIPE, epochs=4)
ADAMW_TENSORS = {"exp_avg", "exp_avg_sq", "step"}


def _segments(tracks: int = 12, *, per_track: int = 2, seed: int = 0) -> Segments:
    """Tracks of noise, louder in one third of the mel bands, which depends on the genre; float16 dB."""
    generator = torch.Generator().manual_seed(seed)
    genre = torch.arange(tracks) % GENRES
    track = torch.arange(tracks).repeat_interleave(per_track)
    mels = torch.randn(tracks * per_track, 1, 32, 32, generator=generator) * 8 - 50
    for segment, owner in enumerate(track):
        third = int(genre[owner]) * 10
        mels[segment, :, third : third + 10] += 12
    arrays = SegmentArrays.of(mels.half().numpy(), track=track.numpy(), genre=genre.numpy(), n_genres=GENRES)
    return arrays.to(torch.device("cpu"))


TRAIN, VALIDATION = _segments(), _segments(9, seed=1)


def _network(recipe: Recipe) -> Network:
    return noise.network(recipe, NO_CACHE, TRAIN)


def _fine_tune(recipe: Recipe = RECIPE, *, node_cache: NodeCache = NO_CACHE) -> FineTune:
    return FineTune(_network(recipe), recipe, train=TRAIN, validation=VALIDATION, node_cache=node_cache)


def _timeless(result: EpochResult) -> EpochResult:
    return replace(result, seconds=0.0, arithmetic_seconds=0.0, samples_per_second=0.0)


def _epochs(fine_tune: FineTune) -> list[EpochResult]:
    results = []
    while not fine_tune.finished:
        results.append(_timeless(fine_tune.epoch()))
    return results


def test_a_fine_tune_learns() -> None:
    results = _epochs(_fine_tune())
    assert results[-1].train_loss < results[0].train_loss
    assert max(result.scores.f1 for result in results) > 0.6


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("depth", [0, 2, 5])
def test_the_same_seed_gives_the_same_numbers_and_another_seed_different_ones(depth: int, size: str) -> None:
    recipe = replace(RECIPE, frozen_blocks=depth, epochs=2)
    with models_of(size):
        first, same, other = (_epochs(_fine_tune(replace(recipe, seed=seed))) for seed in (0, 0, 1))
    assert first == same
    assert first != other


@pytest.mark.parametrize("optimizer", CHOICES["optimizer"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("backbone", ["resnet18", "alexnet"])  # alexnet: dropout draws random numbers
def test_a_fine_tune_resumes_identically_from_a_saved_state(backbone: str, size: str, optimizer: str) -> None:
    with models_of(size):
        _check_resuming(backbone, optimizer)


def _check_resuming(backbone: str, optimizer: str) -> None:
    recipe = replace(
        RECIPE, backbone=backbone, optimizer=optimizer, nesterov=True, weight_decay=0.01, epochs=3
    )
    straight = _fine_tune_of(backbone, recipe)
    straight.epoch()
    saved = io.BytesIO()
    torch.save(straight.state_dict(), saved)
    assert _tensors_of_the_optimizer(straight) == {"sgd": {"momentum"}, "adamw": ADAMW_TENSORS}[optimizer]
    torch.rand(7)  # the global random state must not matter
    resumed = _fine_tune_of(backbone, recipe)
    resumed.load_state_dict(torch.load(io.BytesIO(saved.getvalue()), weights_only=True))
    assert _epochs(resumed) == _epochs(straight)
    assert (resumed.best_f1, resumed.best_epoch) == (straight.best_f1, straight.best_epoch)


def _tensors_of_the_optimizer(fine_tune: FineTune) -> set[str]:
    """Names of what a checkpoint holds for each trainable parameter, all of them."""
    state, parameters = fine_tune.state_dict(), list(fine_tune.network.trainable.parameters())
    names = {name.partition(".")[0] for name in state} - {"progress", "trained"}
    assert all(f"{name}.{i}" in state for name in names for i in range(len(parameters)))
    return names


@pytest.mark.parametrize("optimizer", CHOICES["optimizer"])
def test_a_checkpoint_has_the_size_that_is_budgeted_for_it(optimizer: str) -> None:
    fine_tune = _fine_tune(replace(RECIPE, optimizer=optimizer, epochs=1))
    fine_tune.epoch()
    trained = {name for name, _ in fine_tune.network.trainable.named_parameters()}
    others = {f"trained.{name}" for name in fine_tune.network.trainable.state_dict().keys() - trained}
    sizes = {name: tensor.nbytes for name, tensor in fine_tune.state_dict().items()}
    large = sum(
        size
        for name, size in sizes.items()
        if name not in others and not name.startswith(("step", "progress"))
    )
    assert large == state_bytes(optimizer) * fine_tune.network.trainable_parameters


def _fine_tune_of(backbone: str, recipe: Recipe) -> FineTune:
    """AlexNet needs larger images than the other tests use."""
    if backbone != "alexnet":
        return _fine_tune(recipe)
    train, validation = (
        replace(part, mels=noise.mels(part).repeat(1, 1, 2, 2)) for part in (TRAIN, VALIDATION)
    )
    return FineTune(_network(recipe), recipe, train=train, validation=validation, node_cache=NO_CACHE)


OPTIMIZERS: dict[str, tuple[dict[str, Any], Callable[..., torch.optim.Optimizer]]] = {
    "sgd": ({}, partial(torch.optim.SGD, lr=RECIPE.learning_rate, momentum=RECIPE.momentum)),
    "adamw": (
        {"learning_rate": 0.0005, "momentum": 0.7, "weight_decay": 20.0},
        partial(torch.optim.AdamW, lr=0.0005, betas=(0.7, 0.999), weight_decay=20.0),
    ),
}
"""Changes of the recipe, and torch's own optimizer with the same constants."""


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_epoch_equals_a_plain_loop_over_the_whole_network(name: str) -> None:
    """The reference has no freeze depth, cache or parameter groups: requires_grad, eval() and torch's own optimizer."""
    changes, optimizer_of = OPTIMIZERS[name]
    recipe = replace(
        RECIPE,
        **changes,
        optimizer=name,
        warmup_epochs=0.0,
        schedule="constant",
        label_smoothing=0.1,
        class_weights="balanced",
    )
    fine_tune = _fine_tune(recipe)
    reference = copy.deepcopy(fine_tune.network)
    result = fine_tune.epoch()

    optimizer = optimizer_of([p for p in reference.parameters() if p.requires_grad])
    seed = int(np.random.SeedSequence([recipe.seed, 1]).generate_state(1)[0])
    order = torch.randperm(len(TRAIN), generator=torch.Generator().manual_seed(seed))
    loss_of = nn.CrossEntropyLoss(weight=genre_weights(TRAIN), label_smoothing=0.1)
    reference.train()
    losses = []
    for batch in order.tensor_split(math.ceil(len(order) / recipe.batch_size)):
        optimizer.zero_grad()
        loss = loss_of(reference(TRAIN.mels_of(batch)), TRAIN.genre[TRAIN.track[batch]])
        loss.backward()
        optimizer.step()
        losses.append(loss.item() * len(batch))
    assert result.train_loss == pytest.approx(sum(losses) / len(order), rel=1e-5)
    own = dict(fine_tune.network.named_parameters())
    assert all(torch.allclose(own[key], p, atol=1e-4) for key, p in reference.named_parameters())

    reference.eval()
    with torch.no_grad():
        logits = reference(noise.mels(VALIDATION))
    by_track = torch.stack([logits[VALIDATION.track == t].mean(dim=0) for t in range(9)])
    confusion = confusion_matrix(VALIDATION.genre.numpy(), by_track.argmax(dim=1).numpy(), GENRES)
    assert result.scores == scores(confusion)
    assert result.val_loss == pytest.approx(
        float(nn.functional.cross_entropy(by_track, VALIDATION.genre)), rel=1e-4
    )


def test_the_nesterov_setting_does_not_change_adamw() -> None:
    recipe = replace(RECIPE, optimizer="adamw", learning_rate=0.001, epochs=1)
    assert _epochs(_fine_tune(recipe)) == _epochs(_fine_tune(replace(recipe, nesterov=True)))
    assert _epochs(_fine_tune(recipe)) != _epochs(_fine_tune(replace(recipe, momentum=0.5)))


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(("optimizer", "declared"), [("sgd", []), ("adamw", [True, True])])
def test_only_a_step_that_is_captured_is_declared_capturable(
    optimizer: str, declared: list[bool], fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine_tune = _fine_tune(replace(RECIPE, optimizer=optimizer))
    groups = fine_tune.optimizer.param_groups
    seen: list[list[bool]] = []

    def capture(*_: object) -> None:
        seen.append([group["capturable"] for group in groups if "capturable" in group])
        if fails:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("genre_core.training.fine_tune.StepGraph", capture)
    with pytest.raises(torch.OutOfMemoryError) if fails else nullcontext():
        fine_tune._captured(fine_tune._step, ())
    assert seen == [declared]
    assert not any(group.get("capturable") for group in groups)


def test_a_fine_tune_without_progress_stops_after_patience_epochs() -> None:
    fine_tune = _fine_tune(replace(RECIPE, learning_rate=1e-9, epochs=50, patience=2))
    results = _epochs(fine_tune)
    assert len(results) == fine_tune.best_epoch + 2 < 50


@pytest.mark.parametrize("learning_rate", [1e4, 1e30])
def test_a_diverging_fine_tune_names_its_learning_rate_and_momentum(learning_rate: float) -> None:
    recipe = replace(RECIPE, learning_rate=learning_rate, momentum=0.99, frozen_blocks=0, warmup_epochs=0.0)
    with pytest.raises(Diverged) as error:
        _epochs(_fine_tune(recipe))
    assert f"learning rate {learning_rate:.3g}" in str(error.value)
    assert "momentum 0.99" in str(error.value)


def test_level_statistics_are_numpys_over_the_training_segments() -> None:
    mean, std = level_statistics(TRAIN)
    levels = noise.mels(TRAIN).double().numpy()
    assert mean.tolist() == pytest.approx([levels.mean()])
    assert std.tolist() == pytest.approx([levels.std()])


def test_genre_weights_equal_scikit_learns_balanced_ones() -> None:
    uneven = replace(TRAIN, genre=torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2]))
    labels = uneven.genre[uneven.track].numpy()
    expected = compute_class_weight("balanced", classes=np.arange(GENRES), y=labels)
    assert genre_weights(uneven).numpy() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("schedule", "epochs", "factor"),
    [
        ("cosine", 0.5, 0.25),
        ("cosine", 2.0, 1.0),
        ("cosine", 6.0, 0.5),
        ("cosine", 10.0, 0.0),
        ("constant", 0.5, 0.25),
        ("constant", 9.0, 1.0),
    ],
)
def test_the_learning_rate_warms_up_and_follows_its_schedule(
    schedule: str, epochs: float, factor: float
) -> None:
    recipe = replace(RECIPE, schedule=schedule, epochs=10, warmup_epochs=2.0)
    assert learning_rate_factor(recipe, epochs) == pytest.approx(factor)


def test_the_head_learns_at_its_own_rate() -> None:
    recipe = replace(RECIPE, head_lr_ratio=1e-9, epochs=1)
    fine_tune = _fine_tune(recipe)
    before = {key: value.clone() for key, value in fine_tune.network.flat_state().items()}
    fine_tune.epoch()
    after = fine_tune.network.flat_state()
    assert torch.allclose(after["head.weight"], before["head.weight"], atol=1e-8)
    assert not torch.allclose(after["layer4.0.1.conv2.weight"], before["layer4.0.1.conv2.weight"], atol=1e-6)


def test_a_tracks_logits_are_the_mean_of_its_segments() -> None:
    fine_tune = _fine_tune()
    activations = ActivationCache(fine_tune.network, VALIDATION, node_cache=NO_CACHE, epochs=1)
    logits = track_logits(fine_tune.network, VALIDATION, activations)
    fine_tune.network.eval()
    with torch.no_grad():
        each = fine_tune.network(noise.mels(VALIDATION))
    assert torch.allclose(logits[4], each[8:10].mean(dim=0), atol=1e-5)


BAD_RECIPES: dict[str, Any] = {
    "optimizer": "adam",
    "frozen_blocks": 6,
    "learning_rate": 0.0,
    "momentum": 1.0,
    "weight_decay": -0.1,
    "head_lr_ratio": 0.0,
    "batch_size": 1,
    "label_smoothing": 1.0,
    "mixup": -1.0,
    "masking": 1.0,
    "augment_at": "output",
    "precision": "float16",
    "class_weights": "heavy",
    "epochs": 0,
    "patience": 0,
    "warmup_epochs": -1.0,
    "schedule": "linear",
    "head_init": "zero",
}


@pytest.mark.parametrize("field", BAD_RECIPES)
def test_an_invalid_recipe_names_the_field_and_its_value(field: str) -> None:
    with pytest.raises(InputError) as error:
        replace(RECIPE, **{field: BAD_RECIPES[field]})
    is_name = isinstance(BAD_RECIPES[field], str)
    expected = ErrorCode.RECIPE_UNKNOWN_CHOICE if is_name else ErrorCode.RECIPE_OUT_OF_RANGE
    assert error.value.code is expected
    assert f"{field}={BAD_RECIPES[field]!r}" in str(error.value)


def test_nesterov_needs_momentum() -> None:
    with pytest.raises(InputError) as error:
        replace(RECIPE, momentum=0.0, nesterov=True)
    assert error.value.code is ErrorCode.NESTEROV_WITHOUT_MOMENTUM
    assert "momentum=0.0" in str(error.value)
    assert replace(RECIPE, momentum=0.0, nesterov=True, optimizer="adamw").momentum == 0.0
