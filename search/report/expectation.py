"""A sentence about the F1 to expect on new tracks, given a search's best validation F1."""

from pathlib import Path

import pandas as pd

from search.report.formatting import counted
from search.run.optimism import Optimism, optimism, read_looks
from search.run.tables import read_epochs


def sentence(run: Path, trials: pd.DataFrame) -> str | None:
    """The sentence about a run; None if no trial has a score.

    Args:
        run: the run's folder.
        trials: all trials of the run, as returned by `read_trials`.
    """
    scored = trials["val_f1"].dropna()
    if scored.empty:
        return None
    looks = read_looks(run, read_epochs(run))
    found = optimism(looks) if looks else None
    return describe(float(scored.max()), found, trials=len(scored), recorded=looks is not None)


def describe(best: float, found: Optimism | None, *, trials: int, recorded: bool = True) -> str:
    """The sentence about the best validation F1.

    Args:
        best: the best validation F1.
        found: its optimism; None if not known.
        trials: number of trials with a score.
        recorded: whether the predictions are recorded from which optimism is estimated.
    """
    text = f"best validation F1 {best:.3f}; "
    if found is None:
        of_what = (
            "several validation tracks of a genre, but each genre has one"
            if recorded
            else "predictions that earlier versions did not record"
        )
        return (
            f"{text}the F1 to expect on new tracks is not known, because the optimism of the best of "
            f"{counted(trials, 'trial')} is estimated from {of_what}"
        )
    at_most, at_least = (" at most", "at least ") if found.at_least else (" about", "")
    text += (
        f"expected on new tracks{at_most} {best - found.value:.2f} (optimism of the best of "
        f"{counted(found.looks, 'epoch')} of {counted(found.trials, 'trial')}: {at_least}{found.value:.2f}"
        f"{', because a genre has a single group of tracks' if found.at_least else ''})"
    )
    if found.missing:
        text += f", excluding {counted(found.missing, 'more epoch')} without recorded predictions"
    return text
