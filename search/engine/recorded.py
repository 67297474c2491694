"""Recorded learning curves and costs of earlier searches, for replays."""

import math
import statistics
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from genre_core.errors import InputError
from genre_core.recipe import Recipe
from search.config.schema import Training, load
from search.errors import SearchErrorCode
from search.run.conditions import Conditions, differences, read_conditions
from search.run.folder import RunFolder
from search.run.schemas import TrialRow
from search.run.tables import read_curves

Cell = tuple[str, int]
"""A backbone and its number of frozen blocks."""

COSTS = "costs.parquet"
"""Table of costs that were measured on a quiet machine, one row per cell; optional."""
_COLUMNS = [
    "backbone",
    "frozen_blocks",
    "features_seconds",
    "build_seconds",
    "epoch_seconds",
    "save_seconds",
    "restore_seconds",
]
_FAILED = "FAIL"


@dataclass(frozen=True, kw_only=True)
class CellCost:
    """Seconds that all trials of a cell share."""

    features: float
    """Computing the activations of the frozen blocks, once per search."""
    save: float = 0.0
    """Storing a checkpoint."""
    restore: float = 0.0
    """Reading a checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A recorded trial."""

    recipe: Recipe
    n_blocks: int
    trainable_parameters: int
    scores: tuple[float, ...]
    """Validation F1 by epoch."""
    seconds: tuple[float, ...]
    """Duration of each epoch."""
    build_seconds: float
    """From the assignment to the first epoch, without activations."""
    error: str | None = None
    """Why the trial failed after its last epoch; None if it did not."""
    failing_seconds: float = 0.0
    """Duration of the epoch in which it failed."""
    cut: bool = False
    """Whether the trial was pruned, stopped or still running, so that its later epochs are unknown."""

    @property
    def cell(self) -> Cell:
        """Backbone and frozen blocks."""
        return self.recipe.backbone, self.recipe.frozen_blocks


@dataclass(frozen=True, kw_only=True)
class Pool:
    """All configurations of a replay, in the order in which they were recorded."""

    curves: Sequence[Curve]
    cells: Mapping[Cell, CellCost]

    @cached_property
    def best_f1(self) -> float:
        """The best validation F1 of any epoch."""
        return max(max(curve.scores) for curve in self.curves if curve.scores)

    @property
    def cut(self) -> int:
        """Number of curves whose later epochs are unknown."""
        return sum(curve.cut for curve in self.curves)

    @property
    def max_epochs(self) -> int:
        """Maximum number of epochs of a trial."""
        return max(curve.recipe.epochs for curve in self.curves)


def read_pool(runs: Sequence[Path]) -> Pool:
    """Read the trials of one or more runs, or of folders with the tables of a run and `costs.parquet`.

    A trial without an epoch that did not fail is left out.

    Raises:
        InputError: a folder contains no tables, there is no epoch in them, a table is damaged, or the scores of two
            runs are not comparable.
    """
    _require_comparable(runs)
    curves: list[Curve] = []
    cells: dict[Cell, CellCost] = {}
    for run in runs:
        own, costs = _read(run)
        curves += own
        cells |= costs | {cell: cells[cell] for cell in cells.keys() & costs.keys()}
    if not any(curve.scores for curve in curves):
        raise InputError(
            f"RUN must have recorded epochs, but {', '.join(map(str, runs))} has none; give a run with finished epochs",
            code=SearchErrorCode.NOTHING_RECORDED,
        )
    return Pool(curves=tuple(curves), cells=cells)


def _require_comparable(runs: Sequence[Path]) -> None:
    """Raise InputError if a run has other data or training settings than the first; tables alone are not compared."""
    first: tuple[Path, Conditions, Training] | None = None
    for run in runs:
        folder = RunFolder(run)
        if not (folder.config.exists() and folder.corpus.exists()):
            continue
        config = load(folder.config, {})
        own = read_conditions(config, folder.corpus)
        if first is None:
            first = run, own, config.training
            continue
        differ = differences(first[1], own) + (["training"] if config.training != first[2] else [])
        if differ:
            raise InputError(
                f"RUN must be runs whose scores are comparable, but {run} differs from {first[0]} in its "
                f"{' and its '.join(differ)}; replay them one by one",
                code=SearchErrorCode.RUNS_NOT_COMPARABLE,
            )


def _read(run: Path) -> tuple[list[Curve], dict[Cell, CellCost]]:
    trials, epochs = read_curves(run)
    epochs = epochs[["trial", "epoch", "val_f1", "seconds"]]
    by_trial = dict(iter(epochs.groupby("trial")))
    measured = _measured(run)
    rows = [_row(trial) for _, trial in trials.astype(object).where(trials.notna(), None).iterrows()]
    typical = _typical_epoch(rows, epochs) | {cell: cost["epoch_seconds"] for cell, cost in measured.items()}
    curves = [
        curve
        for row in rows
        if (curve := _curve(row, by_trial.get(row.trial), measured.get(_cell(row)), typical))
    ]
    features: dict[Cell, float] = {}
    for row in rows:
        features[_cell(row)] = max(features.get(_cell(row), 0.0), row.features_seconds or 0.0)
    cells = {cell: CellCost(features=seconds) for cell, seconds in features.items()}
    return curves, cells | {cell: _cell_cost(cost) for cell, cost in measured.items()}


def _measured(run: Path) -> dict[Cell, Mapping[str, float]]:
    file = RunFolder(run).path / COSTS
    if not file.exists():
        return {}
    rows = pq.read_table(file, columns=_COLUMNS).to_pylist()
    return {(row["backbone"], row["frozen_blocks"]): row for row in rows}


def _cell_cost(cost: Mapping[str, float]) -> CellCost:
    return CellCost(
        features=cost["features_seconds"], save=cost["save_seconds"], restore=cost["restore_seconds"]
    )


def _row(trial: "pd.Series[Any]") -> TrialRow:
    return TrialRow(**{field.name: trial[field.name] for field in fields(TrialRow)})


def _cell(row: TrialRow) -> Cell:
    return row.backbone, row.frozen_blocks


def _typical_epoch(rows: Sequence[TrialRow], epochs: pd.DataFrame) -> dict[Cell, float]:
    """Median seconds of an epoch by cell, from the epochs themselves."""
    cells = {row.trial: _cell(row) for row in rows}
    seconds: dict[Cell, list[float]] = defaultdict(list)
    for trial, own in zip(epochs["trial"], epochs["seconds"], strict=True):
        if trial in cells and not math.isnan(own):
            seconds[cells[trial]].append(own)
    return {cell: statistics.median(own) for cell, own in seconds.items()}


def _curve(
    row: TrialRow,
    epochs: pd.DataFrame | None,
    cost: Mapping[str, float] | None,
    typical: Mapping[Cell, float],
) -> Curve | None:
    """A trial's curve; None if it has no epoch and did not fail.

    A failing trial fails at the end of an epoch, which has no row and takes as long as other epochs of its cell.
    """
    failed = row.state == _FAILED
    if epochs is None and not failed:
        return None
    scores = () if epochs is None else tuple(map(float, epochs["val_f1"]))
    usual = typical.get(_cell(row), _mean(typical.values()))
    seconds = () if epochs is None else tuple(map(float, epochs["seconds"].fillna(usual)))
    if cost:
        seconds = (cost["epoch_seconds"],) * len(scores)
    return Curve(
        recipe=_recipe(row),
        n_blocks=row.n_blocks,
        trainable_parameters=row.trainable_parameters or 0,
        scores=scores,
        seconds=seconds,
        build_seconds=cost["build_seconds"] if cost else _build_seconds(row, seconds),
        error=row.error or "failed" if failed else None,
        failing_seconds=usual if failed else 0.0,
        cut=not failed and row.state != "COMPLETE",
    )


def _build_seconds(row: TrialRow, epochs: Sequence[float]) -> float:
    """A trial's working time without epochs and activations, per attempt; 0 if unknown."""
    if row.seconds is None:
        return 0.0
    return max(0.0, row.seconds - (row.features_seconds or 0.0) - sum(epochs)) / row.attempt


def _mean(values: Collection[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _recipe(row: TrialRow) -> Recipe:
    """The settings of a trial; those that earlier versions did not record have their defaults."""
    known = {field.name: getattr(row, field.name, None) for field in fields(Recipe)} | {
        "epochs": row.max_epochs
    }
    return Recipe(**{name: value for name, value in known.items() if value is not None})
