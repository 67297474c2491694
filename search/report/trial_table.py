"""The table of trials, the same in `results`, at the end of a search and on its live screen."""

from collections.abc import Sequence

import pandas as pd
from rich.text import Text

from genre_core.recipe import SGD
from search.report.fitting import Cell, FittedTable
from search.report.formatting import STATE_STYLE, rate, score, working_time
from search.run.ranking import COLUMNS
from search.run.schemas import TrialRow, trial_of

LEFT = ("run", "state", "backbone", "optimizer")
"""Titles of the columns that are aligned to the left."""
DROPPED = ("recall", "precision", "accuracy", "time", "momentum", "epochs", "optimizer", "state", "frozen")
"""Titles of the columns that a narrow screen leaves out, the least important first."""


def trial_table(rows: Sequence[TrialRow], *, of_several: bool = False) -> FittedTable:
    """A table with one row per trial, and a column for the optimizer if one is not SGD.

    Args:
        rows: of the trials.
        of_several: whether they belong to several runs, whose name is then the first column.
    """
    left_out = {"run": not of_several, "optimizer": all(row.optimizer == SGD for row in rows)}
    titles = [title for title in COLUMNS if not left_out.get(title)]
    shown = FittedTable(*titles, left=LEFT, drop=DROPPED)
    for row in rows:
        cells = _cells(row)
        shown.add_row(*(cells[title] for title in titles))
    return shown


def rows_of(trials: pd.DataFrame) -> list[TrialRow]:
    """The rows of a table of trials as returned by `read_trials`; missing values are None."""
    return [
        trial_of({str(name): None if pd.isna(value) else value for name, value in record.items()})
        for record in trials.to_dict("records")
    ]


def _cells(row: TrialRow) -> dict[str, Cell]:
    """Title -> cell."""
    state = f"{row.state} ({row.stopped})" if row.stopped else row.state
    return {
        "run": row.study,
        "trial": str(row.trial),
        "state": Text(state, style=STATE_STYLE[row.state]),
        "F1": score(row.val_f1),
        "accuracy": score(row.val_accuracy),
        "precision": score(row.val_precision),
        "recall": score(row.val_recall),
        "backbone": row.backbone,
        "frozen": f"{row.frozen_blocks}/{row.n_blocks}",
        "optimizer": row.optimizer,
        "lr": rate(row.learning_rate),
        "momentum": rate(row.momentum),
        "epochs": f"{row.epochs}/{row.max_epochs}",
        "time": working_time(row.seconds),
    }
