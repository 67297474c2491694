"""The optimism of a search's best validation F1: the best of many looks at the same tracks is too high.

A look is one epoch of one trial, whose F1 on the validation tracks could have become the best. The estimate is the
bootstrap bias correction of Tsamardinos, Greasidou and Borboudakis (2018, "Bootstrapping the out-of-sample predictions
for efficient and accurate cross-validation"): choose the best look on resampled tracks and score it on the tracks
that the resample left out. `F1 on the resample - F1 on all tracks` of that look would find about half of the optimism
only, because the left-in tracks carry the luck of the search itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genre_core.corpus.corpus_table import read_columns, read_genres
from search.run.folder import RunFolder

RESAMPLES = 1000
"""Number of bootstrap resamples of the validation tracks."""
MIN_RESAMPLES = 100
"""Number of resamples, however large the search."""
MAX_LOOKS = 500
"""Number of looks that are resampled, those with the highest F1; the others hardly ever become the best."""
DRAWS = 5e6
"""Number of tracks that all resamples of a large validation set draw together: they take 20 MB."""
MULTIPLICATIONS = 1e10
"""Multiplications of a large search, which has fewer resamples: about a second on two cores."""
SEED = 0
"""Fixed, so that the same predictions have the same estimate."""

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Looks:
    """The predictions of a search for its validation tracks, one row per epoch of a trial."""

    trial: Integers
    """Number of the trial, [looks]."""
    epoch: Integers
    """Number of the epoch, [looks]."""
    f1: NDArray[np.float64]
    """Macro F1 on all tracks, [looks]."""
    predicted: NDArray[np.int16]
    """Index of the predicted genre, [looks, tracks]."""
    truth: Integers
    """Index of the true genre, [tracks]."""
    group: Integers
    """Index of the track's group, [tracks]; tracks of a group are not independent."""
    n_genres: int
    missing: int = 0
    """Number of looks whose predictions are not recorded."""

    def take(self, rows: Integers) -> "Looks":
        """Keep some looks, [kept]."""
        return Looks(
            trial=self.trial[rows],
            epoch=self.epoch[rows],
            f1=self.f1[rows],
            predicted=self.predicted[rows],
            truth=self.truth,
            group=self.group,
            n_genres=self.n_genres,
            missing=self.missing,
        )


@dataclass(frozen=True, kw_only=True)
class Optimism:
    """By how much the best validation F1 of a search exceeds what its winner is expected to reach on new tracks."""

    value: float
    """Expected difference, 0 or more."""
    looks: int
    """Number of looks, of which the best was chosen."""
    trials: int
    """Number of trials that they belong to."""
    missing: int
    """Number of further looks whose predictions are not recorded."""
    at_least: bool = False
    """Whether a genre has a single group of several tracks, so that the value is too low."""


def read_looks(run: Path, epochs: pd.DataFrame) -> Looks | None:
    """Collect the looks of a run.

    Args:
        run: the run's folder, with its corpus.
        epochs: as returned by `read_epochs`.

    Returns:
        None if the run has no predictions, as those of earlier versions, or none for its best epoch.
    """
    if not len(epochs) or not RunFolder(run).corpus.exists():
        return None
    corpus = RunFolder(run).corpus
    tracks = read_columns(corpus, "genre", "group", part="validation")
    genre, group = tracks["genre"], tracks["group"]
    known = np.array([row is not None and len(row) == len(genre) for row in epochs["predicted"]])
    if not genre or not known[epochs["val_f1"].argmax()]:
        return None
    return looks_of(epochs[known], genre, group, genres=read_genres(corpus), missing=int((~known).sum()))


def looks_of(
    epochs: pd.DataFrame,
    genre: Sequence[str],
    group: Sequence[str],
    *,
    genres: Sequence[str],
    missing: int = 0,
) -> Looks:
    """Convert epochs with predictions for validation tracks of these genres and groups.

    Args:
        epochs: with columns as returned by `read_epochs`.
        genre: of each track.
        group: of each track.
        genres: of the corpus.
        missing: see `Looks.missing`.
    """
    groups = {name: index for index, name in enumerate(dict.fromkeys(group))}
    return Looks(
        trial=epochs["trial"].to_numpy(np.int64),
        epoch=epochs["epoch"].to_numpy(np.int64),
        f1=epochs["val_f1"].to_numpy(np.float64),
        predicted=np.stack(epochs["predicted"].to_list()).astype(np.int16),
        truth=np.array([genres.index(name) for name in genre], np.int64),
        group=np.array([groups[name] for name in group], np.int64),
        n_genres=len(genres),
        missing=missing,
    )


def optimism(looks: Looks) -> Optimism | None:
    """Estimate the optimism of the best look; None if no track can be left out, since each is its genre's only one.

    F1 of few tracks is not linear: that of the left-out tracks is lower or higher than that of all tracks for a look
    that was not chosen, too. This difference, averaged over the resamples, is taken off look by look, so that the best
    of one look has no optimism.
    """
    top = np.sort(np.argsort(-looks.f1, kind="stable")[:MAX_LOOKS])
    drawn = resample(looks, affordable_resamples(looks, len(top)))
    if not (usable := (drawn == 0).any(axis=0)).any():
        return None
    if not usable.all():
        drawn = drawn[:, usable]
    chosen = top[bootstrap_f1(looks.take(top), drawn).argmax(axis=0)]
    numbers, winner = np.unique(chosen, return_inverse=True)
    winners = looks.take(numbers)
    outside = bootstrap_f1(winners, (drawn == 0).astype(np.float32))
    full, best = f1(winners), f1(looks.take(np.argsort(-looks.f1)[:1]))
    expected = outside[winner, np.arange(len(winner))] - outside.mean(axis=1)[winner] + full[winner]
    return Optimism(
        value=max(0.0, float(best[0] - expected.mean())),
        looks=len(looks.f1),
        trials=len(np.unique(looks.trial)),
        missing=looks.missing,
        at_least=bool((_units(looks).max() + 1) > len(np.unique(looks.group))),
    )


def f1(looks: Looks) -> Floats:
    """The macro F1 of each look on all tracks, [looks], averaged over the genres that have tracks."""
    return bootstrap_f1(looks, np.ones((int(_units(looks).max()) + 1, 1), np.float32))[:, 0]


def bootstrap_f1(looks: Looks, weights: Floats) -> Floats:
    """The macro F1 of each look on weighted tracks, [looks, resamples], averaged over the genres that have tracks.

    Args:
        looks: to score.
        weights: how often each unit counts, [units, resamples], as drawn by `resample`.
    """
    units = _units(looks)
    order, starts = np.argsort(units, kind="stable"), np.searchsorted(np.sort(units), np.arange(len(weights)))
    predicted, truth = looks.predicted[:, order], looks.truth[order]

    def count(tracks: NDArray[np.bool_]) -> Floats:
        return np.add.reduceat(tracks.astype(np.float32), starts, axis=-1) @ weights

    total = np.zeros((len(predicted), weights.shape[1]), np.float32)
    present = np.zeros(weights.shape[1], np.float32)
    for genre in range(looks.n_genres):
        said, is_true = predicted == genre, truth == genre
        tracks = count(is_true)
        ratio = 2 * count(said & is_true) / np.maximum(tracks + count(said), 1)
        total += np.where(tracks > 0, ratio, 0)
        present += tracks > 0
    mean: Floats = (total / np.maximum(present, 1)).astype(np.float32)
    return mean


def resample(looks: Looks, resamples: int) -> Floats:
    """How often each unit of the tracks is drawn, [units, resamples].

    Groups are resampled as a whole, those of each genre among themselves, so that no genre gets lost. A group counts
    for its most frequent genre. The tracks of a genre's only group are resampled one by one, as if they were
    independent, which finds less optimism than there is.
    """
    genres = _genre_of_units(looks, _units(looks))
    random = np.random.default_rng(SEED)
    drawn = np.zeros((len(genres), resamples), np.float32)
    for genre in np.unique(genres):
        own = np.flatnonzero(genres == genre)
        drawn[own] = random.multinomial(len(own), np.full(len(own), 1 / len(own)), size=resamples).T
    return drawn


def affordable_resamples(looks: Looks, n_looks: int) -> int:
    """The number of resamples for this number of looks."""
    units = int(_units(looks).max()) + 1
    multiplications = 2 * looks.n_genres * n_looks * units  # hits and predictions
    affordable = min(MULTIPLICATIONS / multiplications, DRAWS / units)
    return int(np.clip(affordable, MIN_RESAMPLES, RESAMPLES))


def _units(looks: Looks) -> Integers:
    """What is resampled as a whole, [tracks]: the track's group, or the track if its genre has no other group."""
    main = _genre_of_units(looks, looks.group)
    alone = np.bincount(main, minlength=looks.n_genres)[main[looks.group]] == 1
    own = len(main) + np.arange(len(looks.group))
    units: Integers = np.unique(np.where(alone, own, looks.group), return_inverse=True)[1]
    return units


def _genre_of_units(looks: Looks, units: Integers) -> Integers:
    """The most frequent genre of each unit, [units]."""
    counts = np.zeros((int(units.max()) + 1, looks.n_genres), np.int64)
    np.add.at(counts, (units, looks.truth), 1)
    genres: Integers = counts.argmax(axis=1)
    return genres
