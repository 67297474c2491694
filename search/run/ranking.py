"""The trials of a run in order of a column."""

import pandas as pd

from genre_core.errors import InputError

STATES = ("COMPLETE", "PRUNED", "FAIL", "RUNNING")
"""Of a trial."""
_ASCENDING = ("trial", "val_loss", "seconds", "started", "trainable_parameters")
"""Columns whose small values come first."""


def select(
    trials: pd.DataFrame, *, state: str | None = None, backbone: str | None = None, sort: str = "val_f1"
) -> pd.DataFrame:
    """The trials that are asked for, in order; those without the sorted value come last.

    Raises:
        InputError: no such state, or no such column.
    """
    if state is not None and state.upper() not in STATES:
        raise InputError(f"--state must be one of {', '.join(STATES)}, but got --state {state}")
    if sort not in trials.columns:
        raise InputError(
            f"--sort must be a column, but got --sort {sort}; choose from {', '.join(trials.columns)}"
        )
    if state is not None:
        trials = trials[trials["state"] == state.upper()]
    if backbone is not None:
        trials = trials[trials["backbone"] == backbone]
    keys, ascending = [sort, "trial"], [sort in _ASCENDING, True]
    return trials.sort_values(keys, ascending=ascending, na_position="last", ignore_index=True)
