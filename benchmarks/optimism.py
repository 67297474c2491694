"""Check the estimated optimism, and a discounted choice of trials, on a recorded run.

    python benchmarks/optimism.py RUN...

Halves of the validation groups are drawn at random, genre by genre. The best epoch on one half loses F1 on the other
half: this is compared with the optimism that the first half alone estimates. Trials are chosen on one half by their
best F1, and by that F1 shrunk towards similar trials, and scored on the other half.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from search.run.optimism import Floats, Integers, Looks, bootstrap_f1, f1, optimism, read_looks, resample
from search.run.tables import read_epochs, read_trials

HALVINGS = 50
"""Number of random halvings; each half is used once for the choice."""
RESAMPLES = 100
"""Number of resamples from which the variance of a trial's F1 is estimated."""
NEAR_RATE, NEAR_DEPTH = 0.5, 0.25
"""Distance of similar trials: decades of learning rate / (1 - momentum), and share of the blocks frozen."""
TOP = 3


def main() -> None:
    """Print one line per run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    for run in parser.parse_args().runs:
        check(run)


def check(run: Path) -> None:
    """Halve the validation set of a run many times, and print the means with standard errors over halvings."""
    trials, looks = read_trials(run).set_index("trial"), read_looks(run, read_epochs(run))
    assert looks, "needs a run with predictions"
    looks = looks.take(np.flatnonzero(np.isin(looks.trial, trials.index)))
    random = np.random.default_rng(0)
    rows = []
    for _ in range(HALVINGS):
        mine = halve(looks, random)
        for chosen_on, scored_on in ((mine, ~mine), (~mine, mine)):
            rows.append(_row(part(looks, chosen_on), part(looks, scored_on), trials))
    found = pd.DataFrame(rows)
    error = found.groupby(np.arange(len(found)) // 2).mean().sem()
    cells = [f"{name} {found[name].mean():+.4f} ±{error[name]:.4f}" for name in map(str, found)]
    print(f"{run.name}, {trials.index.size} trials, {len(looks.trial)} epochs: {'; '.join(cells)}")


def _row(here: Looks, there: Looks, trials: pd.DataFrame) -> dict[str, float]:
    """What a choice on one half finds on the other."""
    found, winner = optimism(here), here.f1.argmax()
    assert found
    numbers = np.unique(here.trial)
    best = np.array(
        [max(np.flatnonzero(here.trial == number), key=here.f1.__getitem__) for number in numbers]
    )
    score, other = here.f1[best], there.f1[best]
    discounted = shrunk(score, variance(here.take(best)), trials[trials.index.isin(numbers)].sort_index())
    plain, careful = (np.argsort(-by, kind="stable") for by in (score, discounted))
    return {
        "optimism": found.value,
        "lost": here.f1[winner] - there.f1[winner],
        "discounted - best F1, first": other[careful[0]] - other[plain[0]],
        f"discounted - best F1, first {TOP}": other[careful[:TOP]].mean() - other[plain[:TOP]].mean(),
    }


def halve(looks: Looks, random: np.random.Generator) -> NDArray[np.bool_]:
    """Half of the groups of each genre, as a mask of the tracks, [tracks]."""
    mine: list[int] = []
    for genre in range(looks.n_genres):
        groups = random.permutation(np.unique(looks.group[looks.truth == genre]))
        mine += groups[random.integers(2) :: 2].tolist()
    return np.isin(looks.group, mine)


def part(looks: Looks, tracks: NDArray[np.bool_]) -> Looks:
    """The looks at some tracks only, [tracks]."""
    group: Integers = np.unique(looks.group[tracks], return_inverse=True)[1]
    here = replace(looks, predicted=looks.predicted[:, tracks], truth=looks.truth[tracks], group=group)
    return replace(here, f1=f1(here).astype(np.float64))


def variance(looks: Looks) -> NDArray[np.float64]:
    """Variance of each look's F1 over tracks, [looks], without what all looks have in common."""
    drawn: Floats = bootstrap_f1(looks, resample(looks, RESAMPLES))
    noise: NDArray[np.float64] = (drawn - drawn.mean(axis=0)).var(axis=1).astype(np.float64)
    return noise


def shrunk(
    score: NDArray[np.float64], noise: NDArray[np.float64], trials: pd.DataFrame
) -> NDArray[np.float64]:
    """Empirical Bayes: scores drawn towards the mean of similar trials of the backbone, the more the noisier they are.

    Without noise, the scores are returned.
    """
    rate = np.log10((trials["learning_rate"] / (1 - trials["momentum"])).to_numpy(np.float64)) / NEAR_RATE
    depth = (trials["frozen_blocks"] / trials["n_blocks"]).to_numpy(np.float64) / NEAR_DEPTH
    backbone = trials["backbone"].to_numpy()
    same = backbone[:, None] == backbone
    near = same * np.exp(-((rate[:, None] - rate) ** 2 + (depth[:, None] - depth) ** 2) / 2)
    np.fill_diagonal(near, 0)
    of_backbone = same @ score / same.sum(axis=1)
    expected = (near @ score + of_backbone) / (
        near.sum(axis=1) + 1
    )  # the backbone counts as one similar trial
    spread = max(0.0, float(((score - expected) ** 2 - noise).mean()))
    trust = np.divide(spread, spread + noise, out=np.ones_like(noise), where=noise > 0)
    result: NDArray[np.float64] = expected + trust * (score - expected)
    return result


if __name__ == "__main__":
    main()
