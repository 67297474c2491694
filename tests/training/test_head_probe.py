"""The head that a deeper fine-tune starts from: a logistic regression on the features of the frozen network."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import noise
import numpy as np
import pytest
import torch
from noise import GENRES, TRAIN, VALIDATION
from sklearn.linear_model import LogisticRegression
from small_models import models_of
from torch import Tensor

from genre_core.models.network import Network
from genre_core.recipe import Recipe
from genre_core.system.disk_cache import NodeCache
from genre_core.training import fine_tune as fine_tune_module
from genre_core.training import head_probe
from genre_core.training.fine_tune import EpochResult, FineTune
from genre_core.training.head_probe import Probe, logistic_regression, probe

NO_CACHE = NodeCache(Path("nowhere"), budget_bytes=0)
RECIPE = replace(noise.RECIPE, backbone="alexnet", head_init="probe")


@pytest.fixture(autouse=True)
def small_models() -> Iterator[None]:
    with models_of("small"):
        yield


def _cache(folder: Path) -> NodeCache:
    return NodeCache(folder / "shared", budget_bytes=2**30)


def _fine_tune(recipe: Recipe, node_cache: NodeCache = NO_CACHE) -> FineTune:
    network = noise.network(recipe, node_cache)
    return FineTune(network, recipe, train=TRAIN, validation=VALIDATION, node_cache=node_cache)


def _probe(network: Network, node_cache: NodeCache = NO_CACHE) -> Probe:
    return probe(network, TRAIN, genre_weights=None, node_cache=node_cache)


def _refuse(*_: object, **__: object) -> Probe:
    raise AssertionError("a probe is fitted")


def _equal(first: Probe, second: Probe) -> bool:
    return torch.equal(first.weight, second.weight) and torch.equal(first.bias, second.bias)


def _timeless(result: EpochResult) -> EpochResult:
    return replace(result, seconds=0.0, arithmetic_seconds=0.0, samples_per_second=0.0)


def _features(segments: int, *, spread: float) -> tuple[Tensor, Tensor]:
    """Features that depend on the genre a little, far from 0, some of them constant; and the genres, unbalanced."""
    generator = torch.Generator().manual_seed(0)
    genre = (torch.rand(segments, generator=generator) ** 2 * GENRES).long()
    features = torch.randn(segments, 6, generator=generator)
    features[:, :GENRES] += torch.nn.functional.one_hot(genre, GENRES)
    features[:, 4] = 0.0
    return 30 + spread * features, genre


@pytest.mark.parametrize("spread", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("l2", [0.1, 0.001])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_probe_equals_scikit_learns_logistic_regression(spread: float, l2: float, weighted: bool) -> None:
    features, genre = _features(90, spread=spread)
    genre_weights = torch.tensor([0.5, 1.0, 3.0]) if weighted else None
    found = logistic_regression(features, genre, n_genres=GENRES, l2=l2, genre_weights=genre_weights)

    inputs = features.double().numpy()
    inputs = inputs - inputs.mean(axis=0)
    inputs = inputs / np.sqrt((inputs**2).sum(axis=1).mean())
    of_genre = dict(enumerate([0.5, 1.0, 3.0] if weighted else [1.0] * GENRES))
    total = sum(of_genre[int(own)] for own in genre)
    reference = LogisticRegression(C=1 / (l2 * total), class_weight=of_genre, tol=1e-10, max_iter=10_000)
    expected = reference.fit(inputs, genre.numpy()).predict_proba(inputs)

    logits = features.double() @ found.weight.double().T + found.bias.double()
    assert logits.softmax(dim=1).numpy() == pytest.approx(expected, abs=1e-3)


def test_features_that_are_all_equal_give_the_shares_of_the_genres() -> None:
    genre = torch.tensor([0, 0, 0, 1])
    found = logistic_regression(torch.full((4, 5), 7.0), genre, n_genres=GENRES, l2=0.001)
    probabilities = (torch.full((1, 5), 7.0) @ found.weight.T + found.bias).softmax(dim=1)
    assert probabilities[0, :2].tolist() == pytest.approx([0.75, 0.25], abs=1e-3)


@pytest.mark.parametrize("backbone", ["alexnet", "vgg11", "resnet18", "densenet121"])
def test_the_probe_is_bit_identical_at_all_depths_with_and_without_a_cache(
    backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes = [replace(RECIPE, backbone=backbone, frozen_blocks=depth) for depth in (0, 2, 4)]
    first, *others = [_probe(noise.network(recipe, NO_CACHE)) for recipe in recipes]
    assert all(_equal(first, other) for other in others)
    cache = _cache(tmp_path)
    assert _equal(first, _probe(noise.network(recipes[1], cache), cache))
    monkeypatch.setattr(head_probe, "logistic_regression", _refuse)
    for recipe in recipes:
        assert _equal(first, _probe(noise.network(recipe, cache), cache)), "found in the cache"


@pytest.mark.parametrize("change", ["seed", "weights", "genre"])
def test_what_a_probe_depends_on_is_not_shared(change: str, tmp_path: Path) -> None:
    cache = _cache(tmp_path)
    recipe = replace(RECIPE, seed=1) if change == "seed" else RECIPE
    train = replace(TRAIN, genre=TRAIN.genre.flip(0)) if change == "genre" else TRAIN
    genre_weights = torch.tensor([0.5, 1.0, 1.5]) if change == "weights" else None
    first = _probe(noise.network(RECIPE, cache), cache)
    other = probe(noise.network(recipe, cache), train, genre_weights=genre_weights, node_cache=cache)
    assert not _equal(first, other)


def test_a_damaged_probe_in_the_cache_is_fitted_again(tmp_path: Path) -> None:
    cache = _cache(tmp_path)
    first = _probe(noise.network(RECIPE, cache), cache)
    (file,) = cache.folder.glob("probe-*")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert _equal(first, _probe(noise.network(RECIPE, cache), cache))
    assert file.read_bytes() == whole


def test_a_cache_that_cannot_be_used_is_reported_and_done_without(tmp_path: Path) -> None:
    expected = _probe(noise.network(RECIPE, NO_CACHE))
    (tmp_path / "shared").write_text("not a folder")
    cache = _cache(tmp_path)
    assert _equal(expected, _probe(noise.network(RECIPE, NO_CACHE), cache))
    assert str(cache.folder) in str(cache.pop_error())


def test_a_fine_tune_that_hardly_learns_predicts_what_the_probe_predicts() -> None:
    recipe = replace(RECIPE, learning_rate=1e-12, epochs=1)
    fine_tune = _fine_tune(recipe)
    fine_tune.epoch()
    full = noise.network(replace(recipe, frozen_blocks=7), NO_CACHE)
    found = _probe(noise.network(recipe, NO_CACHE))
    expected = full.frozen_forward(noise.mels(VALIDATION)) @ found.weight.T + found.bias
    assert fine_tune.track_logits == pytest.approx(expected.numpy(), abs=1e-4)


@pytest.mark.parametrize("backbone", ["alexnet", "resnet18"])
def test_frozen_blocks_stay_as_they_are_and_all_others_are_trained(backbone: str) -> None:
    recipe = replace(RECIPE, backbone=backbone)
    fine_tune = _fine_tune(recipe)
    before = {name: tensor.clone() for name, tensor in fine_tune.network.flat_state().items()}
    parameters = fine_tune.network.trainable_parameters
    fine_tune.epoch()
    frozen = set(fine_tune.network.frozen.state_dict()) | {"image.mean", "image.std"}
    after = fine_tune.network.flat_state()
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor) == (name in frozen), name
    assert fine_tune.network.trainable_parameters == parameters
    assert all(parameter.requires_grad for parameter in fine_tune.network.trainable.parameters())


def test_training_without_scores_starts_from_the_same_head() -> None:
    scored, unscored = _fine_tune(RECIPE), _fine_tune(RECIPE)
    scored.epoch()
    unscored.train()
    expected = scored.network.flat_state()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in unscored.network.flat_state().items())


def test_a_resumed_fine_tune_continues_bit_identically_and_fits_no_probe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    straight = _fine_tune(RECIPE)
    straight.epoch()
    state = {name: tensor.clone() for name, tensor in straight.state_dict().items()}
    monkeypatch.setattr(fine_tune_module, "probe", _refuse)
    resumed = _fine_tune(RECIPE)
    resumed.load_state_dict(state)
    assert _timeless(resumed.epoch()) == _timeless(straight.epoch())


@pytest.mark.parametrize("settings", [{"head_init": "random"}, {"frozen_blocks": 7}])
def test_a_random_head_and_a_head_that_is_trained_alone_need_no_probe(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fine_tune_module, "probe", _refuse)
    recipe = replace(RECIPE, learning_rate=1e-12, **settings)
    fine_tune = _fine_tune(recipe)
    fine_tune.epoch()
    head = noise.network(recipe, NO_CACHE).head
    assert torch.allclose(fine_tune.network.head.weight, head.weight, atol=1e-9)


def test_the_time_of_the_probe_counts_as_that_of_activations() -> None:
    fine_tune = _fine_tune(replace(RECIPE, frozen_blocks=0))
    assert fine_tune.features_seconds < 1e-3
    result = fine_tune.epoch()
    assert fine_tune.features_seconds > 1e-3
    fine_tune.epoch()
    assert result.seconds > 0


def test_a_recipe_of_an_earlier_version_has_a_random_head() -> None:
    older = asdict(RECIPE)
    del older["head_init"]
    assert Recipe(**older).head_init == "random"


def test_weights_above_the_maximum_norm_are_scaled_down_and_mean_features_keep_their_logits() -> None:
    features, genre = _features(90, spread=0.01)
    fitted, small = (
        logistic_regression(features, genre, n_genres=GENRES, l2=0.001, max_norm=norm) for norm in (1e9, 2.0)
    )
    ratio = fitted.weight.norm() / 2
    assert ratio > 10
    assert torch.allclose(fitted.weight, small.weight * ratio, rtol=1e-4)
    before, after = (features.mean(dim=0) @ part.weight.T + part.bias for part in (fitted, small))
    assert after.tolist() == pytest.approx(before.tolist(), abs=0.02), (
        "float32 sums of weights in the hundreds"
    )


def test_a_probe_of_features_that_hardly_vary_is_at_most_twice_as_large_as_a_random_head() -> None:
    network = noise.network(RECIPE, NO_CACHE)
    with torch.no_grad():
        for layer in network.trainable.modules():
            if isinstance(layer, torch.nn.Linear):
                layer.weight.mul_(0.01)
    found = _probe(network)
    of_random = torch.nn.Linear(4096, GENRES).weight.detach().norm()
    assert float(found.weight.norm()) == pytest.approx(2 * float(of_random), rel=0.05)


def test_a_probe_of_too_many_segments_is_fitted_to_evenly_spaced_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = noise.network(noise.RECIPE, NO_CACHE)
    full = noise.network(replace(noise.RECIPE, frozen_blocks=5), NO_CACHE)
    features = full.frozen_forward(noise.mels(TRAIN)[::2])
    n_features = features.shape[1]
    monkeypatch.setattr(head_probe, "MAX_VALUES", n_features * (len(TRAIN) // 2 + 1))
    expected = logistic_regression(
        features,
        TRAIN.genre[TRAIN.track[::2]],
        n_genres=GENRES,
        l2=head_probe.L2,
        max_norm=head_probe.NORM_RATIO * (GENRES / 3) ** 0.5,
    )
    found = _probe(network)
    assert torch.allclose(found.weight, expected.weight, atol=1e-6)
    assert torch.allclose(found.bias, expected.bias, atol=1e-5)
