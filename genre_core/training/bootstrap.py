"""Bootstrap confidence intervals of scores over tracks: the uncertainty from the choice of tracks in a split."""

import numpy as np
from numpy.typing import NDArray

from genre_core.training.metrics import SCORES, overall

RESAMPLES = 2000
"""Number of resamples: each draws as many tracks as there are, with replacement."""
CONFIDENCE = 0.95
"""Fraction of the resamples' scores inside an interval, with equal tails."""
SEED = 0
"""Fixed, so that the same predictions have the same intervals."""

_CHUNK = 100
"""Resamples scored at a time."""


def bootstrap(
    truth: NDArray[np.int64], predicted: NDArray[np.int64], n_genres: int
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of the scores' means over models.

    A resample draws the same tracks for all models; a genre without tracks in it counts as in `metrics.scores`.

    Args:
        truth: genre indices, [tracks].
        predicted: genre indices predicted by one or more models, [models, tracks].
        n_genres: number of genres.

    Returns:
        Name in `metrics.SCORES` -> (low, high).
    """
    random = np.random.default_rng(SEED)
    cells = truth * n_genres + predicted
    means = [
        _means(cells[:, random.integers(len(truth), size=(_CHUNK, len(truth)))], n_genres)
        for _ in range(RESAMPLES // _CHUNK)
    ]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(means), (tail, 1 - tail), axis=0).tolist()
    return dict(zip(SCORES, zip(low, high, strict=True), strict=True))


def _means(cells: NDArray[np.int64], n_genres: int) -> NDArray[np.float64]:
    """Mean scores, [resamples, scores], from the tracks' cells in the confusion matrix, [models, resamples, tracks]."""
    size = n_genres * n_genres
    matrices = np.arange(cells.shape[0] * cells.shape[1]).reshape(*cells.shape[:2], 1)
    counts = np.bincount((matrices * size + cells).ravel(), minlength=matrices.size * size)
    means: NDArray[np.float64] = overall(counts.reshape(*cells.shape[:2], n_genres, n_genres)).mean(axis=0)
    return means
