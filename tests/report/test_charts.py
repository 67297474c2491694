"""The charts' data: what is drawn is what the tables hold."""

from pathlib import Path

import numpy as np
import pandas as pd
from conftest import TRIALS
from scipy.stats import norm

from search.report import charts
from search.report.charts.contour import CUTOFF, SMOOTHING, smooth
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
