"""Filter and sort the trials of a run."""

import difflib

import pandas as pd

from genre_core.errors import InputError
from search.errors import SearchErrorCode

STATES = ("COMPLETE", "PRUNED", "FAIL", "RUNNING")
"""The states of a trial."""
_ASCENDING = ("trial", "val_loss", "seconds", "started", "trainable_parameters")
"""Columns that are sorted in ascending order; all others are in descending order."""

COLUMNS = {
    "run": "study",
    "trial": "trial",
    "state": "state",
    "F1": "val_f1",
    "accuracy": "val_accuracy",
    "precision": "val_precision",
    "recall": "val_recall",
    "backbone": "backbone",
    "frozen": "frozen_blocks",
    "optimizer": "optimizer",
    "lr": "learning_rate",
    "momentum": "momentum",
    "epochs": "epochs",
    "time": "seconds",
}
"""Title on the screen -> column of the table of trials. `time` is what a worker spent on the trial."""
_SORTABLE = {title.lower(): column for title, column in COLUMNS.items()} | {"loss": "val_loss"}
"""Lower-case name of a column on the screen -> its column."""


def select(
    trials: pd.DataFrame, *, state: str | None = None, backbone: str | None = None, sort: str = "val_f1"
) -> pd.DataFrame:
    """Filter and sort trials; those without a value in the sorted column come last.

    Raises:
        InputError: the state or the column does not exist, or the backbone is in no trial.
    """
    sort = _SORTABLE.get(sort.lower(), sort)
    if state is not None and state.upper() not in STATES:
        raise InputError(
            f"--state must be one of {', '.join(STATES)}, but got --state {state}",
            code=SearchErrorCode.UNKNOWN_STATE,
        )
    if sort not in trials.columns:
        near = difflib.get_close_matches(sort.lower(), [*_SORTABLE, *trials.columns], n=1)
        way_out = f"did you mean {near[0]}?" if near else "genre-search results --csv prints all columns"
        raise InputError(
            f"--sort must be a column, but got --sort {sort}; {way_out}", code=SearchErrorCode.UNKNOWN_COLUMN
        )
    if state is not None:
        trials = trials[trials["state"] == state.upper()]
    if backbone is not None:
        _require_backbone(trials, backbone)
        trials = trials[trials["backbone"] == backbone]
    keys, ascending = [sort, "trial"], [sort in _ASCENDING, True]
    return trials.sort_values(keys, ascending=ascending, na_position="last", ignore_index=True)


def _require_backbone(trials: pd.DataFrame, backbone: str) -> None:
    searched = sorted(trials["backbone"].dropna().unique())
    if len(trials) and backbone not in searched:
        raise InputError(
            f"--backbone must be one of those searched ({', '.join(searched)}), but got --backbone {backbone}",
            code=SearchErrorCode.UNKNOWN_BACKBONE_OF_RUN,
        )
