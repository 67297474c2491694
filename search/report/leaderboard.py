"""Terminal output about the trials of a run: ranking, summary, expected F1 on new tracks, and costs."""

from pathlib import Path

import pandas as pd
from rich.text import Text

from search.report import expectation
from search.report.fitting import FittedTable
from search.report.formatting import STATE_WORD, counted, duration
from search.report.trial_table import rows_of, trial_table
from search.run.commands import command
from search.run.lock import is_driven
from search.run.schemas import RUNNING

_MOST_REASONS = 3
"""Number of distinct errors of failed trials that are shown."""


def table(trials: pd.DataFrame, *, of_several: bool = False) -> FittedTable:
    """A table of trials, with a column for the run if there are several."""
    return trial_table(rows_of(trials), of_several=of_several)


def summary(trials: pd.DataFrame) -> Text:
    """The number of trials in each state, the elapsed time, and the most frequent errors."""
    not_cut_off = trials[trials["stopped"].isna()]["state"].value_counts()
    counts = [f"{not_cut_off[state]} {word}" for state, word in STATE_WORD.items() if state in not_cut_off]
    counts += [f"{count} cut off by the {what}" for what, count in trials["stopped"].value_counts().items()]
    text = Text(f"{counted(len(trials), 'trial')}: {', '.join(counts)}" if counts else "no trials")
    if len(trials) and trials["finished"].notna().any():
        elapsed = (trials["finished"].max() - trials["started"].min()).total_seconds()
        text.append(f"; {duration(elapsed)} elapsed")
    for reason, count in trials["error"].value_counts().head(_MOST_REASONS).items():
        text.append(f"\n{count} failed: {reason}", style="red")
    return text


def expected(run: Path, trials: pd.DataFrame) -> list[Text]:
    """A line about the F1 to expect on new tracks; nothing if no trial has a score.

    Args:
        run: the run's folder.
        trials: all trials of the run, as returned by `read_trials`.
    """
    found = expectation.sentence(run, trials)
    return [Text(found)] if found else []


def abandoned(run: Path, trials: pd.DataFrame) -> list[Text]:
    """A warning with the command to resume a run whose trials are RUNNING without a driver; otherwise nothing."""
    running = int((trials["state"] == RUNNING).sum())
    if not running or is_driven(run):
        return []
    verb = "is" if running == 1 else "are"
    text = (
        f"{counted(running, 'trial')} {verb} RUNNING, but no process on this machine drives {run}. "
        f"Continue with: {command('resume', run)}"
    )
    return [Text(text, style="yellow")]


def costs(trials: pd.DataFrame) -> list[FittedTable | Text]:
    """The mean time of an epoch and of computing activations by backbone and freeze depth, and their sharing."""
    ran = trials[trials["epochs"] > 0]
    titles = ("backbone", "frozen", "trials", "seconds per epoch", "seconds for activations")
    shown = FittedTable(*titles, left=("backbone",), drop=("trials",))
    for (backbone, frozen, blocks), cell in ran.groupby(["backbone", "frozen_blocks", "n_blocks"]):
        seconds = cell["training_seconds"].sum() / cell["epochs"].sum()
        features = cell["features_seconds"].mean()
        shown.add_row(
            str(backbone), f"{frozen}/{blocks}", str(len(cell)), f"{seconds:.3g}", f"{features:.3g}"
        )
    return [shown, *_sharing(trials)]


def _sharing(trials: pd.DataFrame) -> list[Text]:
    """How trials obtained the activations of their frozen blocks, and whether their data fitted on the GPU."""
    kinds = trials["features"].value_counts()
    if kinds.empty:
        return []
    share = trials["features_seconds"].sum() / max(trials["seconds"].sum(), 1e-9)
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    lines = [Text(f"activations of frozen blocks, by trial: {counts}; {share:.0%} of the trials' time")]
    if not trials["resident"].dropna().all():
        lines += [Text("segments did not fit into GPU memory and were transferred batch by batch")]
    return lines
