"""Comparison of several runs: their results, and whether their scores are comparable."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.text import Text

from search.config.schema import load
from search.report.fitting import FittedTable
from search.report.formatting import STATE_WORD, duration, rate, score
from search.report.trial_table import rows_of
from search.run import ranking
from search.run.conditions import Conditions, differences, read_conditions
from search.run.folder import RunFolder
from search.run.schemas import TrialRow
from search.run.tables import read_trials

_HASH_DIGITS = 8
"""Displayed digits of a hash, enough to tell two hashes apart."""
_WINNER = ("F1", "trial", "backbone", "frozen", "lr", "momentum")
"""Titles of the columns about a run's best trial."""
_TITLES = ("run", *_WINNER, *STATE_WORD.values(), "time", "corpus", "split", "front end")
"""Titles of the columns; `time` is the total time that workers spent on trials."""
_DROPPED = (
    *("corpus", "split", "front end", "running", "failed", "momentum", "pruned"),
    *("time", "complete", "frozen", "trial"),
)
"""Titles of the columns that a narrow screen leaves out, the least important first."""


def read_together(runs: Sequence[Path]) -> pd.DataFrame:
    """The trials of several runs in one table, run by run, with the run's name in column `study`.

    Raises:
        InputError: a folder is not a run.
    """
    tables = [read_trials(run).assign(study=name) for run, name in zip(runs, names(runs), strict=True)]
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def names(runs: Sequence[Path]) -> list[str]:
    """A name for each run: the name of its folder, or its path if two folders have the same name."""
    short = [run.resolve().name for run in runs]
    return short if len(set(short)) == len(short) else [str(run) for run in runs]


def compare(runs: Sequence[Path], trials: pd.DataFrame) -> list[Any]:
    """A table with one row per run, and a line for each run whose scores are not comparable with the first run's.

    Args:
        runs: the runs' folders.
        trials: the trials of all runs, as returned by `read_together`.
    """
    shown = FittedTable(*_TITLES, left=("run", "backbone", "front end"), drop=_DROPPED)
    found = [read_conditions(load(run.config, {}), run.corpus) for run in map(RunFolder, runs)]
    for name, own in zip(names(runs), found, strict=True):
        shown.add_row(name, *_cells(trials[trials["study"] == name], own))
    first = names(runs)[0]
    lines = [
        Text(f"The scores of {name} and {first} are not comparable. Different settings: {', '.join(differ)}")
        for name, own in zip(names(runs), found, strict=True)
        if (differ := differences(found[0], own))
    ]
    return [shown, *lines]


def _cells(trials: pd.DataFrame, own: Conditions) -> list[str]:
    """The cells after the run's name."""
    counts = trials["state"].value_counts()
    places = sorted((content, part, own.genres[content]) for content, part in own.split.items())
    best = ranking.select(trials).head(1)
    return [
        *_winner(rows_of(best[best["val_f1"].notna()])),
        *(str(counts.get(state, 0)) for state in STATE_WORD),
        duration(trials["seconds"].sum()),
        own.corpus[:_HASH_DIGITS],
        hashlib.sha256(repr(places).encode()).hexdigest()[:_HASH_DIGITS],
        own.front_end if own.level == "track" else f"{own.front_end} {own.level}",
    ]


def _winner(best: Sequence[TrialRow]) -> list[str]:
    """F1, number and settings of the best trial; dashes if no trial has a score."""
    if not best:
        return ["-"] * len(_WINNER)
    row = best[0]
    depth = f"{row.frozen_blocks}/{row.n_blocks}"
    return [
        score(row.val_f1),
        str(row.trial),
        row.backbone,
        depth,
        rate(row.learning_rate),
        rate(row.momentum),
    ]
