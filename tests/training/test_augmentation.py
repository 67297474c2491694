"""Mixup and SpecAugment do what their papers say, repeatably, and work with cached activations."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from noise import RECIPE, TRAIN, VALIDATION, network
from small_models import SIZES, models_of

from genre_core.system.disk_cache import NodeCache
from genre_core.training.augmentation import mixup, spec_augment
from genre_core.training.fine_tune import FineTune


def _random() -> np.random.Generator:
    return np.random.default_rng(0)


def test_mixup_is_a_weighted_mean_with_a_partner_from_the_batch() -> None:
    activations = torch.randn(6, 4, 3, 3)
    mixed, partner, weight = mixup(activations, alpha=0.4, random=_random())
    assert sorted(partner.tolist()) == list(range(6))
    assert 0 < weight < 1
    for i in range(6):
        expected = weight * activations[i] + (1 - weight) * activations[partner[i]]
        assert torch.allclose(mixed[i], expected)


def test_mixups_weight_follows_the_beta_distribution() -> None:
    random = _random()
    weights = [mixup(torch.zeros(2, 1), alpha=2.0, random=random).weight for _ in range(2000)]
    assert np.mean(weights) == pytest.approx(0.5, abs=0.02)
    assert np.var(weights) == pytest.approx(1 / 20, abs=0.005)  # of Beta(2, 2)


def test_a_mask_is_one_band_of_rows_and_one_of_columns_the_same_in_all_channels() -> None:
    masked = spec_augment(torch.ones(200, 3, 20, 10), share=0.3, fill=torch.zeros(()), random=_random())
    zero = masked == 0
    assert (zero == zero[:, :1]).all()
    for one in zero[:, 0]:
        rows, columns = one.all(dim=1).nonzero().ravel(), one.all(dim=0).nonzero().ravel()
        for band, longest in ((rows, 6), (columns, 3)):
            assert len(band) <= longest
            assert len(band) == 0 or int(band[-1] - band[0]) == len(band) - 1
        assert int(one.sum()) == len(rows) * 10 + len(columns) * 20 - len(rows) * len(columns)
    lengths = zero[:, 0].all(dim=2).sum(dim=1)
    assert sorted(set(lengths.tolist())) == [0, 1, 2, 3, 4, 5, 6]


def test_single_units_of_flat_activations_are_masked() -> None:
    masked = spec_augment(torch.ones(100, 400), share=0.5, fill=torch.zeros(()), random=_random())
    shares = (masked == 0).float().mean(dim=1)
    assert 0.2 < float(shares.mean()) < 0.3
    assert float(shares.max()) < 0.6


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("depth", [0, 3, 5])
@pytest.mark.parametrize("settings", [{"mixup": 0.4}, {"masking": 0.3}, {"mixup": 0.4, "masking": 0.3}])
def test_augmented_activations_are_cached_and_epochs_repeat_and_resume(
    depth: int, settings: dict[str, Any], size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genre_core.training.activation_cache.caching_is_faster", lambda *_, **__: True)
    recipe = replace(RECIPE, frozen_blocks=depth, epochs=3, **settings)
    node_cache = NodeCache(tmp_path, budget_bytes=2**33)

    def fine_tune() -> FineTune:
        own = network(recipe, node_cache)
        return FineTune(own, recipe, train=TRAIN, validation=VALIDATION, node_cache=node_cache)

    with models_of(size):
        straight, resumed = fine_tune(), fine_tune()
        assert straight.features == ("shared" if depth else "none")
        straight.epoch()
        resumed.load_state_dict(copy.deepcopy(straight.state_dict()))
        assert straight.epoch().train_loss == resumed.epoch().train_loss
        unaugmented = FineTune(
            network(recipe, node_cache), RECIPE, train=TRAIN, validation=VALIDATION, node_cache=node_cache
        )
        assert unaugmented.epoch().train_loss != fine_tune().epoch().train_loss


@pytest.mark.parametrize("settings", [{"mixup": 0.4}, {"masking": 0.3}])
def test_augmented_inputs_are_not_cached(settings: dict[str, Any], tmp_path: Path) -> None:
    recipe = replace(RECIPE, frozen_blocks=3, augment_at="input", **settings)
    node_cache = NodeCache(tmp_path, budget_bytes=2**33)
    fine_tune = FineTune(
        network(recipe, node_cache), recipe, train=TRAIN, validation=VALIDATION, node_cache=node_cache
    )
    assert fine_tune.features == "computed"
    assert np.isfinite(fine_tune.epoch().train_loss)


def test_masked_elements_have_the_fill_value() -> None:
    mean = torch.tensor([-40.0]).reshape(-1, 1, 1)
    masked = spec_augment(torch.zeros(4, 1, 8, 8), share=0.9, fill=mean, random=_random())
    assert set(masked.flatten().tolist()) == {-40.0, 0.0}
