"""Are the scores of two searches comparable, and which search found the better: several runs side by side."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table
from rich.text import Text

from genre_core.corpus.tracks import load_corpus
from search.config.schema import load
from search.report.formatting import STATE_WORD, duration, score
from search.run import ranking
from search.run.conditions import conditions, differences
from search.run.tables import read_trials

_SHOWN = 8
"""Digits of a hash that tell one from another for people."""


def read_together(runs: Sequence[Path]) -> pd.DataFrame:
    """The trials of several runs, a row each, the runs in order; `study` tells them apart.

    Raises:
        InputError: a folder holds no run.
    """
    tables = [read_trials(run).assign(study=name) for run, name in zip(runs, names(runs), strict=True)]
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def names(runs: Sequence[Path]) -> list[str]:
    """What to call each run: its folder's name, or its path where two are named the same."""
    short = [run.resolve().name for run in runs]
    return short if len(set(short)) == len(short) else [str(run) for run in runs]


def compare(runs: Sequence[Path], trials: pd.DataFrame) -> list[Any]:
    """A table with a row for each run, and a line for each whose scores are not comparable to the first one's.

    Args:
        runs: their folders.
        trials: of all of them, as `read_together` gives them.
    """
    shown = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("run", "F1", *STATE_WORD.values(), "time", "corpus", "split", "front end", "winner"):
        left = title in ("run", "front end", "winner")
        shown.add_column(title, justify="left" if left else "right", no_wrap=True)
    found = [conditions(load(run / "config.yaml", {}), load_corpus(run / "corpus.parquet")) for run in runs]
    for name, own in zip(names(runs), found, strict=True):
        shown.add_row(name, *_cells(trials[trials["study"] == name], own))
    first = names(runs)[0]
    lines = [
        Text(f"the scores of {name} and {first} are not comparable, for these differ: {', '.join(differ)}")
        for name, own in zip(names(runs), found, strict=True)
        if (differ := differences(found[0], own))
    ]
    return [shown, *lines]


def _cells(trials: pd.DataFrame, own: Mapping[str, Any]) -> list[str]:
    counts = trials["state"].value_counts()
    places = sorted((content, part, own["genres"][content]) for content, part in own["split"].items())
    best = ranking.select(trials).head(1)
    scored = best[best["val_f1"].notna()]
    return [
        score(scored["val_f1"].iloc[0] if len(scored) else None),
        *(str(counts.get(state, 0)) for state in STATE_WORD),
        duration(trials["seconds"].sum()),
        own["corpus"][:_SHOWN],
        hashlib.sha256(repr(places).encode()).hexdigest()[:_SHOWN],
        own["front_end"] if own["level"] == "track" else f"{own['front_end']} {own['level']}",
        "-" if scored.empty else _winner(scored.iloc[0]),
    ]


def _winner(row: "pd.Series[Any]") -> str:
    return (
        f"trial {row.trial}: {row.backbone}, frozen {row.frozen_blocks}/{row.n_blocks}, "
        f"lr {row.learning_rate:.3g}, momentum {row.momentum:.3g}"
    )
