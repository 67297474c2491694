"""The model of learning curves."""

import numpy as np
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from search.cost_aware.surrogate import CurveModel, Encoder

SPACE: dict[str, BaseDistribution] = {
    "backbone": CategoricalDistribution(("alexnet", "resnet18")),
    "learning_rate": FloatDistribution(1e-4, 1e-1, log=True),
}


Curve = tuple[list[float], list[float]]


def model(curves: list[Curve]) -> CurveModel:
    """A fitted model."""
    made = CurveModel(np.random.default_rng(0))
    made.fit(curves)
    return made


def predicted(made: CurveModel, curve: Curve, horizon: int) -> float:
    """The mean prediction of a curve's best score."""
    return float(made.predict(np.array([made.state(*curve)]), np.array([horizon])).mean())


def test_choices_are_encoded_one_hot_and_ranges_by_their_place() -> None:
    encode = Encoder(SPACE)
    assert encode({"backbone": "resnet18", "learning_rate": 1e-3}) == pytest.approx([0, 1, 1 / 3])
    assert encode({"backbone": "alexnet", "learning_rate": 1e-1}) == pytest.approx([1, 0, 1])


def test_a_parameter_that_a_trial_lacks_is_outside_its_range() -> None:
    assert Encoder(SPACE)({"backbone": "alexnet"})[2] < 0


def test_derived_numbers_are_appended() -> None:
    encode = Encoder(SPACE, lambda params: {"square": params["learning_rate"] ** 2})
    assert encode({"backbone": "alexnet", "learning_rate": 0.1})[-1] == pytest.approx(0.01)


def test_without_scores_there_is_nothing_to_fit_to() -> None:
    assert not model([([0.0], [])]).fitted


def test_known_curves_are_reproduced() -> None:
    good, bad = ([1.0], [0.5, 0.6, 0.7, 0.8]), ([0.0], [0.1, 0.1, 0.1, 0.1])
    made = model([good, bad] * 8)
    assert predicted(made, ([1.0], [0.5]), 3) == pytest.approx(0.8, abs=0.05)
    assert predicted(made, ([0.0], [0.1]), 3) == pytest.approx(0.1, abs=0.05)


def test_the_best_score_within_a_longer_horizon_is_not_lower() -> None:
    made = model([([x], [x * (1 - 0.5**e) for e in range(1, 5)]) for x in np.linspace(0.1, 1, 20).tolist()])
    soon, late = (predicted(made, ([0.8], [0.4]), horizon) for horizon in (1, 3))
    assert soon < late
    assert late == pytest.approx(0.75, abs=0.08)


def test_many_scores_are_thinned() -> None:
    made = model([([x], [x] * 4) for x in np.random.default_rng(1).random(2000).tolist()])
    assert predicted(made, ([0.25], []), 4) == pytest.approx(0.25, abs=0.05)
    assert predicted(made, ([0.75], []), 4) == pytest.approx(0.75, abs=0.05)
