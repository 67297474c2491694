"""The charts' data: what is drawn is what the tables hold."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import TRIALS
from scipy.stats import norm
from sklearn.metrics import recall_score

from search.report import charts
from search.report.charts.contour import CUTOFF, SMOOTHING, smooth
from search.report.time_accounting import PARTS, TimeSpent
from search.run.tables import read_epochs, read_trials


def test_learning_curves_hold_every_epoch(run: Path) -> None:
    epochs = read_epochs(run)
    chart = charts.curves(read_trials(run), epochs, ["resnet18"], None)["resnet18"]
    drawn = [
        (trial, x, y)
        for trace in chart.traces
        if trace.mode == "lines"
        for trial, x, y in zip(trace.customdata, trace.x, trace.y, strict=True)
        if x is not None
    ]
    expected = epochs[["trial", "epoch", "val_f1"]].to_numpy(dtype=float)
    np.testing.assert_allclose(sorted(drawn), expected, rtol=1e-3, atol=1e-4)


def test_the_history_holds_every_trial_and_the_best_so_far(run: Path) -> None:
    trials = read_trials(run)
    best, *markers = charts.history(trials, ["resnet18"]).traces
    drawn = sorted(pair for trace in markers for pair in zip(trace.customdata, trace.y, strict=True))
    assert [trial for trial, _ in drawn] == list(range(TRIALS))
    scores = trials.sort_values("trial")["val_f1"].tolist()
    np.testing.assert_allclose([f1 for _, f1 in drawn], scores, rtol=1e-3)
    np.testing.assert_allclose(best.y, [max(scores[: n + 1]) for n in range(TRIALS)], rtol=1e-3)


def test_a_surface_is_the_mean_f1_weighted_by_a_gaussian_and_blank_far_from_all_trials() -> None:
    random = np.random.default_rng(0)
    positions, f1 = random.uniform(0, 0.6, (12, 2)), random.uniform(0.2, 0.8, 12)
    surface = smooth(positions, f1)
    ticks = np.linspace(0, 1, len(surface))
    blank = 0
    for (row, column), value in np.ndenumerate(surface):
        distances = np.hypot(positions[:, 0] - ticks[column], positions[:, 1] - ticks[row])
        if distances.min() > CUTOFF * SMOOTHING:
            blank += 1
            assert np.isnan(value)
        else:
            assert np.isclose(value, np.average(f1, weights=norm.pdf(distances, scale=SMOOTHING)))
    assert 0 < blank < surface.size


def _trials(count: int, *, scale: float) -> pd.DataFrame:
    random = np.random.default_rng(count)
    return pd.DataFrame(
        {
            "trial": range(count),
            "backbone": f"of {count}",
            "learning_rate": 10 ** random.uniform(-4, -1, count),
            "momentum": random.uniform(0.5, 0.99, count),
            "val_f1": scale * random.uniform(0.2, 0.8, count),
        }
    )


def test_a_surface_needs_ten_trials_and_has_its_own_colours() -> None:
    trials = pd.concat([_trials(9, scale=1), _trials(10, scale=1), _trials(30, scale=0.1)])
    names = ["of 9", "of 10", "of 30"]
    drawn = charts.contours(trials, names, ["learning_rate", "momentum"])["learning_rate", "momentum"]
    assert list(drawn) == ["of 10", "of 30"]
    for chart in drawn.values():
        surface = np.array(chart.traces[0].z, dtype=float)
        axis = chart.layout.coloraxis
        np.testing.assert_allclose(
            (axis.cmin, axis.cmax), (np.nanmin(surface), np.nanmax(surface)), rtol=1e-3
        )
        assert axis.showscale


@pytest.mark.parametrize(
    ("seconds", "unit", "value"),
    [(24.0, "s", 24.0), (119.0, "s", 119.0), (150.0, "min", 2.5), (7300.0, "h", 2.028)],
)
def test_worker_time_is_in_the_unit_that_suits_it(seconds: float, unit: str, value: float) -> None:
    parts = pd.DataFrame({part: [0.0, 0.0] for part in PARTS}, index=["alexnet", "vgg16"])
    parts.loc["vgg16", "training"], parts.loc["alexnet", "training"] = seconds, seconds / 2
    spent = TimeSpent(by_backbone=parts, wall=seconds, busy=seconds, pruning_saved=0.0, sharing_saved=0.0)
    chart = charts.times(spent)
    assert chart.layout.xaxis.title.text == f"worker time ({unit})"
    (bars,) = chart.traces  # parts that took no time have none
    assert bars.y[-1] == "vgg16", "the longest is at the top"
    assert bars.x[-1] == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize("n_genres", [2, 12, 13])
def test_the_cells_of_a_confusion_matrix_show_the_share_of_the_true_genre(n_genres: int) -> None:
    counts = np.random.default_rng(0).integers(1, 30, (n_genres, n_genres))
    counts[0, 1] = 0
    chart = charts.confusion(counts, [f"genre {number}" for number in range(n_genres)])
    (cells,) = chart.traces
    assert cells.text[0][1] == ""
    truth = np.repeat(np.arange(n_genres), counts.sum(axis=1))
    predicted = np.concatenate([np.repeat(np.arange(n_genres), row) for row in counts])
    recall = recall_score(truth, predicted, average=None)
    for genre in range(n_genres):
        assert f"{recall[genre]:.0%}" in cells.text[genre][genre]
        assert (str(counts[genre, genre]) in cells.text[genre][genre].split("<br>")) == (n_genres <= 12)
    assert (chart.layout.xaxis.title.text, chart.layout.yaxis.title.text) == ("predicted genre", "true genre")


def test_the_pareto_front_holds_the_complete_trials_that_none_dominates() -> None:
    random = np.random.default_rng(0)
    table = pd.DataFrame(random.integers(8, size=(40, 2)), columns=["seconds", "val_f1"])
    table = table.assign(trial=range(40), state=random.choice(["COMPLETE", "PRUNED"], size=40))
    front = charts.pareto_front(table, "seconds")
    complete = table[table["state"] == "COMPLETE"]
    costs, scores = complete["seconds"].to_numpy(), complete["val_f1"].to_numpy()
    undominated = [
        (cost, f1)
        for cost, f1 in zip(costs, scores, strict=True)
        if not ((costs <= cost) & (scores >= f1) & ((costs < cost) | (scores > f1))).any()
    ]
    assert list(zip(front["seconds"], front["val_f1"], strict=True)) == sorted(set(undominated))


def test_25_backbones_have_different_marks() -> None:
    names = [str(number) for number in range(25)]
    assert len({charts.mark(names, name) for name in names}) == 25
