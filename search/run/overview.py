"""The runs in a folder, each with its state and best score."""

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd

from genre_core.errors import InputError
from search.errors import SearchErrorCode
from search.run.commands import command
from search.run.folder import RUNS, RunFolder, runs_in
from search.run.lock import is_driven
from search.run.schemas import RUNNING
from search.run.tables import read_finish, read_trials


@dataclass(frozen=True, kw_only=True)
class Overview:
    """A run at a glance."""

    path: Path
    state: str
    """`running`, `interrupted` (some trials are unfinished), `ended`, or `finished` (the test set was used)."""
    best_f1: float | None
    """The best validation F1; None before the first epoch."""
    trials: int
    """Number of trials that have begun."""
    last_change: datetime
    """When a trial last started or ended, or the folder was created."""
    size_bytes: int
    """Of all files in the folder."""


def find_run(given: Path) -> Path:
    """The run folder that was meant: the given path, or the run of this name in runs/."""
    if not RunFolder(given).config.exists() and RunFolder(RUNS / given).config.exists():
        return RUNS / given
    return given


def find_runs(given: Sequence[Path]) -> list[Path]:
    """The run folders that were meant, each once; a pattern such as `runs/gtzan-*` stands for all runs that match it.

    Without any, the newest run in runs/.

    Raises:
        InputError: no run matches a pattern, or there is none in runs/.
    """
    if not given:
        newest = runs_in(RUNS)[-1:]
        if not newest:
            raise InputError(
                f"RUN may be left out only if {RUNS}/ contains a run, but it contains none; give a run folder, "
                f"or start a search with: {command('run')}",
                code=SearchErrorCode.RUN_NOT_FOUND,
            )
        return newest
    once: dict[Path, Path] = {}
    for run in (run for path in given for run in _matching(path)):
        once.setdefault(run.resolve(), run)
    return list(once.values())


def _matching(given: Path) -> list[Path]:
    if given.exists() or not glob.has_magic(str(given)):
        return [find_run(given)]
    base = Path(given.anchor)
    pattern = str(given.relative_to(base))
    runs = sorted(path for path in base.glob(pattern) if RunFolder(path).config.exists())
    if not runs:
        raise InputError(
            f"RUN must match a run folder, but no run matches {given}; list runs with: {command('list')}",
            code=SearchErrorCode.RUN_NOT_FOUND,
        )
    return runs


def overview(run: Path) -> Overview:
    """Read a run at a glance.

    Raises:
        InputError: the folder contains no run, or a table is damaged.
    """
    trials = read_trials(run)
    scores = trials["val_f1"].dropna()
    changes = [time for name in ("started", "finished") for time in trials[name].dropna()]
    made = datetime.fromtimestamp(RunFolder(run).config.stat().st_mtime).astimezone()
    return Overview(
        path=run,
        state=state_of(run, trials),
        best_f1=float(scores.max()) if len(scores) else None,
        trials=len(trials),
        last_change=max(changes).to_pydatetime() if changes else made,
        size_bytes=folder_bytes(run),
    )


def folder_bytes(folder: Path) -> int:
    """Bytes of all files in a folder; files that vanish meanwhile do not count."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(parent) / name).lstat().st_size
            except FileNotFoundError:
                continue
    return total


def state_of(run: Path, trials: pd.DataFrame) -> str:
    """The state of a run, see `Overview.state`.

    Args:
        run: the run's folder.
        trials: its trials, as returned by `read_trials`.
    """
    if is_driven(run):
        return "running"
    if len(read_finish(run)):
        return "finished"
    return "interrupted" if (trials["state"] == RUNNING).any() else "ended"
