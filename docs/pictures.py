"""The picture of the live screen in the README, drawn from a recorded search at one moment of it.

    python docs/pictures.py [--run FOLDER] [--share 0.5] [--width 92] [--out docs/images/live.svg]

The screen is that of `genre-search run`: the same classes draw what they would have drawn at that moment. The use of
the machine is left out, since no recording has it.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from io import StringIO
from pathlib import Path

import pandas as pd
from rich.console import Console

from search.display.live_screen import LiveScreen
from search.display.tally import Tally
from search.report.trial_table import rows_of
from search.run.schemas import RUNNING, TrialRow
from search.run.tables import read_curves

ROOT = Path(__file__).parent.parent
RECORDED = ROOT / "benchmarks" / "surfaces" / "builtin-hard"
"""200 trials of the built-in corpus by four workers."""
HEIGHT = 30
"""Lines of the terminal."""


def at_moment(
    row: TrialRow, epochs: pd.DataFrame, moment: datetime
) -> tuple[TrialRow, dict[int, float]] | None:
    """The row of a trial and its F1 by epoch as they were at a moment; None if it had not begun.

    Args:
        row: at the end of the trial.
        epochs: of the trial, in order.
        moment: of the search.
    """
    if row.started is None or row.started > moment:
        return None
    assert row.finished is not None, "a recorded trial has ended"
    # the recording's `seconds` are those of a machine that shares nothing between trials
    seconds = (min(row.finished, moment) - row.started).total_seconds()
    if row.finished <= moment:
        return replace(row, seconds=seconds), {}
    # epochs end in proportion to their seconds between the start and the end of the trial
    ends = epochs["seconds"].cumsum() / epochs["seconds"].sum() * (row.finished - row.started).total_seconds()
    done = epochs[[row.started + timedelta(seconds=end) <= moment for end in ends]]
    curve = dict(zip(done["epoch"], done["val_f1"], strict=True))
    best = max(curve.values(), default=None)
    return replace(row, state=RUNNING, epochs=len(done), val_f1=best, seconds=seconds, finished=None), curve


def tally_at(run: Path, share: float) -> Tally:
    """The tally of a recorded search when a share of its trials had ended."""
    trials, epochs = read_curves(run)
    rows = rows_of(trials)
    ended = sorted(row.finished for row in rows if row.finished)
    moment = ended[int(share * len(ended))] - timedelta(seconds=1)  # as long as its worker is busy
    began = min(row.started for row in rows if row.started)
    clock = iter([0.0, 0.0])  # of the tally, and of its start
    elapsed = (moment - began).total_seconds()
    tally = Tally(trials=len(rows), clock=lambda: next(clock, elapsed))
    tally.start()
    for row in rows:
        own = epochs[epochs["trial"] == row.trial].sort_values("epoch")
        if found := at_moment(row, own, moment):
            tally.take_up([found[0]], {row.trial: found[1]})
    return tally


def draw(tally: Tally, *, width: int) -> str:
    """The live screen as an SVG picture of a terminal with this many columns."""
    console = Console(record=True, width=width, height=HEIGHT, file=StringIO(), force_terminal=True)
    console.print(LiveScreen(tally, use=None))
    return console.export_svg(title="genre-search run", unique_id="live")


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--run", type=Path, default=RECORDED)
    parser.add_argument("--share", type=float, default=0.5)
    parser.add_argument("--width", type=int, default=92)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "live.svg")
    given = parser.parse_args(arguments)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(draw(tally_at(given.run, given.share), width=given.width), encoding="utf-8")


if __name__ == "__main__":
    main()
