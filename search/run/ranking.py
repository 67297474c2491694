"""Filter and sort the trials of a run."""

import pandas as pd

from genre_core.errors import InputError
from search.errors import SearchErrorCode

STATES = ("COMPLETE", "PRUNED", "FAIL", "RUNNING")
"""The states of a trial."""
_ASCENDING = ("trial", "val_loss", "seconds", "started", "trainable_parameters")
"""Columns that are sorted in ascending order; all others are in descending order."""


def select(
    trials: pd.DataFrame, *, state: str | None = None, backbone: str | None = None, sort: str = "val_f1"
) -> pd.DataFrame:
    """Filter and sort trials; those without a value in the sorted column come last.

    Raises:
        InputError: the state or the column does not exist.
    """
    if state is not None and state.upper() not in STATES:
        raise InputError(
            f"--state must be one of {', '.join(STATES)}, but got --state {state}",
            code=SearchErrorCode.UNKNOWN_STATE,
        )
    if sort not in trials.columns:
        raise InputError(
            f"--sort must be a column, but got --sort {sort}; choose from {', '.join(trials.columns)}",
            code=SearchErrorCode.UNKNOWN_COLUMN,
        )
    if state is not None:
        trials = trials[trials["state"] == state.upper()]
    if backbone is not None:
        trials = trials[trials["backbone"] == backbone]
    keys, ascending = [sort, "trial"], [sort in _ASCENDING, True]
    return trials.sort_values(keys, ascending=ascending, na_position="last", ignore_index=True)
