"""Bootstrap intervals compared with SciPy's, of scores by scikit-learn."""

import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from genre_core.training.bootstrap import CONFIDENCE, RESAMPLES, bootstrap

GENRES, TRACKS = 4, 120
_MACRO: dict[str, Any] = {"average": "macro", "zero_division": 0.0, "labels": range(GENRES)}
SCORES = {
    "accuracy": accuracy_score,
    "precision": lambda truth, predicted: precision_score(truth, predicted, **_MACRO),
    "recall": lambda truth, predicted: recall_score(truth, predicted, **_MACRO),
    "f1": lambda truth, predicted: f1_score(truth, predicted, **_MACRO),
}


def _predictions(models: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """True genres, and predictions of models that are right about two times in three."""
    random = np.random.default_rng(1)
    truth = random.integers(GENRES, size=TRACKS)
    guesses = random.integers(GENRES, size=(models, TRACKS))
    return truth, np.where(random.random((models, TRACKS)) < 0.6, truth, guesses)


@pytest.mark.parametrize(
    "score", ["accuracy", "f1", *[pytest.param(s, marks=pytest.mark.long) for s in ("precision", "recall")]]
)
def test_intervals_are_scipys_over_tracks(score: str) -> None:
    truth, predicted = _predictions(models=2)

    def mean(truth: NDArray[np.int64], *predicted: NDArray[np.int64]) -> float:
        return float(np.mean([SCORES[score](truth, own) for own in predicted]))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = stats.bootstrap(
            (truth, *predicted),
            mean,
            paired=True,
            vectorized=False,
            n_resamples=600,
            confidence_level=CONFIDENCE,
            method="percentile",
            rng=np.random.default_rng(2),
        ).confidence_interval
    # two sets of resamples differ by a few thousandths; an interval is about 0.15 wide
    assert bootstrap(truth, predicted, GENRES)[score] == pytest.approx(tuple(expected), abs=0.015)


def test_the_same_predictions_have_the_same_intervals_and_more_tracks_have_narrower_ones() -> None:
    truth, predicted = _predictions(models=1)
    once = bootstrap(truth, predicted, GENRES)
    assert once == bootstrap(truth, predicted, GENRES)
    fourfold = bootstrap(np.tile(truth, 4), np.tile(predicted, 4), GENRES)
    assert np.diff(fourfold["f1"])[0] == pytest.approx(np.diff(once["f1"])[0] / 2, rel=0.15)


def test_perfect_predictions_are_perfect_in_every_resample() -> None:
    truth, _ = _predictions(models=1)
    assert bootstrap(truth, truth[np.newaxis], GENRES)["accuracy"] == (1.0, 1.0)
    assert RESAMPLES >= 1000
