"""Predictions per track -> confusion matrix -> accuracy, macro precision, recall and F1."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Scores:
    """How well tracks were classified. Precision, recall and F1 are macro: the mean over genres."""

    accuracy: float
    precision: float
    recall: float
    f1: float
    f1_per_genre: tuple[float, ...]
    """In the order of the genres."""
    confusion: tuple[tuple[int, ...], ...]
    """Tracks, [true genre][predicted genre]."""


def confusion_matrix(
    truth: NDArray[np.int64], predicted: NDArray[np.int64], n_genres: int
) -> NDArray[np.int64]:
    """Counts of tracks, [true genre, predicted genre], from two arrays of genre indices, [tracks]."""
    cells = np.bincount(truth * n_genres + predicted, minlength=n_genres * n_genres)
    return cells.reshape(n_genres, n_genres)


def scores(confusion: NDArray[np.int64]) -> Scores:
    """Scores of a confusion matrix, [true genre, predicted genre]; a ratio over nothing counts as 0."""
    hits = confusion.diagonal()
    true, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    f1 = _ratio(2 * hits, true + predicted)
    return Scores(
        accuracy=float(_ratio(hits.sum(), confusion.sum())),
        precision=float(_ratio(hits, predicted).mean()),
        recall=float(_ratio(hits, true).mean()),
        f1=float(f1.mean()),
        f1_per_genre=tuple(f1.tolist()),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.where(whole == 0, 0.0, part / np.maximum(whole, 1))
