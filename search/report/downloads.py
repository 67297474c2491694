"""The trials of the report as CSV."""

import csv
import io
from collections.abc import Sequence

import pandas as pd


def csv_lines(trials: pd.DataFrame) -> list[str]:
    """The header and the line of each trial, in order, each with its line break."""
    return [_line(row) for row in csv.reader(io.StringIO(trials.to_csv(index=False)))]


def _line(row: Sequence[str]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerow(row)
    return file.getvalue()
