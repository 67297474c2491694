"""The output at the end of a search: its best trials, a summary, and the expected score on new tracks."""

from pathlib import Path

from search.display.progress import Display
from search.report import leaderboard
from search.run.ranking import select
from search.run.tables import read_trials

_SHOWN = 5
"""Number of the best trials that are shown."""


def show_ending(display: Display, run: Path) -> bool:
    """Show the results of a run; returns whether a trial has a score."""
    trials = read_trials(run)
    display.show(leaderboard.table(select(trials).head(_SHOWN)), leaderboard.summary(trials))
    display.show(*leaderboard.expected(run, trials))
    return bool(trials["val_f1"].notna().any())
