"""Scores compared with scikit-learn's on random predictions."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support

from genre_core.training import metrics

pytestmark = pytest.mark.filterwarnings("ignore:.*number of unique classes.*:UserWarning")


def _random_predictions(seed: int) -> tuple[np.ndarray, np.ndarray, int]:
    """True genres, predictions and number of genres; some genres never occur, some are never predicted."""
    rng = np.random.default_rng(seed)
    n_genres = int(rng.integers(2, 12))
    n_tracks = int(rng.integers(1, 200))
    shares = rng.dirichlet(np.full(n_genres, 0.3))
    truth = rng.choice(n_genres, size=n_tracks, p=shares)
    predicted = np.where(rng.random(n_tracks) < 0.5, truth, rng.integers(0, n_genres, n_tracks))
    return truth, predicted, n_genres


@pytest.mark.parametrize("seed", range(40))
def test_scores_equal_scikit_learns(seed: int) -> None:
    truth, predicted, n_genres = _random_predictions(seed)
    labels = list(range(n_genres))
    confusion = metrics.confusion_matrix(truth, predicted, n_genres)
    scores = metrics.scores(confusion)
    assert (confusion == confusion_matrix(truth, predicted, labels=labels)).all()
    precision, recall, f1, _ = precision_recall_fscore_support(
        truth, predicted, labels=labels, average="macro", zero_division=0
    )
    assert scores.accuracy == pytest.approx(accuracy_score(truth, predicted))
    assert (scores.precision, scores.recall, scores.f1) == pytest.approx((precision, recall, f1))
    assert scores.f1_per_genre == pytest.approx(
        f1_score(truth, predicted, labels=labels, average=None, zero_division=0)
    )


def test_scores_without_any_track_are_zero() -> None:
    nothing = np.zeros((3, 3), dtype=np.int64)
    assert metrics.scores(nothing).f1 == 0.0
