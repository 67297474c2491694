"""The models of final scores."""

import numpy as np
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from search.cost_aware.surrogate import ConfigurationModel, Encoder, RiseModel

SPACE: dict[str, BaseDistribution] = {
    "backbone": CategoricalDistribution(("alexnet", "resnet18")),
    "learning_rate": FloatDistribution(1e-4, 1e-1, log=True),
}


def test_choices_are_encoded_one_hot_and_ranges_by_their_place() -> None:
    encode = Encoder(SPACE)
    assert encode({"backbone": "resnet18", "learning_rate": 1e-3}) == pytest.approx([0, 1, 1 / 3])
    assert encode({"backbone": "alexnet", "learning_rate": 1e-1}) == pytest.approx([1, 0, 1])


def test_a_parameter_that_a_trial_lacks_is_outside_its_range() -> None:
    assert Encoder(SPACE)({"backbone": "alexnet"})[2] < 0


def test_derived_numbers_are_appended() -> None:
    encode = Encoder(SPACE, lambda params: {"square": params["learning_rate"] ** 2})
    assert encode({"backbone": "alexnet", "learning_rate": 0.1})[-1] == pytest.approx(0.01)


def test_configurations_are_predicted_by_those_near_them() -> None:
    random = np.random.default_rng(1)
    codes = random.random((200, 2))
    model = ConfigurationModel(random)
    assert not model.fitted
    model.fit(codes, codes[:, 0])
    mean, variance = model.predict(np.array([[0.2, 0.5], [0.8, 0.5]]))
    assert mean == pytest.approx([0.2, 0.8], abs=0.07)
    assert (variance > 0).all()


def test_the_deviation_of_predictions_is_that_of_the_scores_from_what_can_be_predicted() -> None:
    random = np.random.default_rng(2)
    codes = random.random((300, 1))
    model = ConfigurationModel(random)
    model.fit(codes, codes[:, 0] + 0.1 * random.standard_normal(300))
    deviation = np.sqrt(model.predict(random.random((50, 1)))[1]).mean()
    assert 0.09 < deviation < 0.16


def test_bad_scores_among_good_ones_do_not_make_better_ones_likelier() -> None:
    random = np.random.default_rng(2)
    codes = random.random((300, 1))
    model = ConfigurationModel(random)
    model.fit(codes, np.where(random.random(300) < 0.1, 0.1, 0.7 + 0.01 * random.standard_normal(300)))
    deviation = np.sqrt(model.predict(random.random((50, 1)))[1])
    assert np.median(deviation) < 0.1  # that of the scores is 0.18


def test_half_of_the_trees_predict_differently_each_time() -> None:
    random = np.random.default_rng(3)
    model = ConfigurationModel(random)
    codes = random.random((50, 2))
    model.fit(codes, random.random(50))
    assert (model.predict(codes)[0] == model.predict(codes)[0]).all()
    assert (model.predict(codes, half=True)[0] != model.predict(codes, half=True)[0]).any()


def rises(*trials: tuple[list[float], float, str]) -> RiseModel:
    """A model of trials of four epochs, given as scores, logarithm of the cost and arm, with a prior rise of 0.4."""
    made = RiseModel(4, 0.4)
    made.fit(
        [scores for scores, _, _ in trials], np.array([c for _, c, _ in trials]), [a for *_, a in trials]
    )
    return made


def rise(model: RiseModel, epochs: int, log_cost: float = 0.0, arm: str = "a") -> float:
    """The mean rise after this many epochs."""
    return float(model.predict(np.array([epochs]), np.array([log_cost]), [arm])[0][0])


def test_with_nothing_known_the_rise_is_in_proportion_to_the_epochs_left() -> None:
    assert [rise(rises(), epochs) for epochs in (1, 2, 4)] == pytest.approx([0.3, 0.2, 0.0])


def test_the_rise_of_known_trials_replaces_the_prior_which_counts_as_one_trial() -> None:
    known = ([0.1, 0.3, 0.2, 0.5], 0.0, "a")
    assert rise(rises(known), 1) == pytest.approx((0.3 + 0.4) / 2)
    assert rise(rises(*[known] * 9), 1) == pytest.approx((0.3 + 9 * 0.4) / 10)
    assert rise(rises(*[known] * 9), 3) == pytest.approx((0.1 + 9 * 0.2) / 10)


def test_trials_of_another_cost_or_arm_are_weaker_evidence() -> None:
    flat = [([0.3] * 4, 0.0, "a")] * 5
    same, dearer, other = (rise(rises(*flat), 1, *where) for where in ((0.0, "a"), (3.0, "a"), (0.0, "b")))
    assert same < other < dearer < 0.3


def test_what_trials_differ_by_is_the_uncertainty_of_a_rise() -> None:
    alike = rises(*[([0.1, 0.2, 0.3, 0.4], 0.0, "a")] * 20)
    unlike = rises(*[([0.1, 0.2, 0.3, last], 0.0, "a") for last in (0.3, 0.7)] * 10)
    variances = [model.predict(np.array([1]), np.array([0.0]), ["a"])[1][0] for model in (alike, unlike)]
    assert variances[0] < 0.2 * variances[1]
    assert variances[1] == pytest.approx(np.var([0.2, 0.6] * 10), rel=0.2)
