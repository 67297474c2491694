"""Fine-tunes trained as one stack: each takes the steps that it takes alone."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import noise
import numpy as np
import pytest
import torch
from noise import GENRES
from small_models import models_of
from torch import Tensor

from genre_core.models.blocks import new_model
from genre_core.models.registry import BLOCKS
from genre_core.recipe import Recipe
from genre_core.system.disk_cache import NodeCache
from genre_core.training import fused
from genre_core.training.fine_tune import Diverged, EpochResult, FineTune
from genre_core.training.fused import FusedFineTunes, can_fuse, obstacle
from genre_core.training.segments import SegmentArrays, Segments
from genre_core.training.step_graph import EpochSteps, Step

FAMILIES = ("alexnet", "densenet121", "resnet18", "resnet34", "vgg16")
HEADS = [(backbone, len(BLOCKS[backbone])) for backbone in FAMILIES]
TAILS = [(backbone, depth) for backbone in ("alexnet", "vgg16") for depth in (6, 5)]
"""One and two hidden linear layers, with dropout."""
EPOCHS = 4
MEMBERS: dict[str, list[dict[str, Any]]] = {
    "sgd": [
        {"learning_rate": 0.02, "momentum": 0.8},
        {"learning_rate": 0.005, "momentum": 0.95, "weight_decay": 0.02, "seed": 1},
        {"learning_rate": 0.03, "momentum": 0.5, "nesterov": True, "head_lr_ratio": 3.0, "seed": 2},
        {"learning_rate": 0.01, "momentum": 0.0, "schedule": "constant", "warmup_epochs": 0.0, "epochs": 9},
    ],
    "adamw": [
        {"learning_rate": 0.001, "momentum": 0.9},
        {"learning_rate": 0.003, "momentum": 0.5, "weight_decay": 10.0, "seed": 1},
        {"learning_rate": 0.0005, "momentum": 0.0, "head_lr_ratio": 10.0, "nesterov": True},
    ],
    "losses": [
        {"label_smoothing": 0.1},
        {"class_weights": "balanced", "seed": 1},
        {"class_weights": "balanced", "label_smoothing": 0.3},
        {},
    ],
    "augmentation": [
        {"mixup": 0.4},
        {"mixup": 2.0, "masking": 0.3, "label_smoothing": 0.1, "seed": 1},
        {"masking": 0.5, "class_weights": "balanced"},
        {"head_init": "probe"},
        {},
    ],
}
"""Changes of the recipe of each fine-tune in a stack, by what is tested."""
MOST = 1e-5
"""Relative difference of a loss that rounding explains; the tensors may differ as much of their largest value."""


def _segments(tracks: int, seed: int) -> Segments:
    """Noise, two segments a track, and half of the tracks in one genre."""
    number = np.arange(tracks)
    mels = np.random.default_rng(seed).normal(-50, 15, (2 * tracks, 1, 64, 64))
    genre = np.where(number % 2, 0, number % GENRES)
    for segment, owner in enumerate(genre.repeat(2)):
        mels[segment, :, 20 * owner : 20 * owner + 20] += 12
    return SegmentArrays.of(mels.astype(np.float16), track=number.repeat(2), genre=genre, n_genres=GENRES).to(
        torch.device("cpu")
    )


TRAIN, VALIDATION = _segments(19, 0), _segments(9, 1)
"""38 segments are three batches of 8 and two of 7."""


@pytest.fixture(autouse=True)
def small_networks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("genre_core.training.activation_cache.caching_is_faster", lambda *_, **__: True)
    with models_of("small"):
        yield


class Maker:
    """Makes fine-tunes of one backbone and depth from the same weights, as a search does."""

    def __init__(self, folder: Path, backbone: str = "resnet18", depth: int | None = None) -> None:
        torch.manual_seed(0)
        self.cache = NodeCache(folder / "shared", budget_bytes=2**30)
        self.recipe = replace(
            noise.RECIPE,
            backbone=backbone,
            frozen_blocks=len(BLOCKS[backbone]) if depth is None else depth,
            weights=str(folder / f"{backbone}.pth"),
            epochs=EPOCHS,
            patience=99,
        )
        torch.save(new_model(backbone).state_dict(), self.recipe.weights)

    def __call__(self, train: Segments = TRAIN, **changes: Any) -> FineTune:
        """A fine-tune before its first epoch."""
        recipe = replace(self.recipe, **changes)
        network = noise.network(recipe, self.cache, train)
        return FineTune(network, recipe, train=train, validation=VALIDATION, node_cache=self.cache)

    def all(self, changes: Sequence[dict[str, Any]], **shared: Any) -> list[FineTune]:
        """Several."""
        return [self(**shared | own) for own in changes]


def _alone(members: Sequence[FineTune], epochs: int = EPOCHS) -> list[list[EpochResult]]:
    """The results of each fine-tune, trained alone."""
    return [[member.epoch() for _ in range(epochs)] for member in members]


def _stacked(stack: FusedFineTunes, epochs: int = EPOCHS) -> list[list[EpochResult]]:
    """The results of each fine-tune in a stack."""
    found = [stack.epoch() for _ in range(epochs)]
    return [[own for own in results if isinstance(own, EpochResult)] for results in zip(*found, strict=True)]


def _assert_equal(found: Sequence[EpochResult], expected: Sequence[EpochResult], most: float = MOST) -> None:
    """Assert that the results differ by rounding only."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        losses = [(own.train_loss, own.val_loss) for own in (one, other)]
        assert losses[0] == pytest.approx(losses[1], rel=most)
        facts = [(own.epoch, own.scores, own.predicted, own.learning_rate) for own in (one, other)]
        assert facts[0] == facts[1]


def _assert_same_state(found: FineTune, expected: FineTune, most: float = MOST) -> None:
    """Assert that two checkpoints have the same tensors, which differ by rounding only."""
    states = found.state_dict(), expected.state_dict()
    assert list(states[0]) == list(states[1])
    for name, tensor in states[1].items():
        assert states[0][name].dtype == tensor.dtype
        close = torch.allclose(states[0][name], tensor, rtol=0.0, atol=most * float(tensor.abs().max()))
        assert close, name


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize(("backbone", "depth"), HEADS + TAILS)
def test_a_stack_trains_each_member_as_it_is_trained_alone(
    backbone: str, depth: int, optimizer: str, tmp_path: Path
) -> None:
    make = Maker(tmp_path, backbone, depth)
    members, alone = (make.all(MEMBERS[optimizer], optimizer=optimizer) for _ in range(2))
    stack = FusedFineTunes(members)
    for found, expected in zip(_stacked(stack), _alone(alone), strict=True):
        _assert_equal(found, expected)
    for member, other in zip(members, alone, strict=True):
        _assert_same_state(member, other)
        assert (member.best_f1, member.best_epoch) == (other.best_f1, other.best_epoch)


@pytest.mark.parametrize("settings", ["losses", "augmentation"])
@pytest.mark.parametrize(("backbone", "depth"), [("resnet18", 5), ("alexnet", 5), ("vgg16", 6)])
def test_members_have_their_own_losses_augmentation_and_initial_heads(
    backbone: str, depth: int, settings: str, tmp_path: Path
) -> None:
    make = Maker(tmp_path, backbone, depth)
    members, alone = (make.all(MEMBERS[settings]) for _ in range(2))
    for found, expected in zip(_stacked(FusedFineTunes(members)), _alone(alone), strict=True):
        _assert_equal(found, expected)


@pytest.mark.parametrize(("backbone", "depth"), [("resnet18", 5), ("alexnet", 5)])
def test_a_stack_in_bfloat16_rounds_as_its_members_do_alone(
    backbone: str, depth: int, tmp_path: Path
) -> None:
    make = Maker(tmp_path, backbone, depth)
    members, alone = (make.all(MEMBERS["sgd"], precision="bfloat16") for _ in range(2))
    for found, expected in zip(_stacked(FusedFineTunes(members), 2), _alone(alone, 2), strict=True):
        losses = [[(own.train_loss, own.val_loss) for own in results] for results in (found, expected)]
        assert np.allclose(losses[0], losses[1], rtol=0.02)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_member_that_leaves_continues_alone_and_does_not_change_the_others(
    optimizer: str, tmp_path: Path
) -> None:
    make = Maker(tmp_path, "alexnet", 5)
    changes = MEMBERS[optimizer][:3]
    undisturbed = FusedFineTunes(make.all(changes, optimizer=optimizer))
    expected = _stacked(undisturbed)
    members = make.all(changes, optimizer=optimizer)
    stack = FusedFineTunes(members)
    first = [stack.epoch() for _ in range(2)]
    left = members[1]
    stack.leave(left)
    assert stack.members == [members[0], members[2]]
    assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in left.state_dict().values())
    state = {name: tensor.clone() for name, tensor in left.state_dict().items()}
    rest = _stacked(stack, 2)
    for number, later in zip((0, 2), rest, strict=True):
        results = [own for own in (epoch[number] for epoch in first) if isinstance(own, EpochResult)]
        _assert_equal(results + later, expected[number])
        _assert_same_state(members[number], undisturbed.members[number])
    assert all(torch.equal(tensor, state[name]) for name, tensor in left.state_dict().items())
    resumed = make(optimizer=optimizer, **changes[1])
    resumed.load_state_dict(_saved(state))
    for own in (left, resumed):
        _assert_equal([own.epoch() for _ in range(2)], expected[1][2:])
    assert torch.equal(_head(left), _head(resumed)), "a checkpoint resumes to the same bits"


def _head(member: FineTune) -> Tensor:
    return member.network.head.weight


def _saved(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint as it is read from a file."""
    file = io.BytesIO()
    torch.save(state, file)
    found: dict[str, Tensor] = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    return found


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_member_joins_with_the_epochs_that_it_has_done(optimizer: str, tmp_path: Path) -> None:
    make = Maker(tmp_path, "vgg16", 5)
    changes = MEMBERS[optimizer][:3]
    alone = _alone(make.all(changes, optimizer=optimizer))
    members = make.all(changes, optimizer=optimizer)
    before = members[2].epoch()
    stack = FusedFineTunes(members[:2])
    first = [stack.epoch()]
    stack.join(members[2:])
    results = _stacked(stack, EPOCHS - 1)
    for number, found in enumerate(results):
        done = before if number == 2 else first[0][number]
        assert isinstance(done, EpochResult)
        _assert_equal([done, *found], alone[number])


def test_a_member_that_leaves_before_its_first_epoch_is_as_before(tmp_path: Path) -> None:
    make = Maker(tmp_path)
    member, other = make(), make(seed=1)
    stack = FusedFineTunes([member, other])
    stack.leave(member)
    _assert_equal([member.epoch()], [make().epoch()])


def test_the_last_member_leaves_an_empty_stack_that_others_can_join(tmp_path: Path) -> None:
    make = Maker(tmp_path)
    member = make()
    stack = FusedFineTunes([member])
    stack.leave(member)
    assert stack.members == []
    stack.join([make(), make(seed=1)])
    assert len(stack.epoch()) == 2


def test_a_member_that_diverges_does_not_change_the_others(tmp_path: Path) -> None:
    make = Maker(tmp_path, "alexnet", 5)
    wild = make(learning_rate=1e30, momentum=0.99, warmup_epochs=0.0)
    members = [make(), wild, make(seed=1)]
    stack = FusedFineTunes(members)
    results = stack.epoch()
    assert [type(own) for own in results] == [EpochResult, Diverged, EpochResult]
    assert "learning rate 1e+30" in str(results[1])
    assert (members[0].epochs_done, wild.epochs_done) == (1, 0)
    stack.leave(wild)
    for member, seed in ((members[0], 0), (members[2], 1)):
        found = [results[0 if seed == 0 else 2], *_rest(stack, member)]
        _assert_equal([own for own in found if isinstance(own, EpochResult)], _alone([make(seed=seed)], 2)[0])


def _rest(stack: FusedFineTunes, member: FineTune) -> list[EpochResult]:
    """The next epoch of one member, trained alone after it left."""
    stack.leave(member)
    return [member.epoch()]


def test_checkpoints_of_members_are_read_while_they_are_in_the_stack(tmp_path: Path) -> None:
    make = Maker(tmp_path, "vgg16", 6)
    members, alone = make.all(MEMBERS["sgd"]), make.all(MEMBERS["sgd"])
    stack = FusedFineTunes(members)
    stack.epoch()
    _alone(alone, 1)
    for member, other in zip(members, alone, strict=True):
        _assert_same_state(member, other)
        resumed = make(**_changes(member.recipe, make.recipe))
        resumed.load_state_dict(_saved(dict(member.state_dict())))
        _assert_equal([resumed.epoch()], [other.epoch()])


def _changes(recipe: Recipe, base: Recipe) -> dict[str, Any]:
    return {name: value for name, value in vars(recipe).items() if value != getattr(base, name)}


def test_the_seconds_of_an_epoch_are_shared_by_the_members(tmp_path: Path, monkeypatch: Any) -> None:
    make = Maker(tmp_path)
    stack = FusedFineTunes([make(seed=seed) for seed in range(4)])
    clock = iter(range(0, 10_000, 100))
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    result = stack.epoch()[0]
    assert isinstance(result, EpochResult)
    steps = 5
    trained, scored = 100 * (2 * steps + 1), 100 * (2 * steps + 3)
    assert result.seconds == pytest.approx(scored / 4)
    assert result.arithmetic_seconds == pytest.approx(100 * (steps + 1) / 4)
    assert result.samples_per_second == pytest.approx(4 * len(TRAIN) / trained)


def test_members_share_their_frozen_blocks_and_activations(tmp_path: Path) -> None:
    make = Maker(tmp_path, "vgg16", 6)
    first, other, later = make(), make(seed=1), make(seed=2)
    stack = FusedFineTunes([first, other])
    stack.leave(first)
    stack.join([later])
    addresses = [
        [tensor.data_ptr() for tensor in own.network.frozen.state_dict().values()]
        for own in (first, other, later)
    ]
    assert addresses[0] == addresses[1] == addresses[2]
    assert len(set(addresses[0])) > 10
    for own in (other, later):
        assert own.train_activations is first.train_activations
        assert own.validation_activations is first.validation_activations
    for own, seed in ((other, 1), (first, 0)):
        if own in stack.members:
            stack.leave(own)
        _assert_equal([own.epoch()], [make(seed=seed).epoch()])


OBSTACLES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "a convolution": ({}, {"frozen_blocks": 4}, "BasicBlock"),
    "another depth": ({"backbone": "alexnet"}, {"frozen_blocks": 6}, "layers differ"),
    "batch size": ({}, {"batch_size": 16}, "batch_size differs: 8 and 16"),
    "optimizer": ({}, {"optimizer": "adamw"}, "optimizer differs: sgd and adamw"),
    "precision": ({}, {"precision": "bfloat16"}, "precision differs"),
    "other frozen blocks": ({}, {"weights": "random", "seed": 3}, "frozen blocks"),
    "augmented input": ({}, {"mixup": 0.4, "augment_at": "input"}, "not cached"),
}
"""Changes of the backbone, changes of the second fine-tune, and part of the reason."""


@pytest.mark.parametrize("name", OBSTACLES)
def test_fine_tunes_that_cannot_be_fused_are_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    backbone, changes, reason = OBSTACLES[name]
    make = Maker(tmp_path, **backbone)
    members = [make(), make(**changes)]
    assert can_fuse(members[:1])
    assert not can_fuse(members)
    assert reason in (obstacle(members) or "")
    with pytest.raises(AssertionError, match=reason):
        FusedFineTunes(members)


def test_fine_tunes_on_other_segments_are_refused(tmp_path: Path) -> None:
    make = Maker(tmp_path)
    relabelled = replace(TRAIN, genre=TRAIN.genre.flip(0))
    assert "segments differ" in (obstacle([make(), make(relabelled)]) or "")


def test_captured_steps_are_taken_with_inputs_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph reads the tensors that it was captured with: here, a step that is replayed does the same on the CPU."""
    captured = []

    class Graph:
        def __init__(self, step: Step, inputs: tuple[Tensor, ...]) -> None:
            self._step, self._inputs = step, tuple(torch.empty_like(tensor) for tensor in inputs)
            captured.append(len(inputs))

        def __call__(self, *inputs: Tensor) -> Tensor:
            for own, given in zip(self._inputs, inputs, strict=True):
                own.copy_(given)
            return self._step(*self._inputs)

    def steps(step: Step, sizes: list[int], **options: Any) -> EpochSteps:
        return EpochSteps(step, sizes, **options | {"capture": Graph})

    make = Maker(tmp_path, "alexnet", 5)
    changes: dict[str, Any] = {"batch_size": 2, "mixup": 0.4}
    expected = _stacked(FusedFineTunes([make(**changes), make(**changes, seed=1)]), 2)
    monkeypatch.setattr(fused, "EpochSteps", steps)
    found = _stacked(FusedFineTunes([make(**changes), make(**changes, seed=1)]), 2)
    assert captured == [8, 8], "activations, genres, rates, two masks and three of mixup; one graph an epoch"
    for one, other in zip(found, expected, strict=True):
        _assert_equal(one, other, most=0.0)
