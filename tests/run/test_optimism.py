"""The optimism of the best of many looks: compared with known truths and with scikit-learn in plain loops."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_runs import make_run
from sklearn.metrics import f1_score

from genre_core.corpus.corpus_table import write_corpus
from genre_core.corpus.tracks import Corpus, Track
from genre_core.training.metrics import SCORES, confusion_matrix, overall
from search.run import optimism as module
from search.run.optimism import (
    Looks,
    affordable_resamples,
    bootstrap_f1,
    f1,
    looks_of,
    optimism,
    read_looks,
    resample,
)
from search.run.tables import read_epochs

GENRES = 5


def make_looks(predicted: np.ndarray, truth: np.ndarray, group: np.ndarray | None = None) -> Looks:
    """Looks of one trial each."""
    numbers, n_genres = np.arange(len(predicted)), int(truth.max()) + 1
    confusions = np.stack([confusion_matrix(truth, own, n_genres) for own in predicted])
    return Looks(
        trial=numbers,
        epoch=np.ones_like(numbers),
        f1=overall(confusions)[:, SCORES.index("f1")],
        predicted=predicted.astype(np.int16),
        truth=truth,
        group=np.arange(len(truth)) if group is None else group,
        n_genres=n_genres,
    )


def classifiers(
    random: np.random.Generator, n: int, *, tracks: int, accuracy: float = 0.6, shared: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """Predictions of equally good classifiers, [n, tracks], and the truth; a share of the tracks they judge alike."""
    truth = np.arange(tracks) % GENRES

    def draw(rows: int) -> np.ndarray:
        hit = random.random((rows, tracks)) < accuracy
        return np.where(hit, truth, (truth + random.integers(1, GENRES, size=(rows, tracks))) % GENRES)

    return np.where(random.random(tracks) < shared, draw(1), draw(n)), truth


@pytest.mark.parametrize("looks", [1, 10, 100, 1000])
def test_the_optimism_of_equally_good_classifiers_is_what_the_best_of_them_loses_on_new_tracks(
    looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RESAMPLES", 100)
    random = np.random.default_rng(looks)
    expected = np.mean([make_looks(*classifiers(random, 1, tracks=50)).f1 for _ in range(400)])
    best, estimated = [], []
    for _ in range(20):
        made = make_looks(*classifiers(random, looks, tracks=50))
        found = optimism(made)
        assert found
        best.append(made.f1.max())
        estimated.append(found.value)
    if looks == 1:
        assert estimated == pytest.approx([0.0] * 20, abs=1e-6)
    else:
        assert np.mean(estimated) == pytest.approx(np.mean(best) - expected, abs=0.035)
        assert np.mean(estimated) > 0.05


def test_the_estimate_equals_a_plain_loop_with_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESAMPLES", 25)
    random = np.random.default_rng(5)
    predicted, truth = classifiers(random, 8, tracks=30)
    looks = make_looks(predicted, truth, group=np.arange(30) % 15)
    drawn = resample(looks, module.RESAMPLES)
    inside, outside = np.empty((2, 8, drawn.shape[1]))
    for resampled in range(drawn.shape[1]):
        times = drawn[looks.group, resampled].astype(int)
        for tracks, scores in (
            (np.repeat(np.arange(30), times), inside),
            (np.flatnonzero(times == 0), outside),
        ):
            labels = np.unique(truth[tracks])
            for look in range(8):
                scores[look, resampled] = f1_score(
                    truth[tracks], predicted[look, tracks], labels=labels, average="macro", zero_division=0.0
                )
    winner = inside.argmax(axis=0)
    lost = [outside[look, n] - outside[look].mean() + looks.f1[look] for n, look in enumerate(winner)]
    found = optimism(looks)
    assert found
    assert found.value == pytest.approx(looks.f1.max() - np.mean(lost), abs=0.01)  # ties within rounding
    np.testing.assert_allclose(bootstrap_f1(looks, drawn), inside, atol=1e-5)
    np.testing.assert_allclose(f1(looks), looks.f1, atol=1e-6)


def test_groups_are_resampled_as_a_whole() -> None:
    predicted, truth = classifiers(np.random.default_rng(1), 30, tracks=40)
    single = make_looks(predicted, truth)
    copies = make_looks(
        np.repeat(predicted, 3, axis=1), np.repeat(truth, 3), group=np.repeat(np.arange(40), 3)
    )
    apart = replace(copies, group=np.arange(120))
    found = [optimism(looks) for looks in (single, copies, apart)]
    assert all(found)
    values = [each.value for each in found if each]
    assert values[1] == pytest.approx(values[0], abs=1e-5), "a group of copies counts as one track"
    assert values[2] < 0.8 * values[0]
    assert not any(each.at_least for each in found if each)
    merged = np.unique(np.where(copies.truth == 0, 0, copies.group), return_inverse=True)[1]
    one_group = optimism(replace(copies, group=merged))
    assert one_group
    assert one_group.at_least


def test_every_genre_is_drawn_as_often_as_it_has_groups_and_a_genres_only_group_track_by_track() -> None:
    truth = np.array([0, 0, 0, 0, 1, 1, 1])
    looks = make_looks(truth[None], truth, group=np.array([0, 0, 1, 1, 2, 2, 2]))
    drawn = resample(looks, 50)
    assert drawn.shape == (5, 50), "two groups and three tracks"
    assert sorted(set(np.sort(drawn.sum(axis=0)))) == [5.0]
    assert (drawn[2:].sum(axis=0) == 3).all() or (drawn[:2].sum(axis=0) == 2).all()
    assert (
        optimism(replace(looks.take(np.array([0])), truth=np.arange(7), n_genres=7, group=np.arange(7)))
        is None
    )


def test_more_tracks_have_fewer_resamples_so_that_their_weights_fit_into_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "DRAWS", 10_000)
    monkeypatch.setattr(module, "MIN_RESAMPLES", 20)
    for tracks, resamples in ((5, module.RESAMPLES), (50, 200), (5000, 20)):
        looks = make_looks(*classifiers(np.random.default_rng(6), 2, tracks=tracks))
        assert affordable_resamples(looks, 2) == resamples


def test_a_clearly_better_trial_has_almost_no_optimism_among_many_poor_ones() -> None:
    predicted, truth = classifiers(np.random.default_rng(2), 200, tracks=200, accuracy=0.2)
    good, _ = classifiers(np.random.default_rng(3), 1, tracks=200, accuracy=0.9)
    found = optimism(make_looks(np.concatenate([good, predicted]), truth))
    assert found
    assert found.value < 0.005


def test_leaving_out_hopeless_looks_hardly_changes_the_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = make_looks(*classifiers(np.random.default_rng(4), 600, tracks=50))
    found = optimism(looks)
    monkeypatch.setattr(module, "MAX_LOOKS", 200)
    fewer = optimism(looks)
    assert found
    assert fewer
    assert fewer.value == pytest.approx(found.value, abs=0.02)
    assert fewer.looks == found.looks == 600


def test_looks_are_read_from_a_run_whose_best_epoch_has_predictions(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", ((0.2, 0.5, 0.4), (0.3, 0.1)))
    epochs = read_epochs(run)
    assert read_looks(run, epochs) is None, "no corpus"
    tracks = tuple(
        Track(
            track_id=f"{n}.wav",
            location=f"/{n}.wav",
            genre="ab"[n % 2],
            group=f"g{n // 2}",
            split=split,
        )
        for n, split in enumerate(["validation", "train", "validation", "validation", "test"])
    )
    write_corpus(Corpus(tracks), run / "corpus.parquet")
    assert read_looks(run, epochs) is None, "no predictions, as in a run of an earlier version"
    epochs["predicted"] = pd.Series([np.array([0, 0, 1])] * 5, dtype=object)
    looks = read_looks(run, epochs)
    assert looks
    assert looks.truth.tolist() == [0, 0, 1]
    assert looks.group.tolist() == [0, 1, 1]
    assert (looks.trial.tolist(), looks.missing) == ([0, 0, 0, 1, 1], 0)
    epochs.at[4, "predicted"] = None
    looks = read_looks(run, epochs)
    assert looks
    assert (looks.epoch.tolist(), looks.missing) == ([1, 2, 3, 1], 1)
    epochs.at[1, "predicted"] = None
    assert read_looks(run, epochs) is None, "the best epoch is not known"


def test_looks_keep_the_order_of_the_genres() -> None:
    epochs = pd.DataFrame({"trial": [3], "epoch": [1], "val_f1": [0.5], "predicted": [[0, 1]]})
    looks = looks_of(epochs, ["jazz", "blues"], ["a", "b"], genres=("blues", "jazz"))
    assert looks.truth.tolist() == [1, 0]
