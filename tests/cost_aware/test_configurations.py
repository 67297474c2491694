"""Drawing and varying configurations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from search.cost_aware.space import Configuration, at, draw_from, share, varied

SPACE: dict[str, BaseDistribution] = {
    "backbone": CategoricalDistribution(("alexnet", "resnet18")),
    "learning_rate": FloatDistribution(1e-4, 1e-1, log=True),
    "momentum": FloatDistribution(0.5, 0.9),
    "batch_size": IntDistribution(8, 64, step=8),
    "masking": FloatDistribution(0.0, 0.3, step=0.1),
}
NUMBERS = [name for name, one in SPACE.items() if not isinstance(one, CategoricalDistribution)]


def test_every_drawn_value_is_one_that_optuna_accepts() -> None:
    random = np.random.default_rng(0)
    for _ in range(500):
        drawn = draw_from(SPACE)(random)
        assert drawn.params.keys() == SPACE.keys()
        for name, value in drawn.params.items():
            assert SPACE[name]._contains(SPACE[name].to_internal_repr(value)), (name, value)


def test_values_are_drawn_uniformly_and_logarithmic_ranges_in_the_logarithm() -> None:
    random = np.random.default_rng(1)
    drawn = [draw_from(SPACE)(random).params for _ in range(4000)]
    assert np.mean([d["backbone"] == "alexnet" for d in drawn]) == pytest.approx(0.5, abs=0.03)
    assert np.median([d["learning_rate"] for d in drawn]) == pytest.approx(10**-2.5, rel=0.15)
    assert np.mean([d["momentum"] for d in drawn]) == pytest.approx(0.7, abs=0.01)
    counts = np.unique([d["batch_size"] for d in drawn], return_counts=True)
    assert list(counts[0]) == list(range(8, 65, 8))


def test_whole_numbers_are_equally_likely_the_ends_too() -> None:
    random = np.random.default_rng(2)
    space: dict[str, BaseDistribution] = {"n": IntDistribution(0, 4)}
    counts = np.bincount([draw_from(space)(random).params["n"] for _ in range(5000)])
    assert counts == pytest.approx(np.full(5, 1000), abs=120)


@given(place=st.floats(0, 1), name=st.sampled_from(["learning_rate", "momentum"]))
def test_the_place_of_a_value_is_the_inverse_of_the_value_at_a_place(place: float, name: str) -> None:
    assert share(at(place, SPACE[name]), SPACE[name]) == pytest.approx(place, abs=1e-9)


@given(seed=st.integers(0, 2**32 - 1))
def test_a_variation_keeps_choices_and_stays_in_the_space(seed: int) -> None:
    random = np.random.default_rng(seed)
    drawn = draw_from(SPACE)(random)
    moved = varied(drawn, random)
    assert moved.params["backbone"] == drawn.params["backbone"]
    for name in NUMBERS:
        assert SPACE[name]._contains(SPACE[name].to_internal_repr(moved.params[name]))


def test_variations_move_numbers_by_a_share_of_their_range() -> None:
    random = np.random.default_rng(3)
    start = Configuration({"momentum": 0.7}, {"momentum": SPACE["momentum"]})
    moved = np.array([varied(start, random).params["momentum"] for _ in range(3000)])
    assert moved.mean() == pytest.approx(0.7, abs=0.01)
    assert 0.03 < moved.std() < 0.08
