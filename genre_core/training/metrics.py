"""Confusion matrix of per-track predictions, and its accuracy, macro precision, recall and F1."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SCORES = ("accuracy", "precision", "recall", "f1")
"""Names of the overall scores, as in the fields of `Scores`."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Classification scores over tracks. Precision, recall and F1 are macro averages over genres."""

    accuracy: float
    precision: float
    recall: float
    f1: float
    f1_per_genre: tuple[float, ...]
    """F1 of each genre, in the order of the genres."""
    confusion: tuple[tuple[int, ...], ...]
    """Number of tracks, [true genre][predicted genre]."""


def confusion_matrix(
    truth: NDArray[np.int64], predicted: NDArray[np.int64], n_genres: int
) -> NDArray[np.int64]:
    """Number of tracks, [true genre, predicted genre], from two arrays of genre indices, [tracks]."""
    cells = np.bincount(truth * n_genres + predicted, minlength=n_genres * n_genres)
    return cells.reshape(n_genres, n_genres)


def scores(confusion: NDArray[np.int64]) -> Scores:
    """Scores of a confusion matrix, [true genre, predicted genre]; a ratio with a zero denominator counts as 0."""
    return Scores(
        **dict(zip(SCORES, overall(confusion).tolist(), strict=True)),
        f1_per_genre=tuple(_ratios(confusion)[-1].tolist()),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )


def overall(confusions: NDArray[np.int64]) -> NDArray[np.float64]:
    """The `SCORES` of confusion matrices, [..., true genre, predicted genre] -> [..., score]."""
    hits = confusions.diagonal(axis1=-2, axis2=-1).sum(axis=-1)
    accuracy = _ratio(hits, confusions.sum(axis=(-2, -1)))
    return np.stack([accuracy, *(ratio.mean(axis=-1) for ratio in _ratios(confusions))], axis=-1)


def _ratios(confusions: NDArray[np.int64]) -> tuple[NDArray[np.float64], ...]:
    """Precision, recall and F1 per genre, each [..., genre]."""
    hits = confusions.diagonal(axis1=-2, axis2=-1)
    true, predicted = confusions.sum(axis=-1), confusions.sum(axis=-2)
    return _ratio(hits, predicted), _ratio(hits, true), _ratio(2 * hits, true + predicted)


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.where(whole == 0, 0.0, part / np.maximum(whole, 1))
