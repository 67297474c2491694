"""What a reader can take from the report: the trials as CSV, and the settings of a trial as YAML."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from search.config import schema
from search.config.schema import OPTUNA, SearchConfig
from search.config.space import Space
from search.run.folder import RunFolder


def csv_lines(trials: pd.DataFrame) -> list[str]:
    """The header and the line of each trial, in order, each with its line break."""
    return [_line(row) for row in csv.reader(io.StringIO(trials.to_csv(index=False)))]


def _line(row: Sequence[str]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerow(row)
    return file.getvalue()


def repeat_config(run: Path, row: "pd.Series[Any]") -> SearchConfig:
    """The settings of a run with the search reduced to one of its trials.

    Args:
        run: the run's folder.
        row: of the trial, as returned by `read_trials`.
    """
    names = [name for name in Space.model_fields if not pd.isna(row[name])]
    fixed: dict[str, Any] = {f"space.{name}": _plain(row[name]) for name in names}
    fixed |= {"search": OPTUNA, "sampler": "random", "pruner": "none", "trials": 1}
    fixed |= {"time_budget": None, "worker_budget": None, "warm_start": [], "provenance": None}
    if not pd.isna(row["seed"]):
        fixed["seed"] = _plain(row["seed"])
    return schema.load(RunFolder(run).config, fixed)


def _plain(value: Any) -> Any:
    """A value of a table as Python's own type."""
    return value.item() if hasattr(value, "item") else value
