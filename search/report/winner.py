"""The best trial of a run: its settings, its learning curve, its model, and the file that repeats it."""

from pathlib import Path
from typing import Any

import pandas as pd
from rich.text import Text

from genre_core.errors import InputError
from genre_core.models.artifact import is_complete
from genre_core.recipe import SGD
from genre_core.system.atomic import atomic_file
from search.config.schema import OPTUNA, SearchConfig, load, to_yaml
from search.config.space import Space
from search.errors import SearchErrorCode
from search.evaluate.verdict import extension_note
from search.report.fitting import FittedTable
from search.report.formatting import bar, counted, rate, score
from search.report.leaderboard import expected
from search.report.search_space import searched_values
from search.report.trial_table import rows_of
from search.run import ranking
from search.run.commands import command
from search.run.folder import RunFolder
from search.run.schemas import TrialRow
from search.run.tables import read_epochs, read_finish, read_test_use, read_trials

_BAR_WIDTH = 30
"""Characters of the bar of an F1 of 1."""


def best_trial(run: Path) -> list[Any]:
    """The settings of the best trial and what was searched, its scores, its model and its learning curve.

    Raises:
        InputError: the folder is not a run, or none of its trials has a score.
    """
    row, config = best_row(run), load(RunFolder(run).config, {})
    title = f"Trial {row.trial} of {run}: validation F1 {score(row.val_f1)} at epoch {row.best_epoch}"
    epochs = read_epochs(run)
    return [
        Text(title, style="bold"),
        *expected(run, read_trials(run)),
        *_test_scores(run, row.trial),
        Text(),
        _settings(row, config.space),
        Text(),
        *_facts(run, row),
        Text(),
        _curve(epochs[epochs["trial"] == row.trial]),
    ]


def best_row(run: Path) -> TrialRow:
    """The row of the best trial.

    Raises:
        InputError: the folder is not a run, or none of its trials has a score.
    """
    scored = ranking.select(read_trials(run))
    scored = scored[scored["val_f1"].notna()]
    if scored.empty:
        raise InputError(
            f"RUN must have a trial with a score, but {run} has none yet; see {command('results', run)}",
            code=SearchErrorCode.NO_SCORED_TRIAL,
        )
    return rows_of(scored.head(1))[0]


def winner_config(run: Path, row: TrialRow) -> SearchConfig:
    """The settings of a search that repeats a trial alone, with identical results on the same machine."""
    fixed: dict[str, object] = {
        f"space.{name}": value for name in Space.model_fields if (value := getattr(row, name)) is not None
    }
    fixed |= {"search": OPTUNA, "sampler": "random", "pruner": "none", "trials": 1, "stop_when_flat": False}
    fixed |= {"enqueue": [], "time_budget": None, "worker_budget": None, "warm_start": [], "seed": row.seed}
    return load(RunFolder(run).config, fixed).model_copy(update={"provenance": None})


def write_winner(run: Path) -> Path:
    """Write the settings that repeat the best trial into the run's folder; returns the file.

    Raises:
        InputError: see `best_row`.
        OSError: the folder cannot be written to.
    """
    row, file = best_row(run), RunFolder(run).winner
    comment = f"# Repeats trial {row.trial}, validation F1 {score(row.val_f1)}, as a search with one trial.\n"
    with atomic_file(file) as partial:
        partial.write_text(comment + to_yaml(winner_config(run, row)), encoding="utf-8")
    return file


def _test_scores(run: Path, best: int) -> list[Text]:
    """The test score of a finished run's winner, with a warning if that is no longer the best trial."""
    finals = read_finish(run)
    if finals.empty:
        return []
    final, look = finals[finals["rank"] == 1], read_test_use(run)
    assert look, "a finished run has used its test set"
    trial = int(final["trial"].iloc[0])
    lines = [
        f"trial {trial}, the best of {counted(look.scored, 'trial')} when the test set was used: test F1 "
        f"{final['test_f1'].mean():.3f}, mean over {counted(len(final), 'seed')}"
    ]
    if trial != best:
        lines.append(f"trial {best} has no test score")
    lines += [note for note in [extension_note(run)] if note]
    return [Text(line, style="" if index == 0 else "yellow") for index, line in enumerate(lines)]


def _settings(row: TrialRow, space: Space) -> FittedTable:
    """The settings of a trial; those that were searched come first, with their possible values.

    SGD is not listed if no other optimizer was searched.
    """
    shown = FittedTable("setting", "winner", "searched", left=("setting", "winner", "searched"))
    values = {name: searched_values(getattr(space, name)) for name in Space.model_fields}
    if row.optimizer == SGD and not values["optimizer"]:
        del values["optimizer"]
    for name in sorted(values, key=lambda name: not values[name]):
        shown.add_row(name, _setting(row, name), values[name] or "fixed")
    return shown


def _setting(row: TrialRow, name: str) -> str:
    value = getattr(row, name)
    if name == "frozen_blocks":
        return f"{value} of {row.n_blocks}"
    if value is None:
        return "-"
    return rate(value) if isinstance(value, float) else str(value)


def _facts(run: Path, row: TrialRow) -> list[Text]:
    """Other scores of a trial, what was trained, and where its model is."""
    names = ("accuracy", "precision", "recall", "loss")
    scores = ", ".join(f"{name} {score(getattr(row, f'val_{name}'))}" for name in names)
    lines = [f"validation: {scores}"]
    if row.trainable_parameters is not None:
        parameters = counted(row.trainable_parameters, "parameter")
        lines.append(f"trained: {parameters} of {row.backbone}, weights {row.weights}")
    models = [folder for folder in sorted(RunFolder(run).kept_models(row.trial)) if is_complete(folder)]
    kept = (
        str(models[-1]) if models else "not kept (keep_models sets the number of models that a search keeps)"
    )
    return [*map(Text, lines), Text(f"model: {kept}", no_wrap=True, overflow="ignore")]


def _curve(epochs: pd.DataFrame) -> FittedTable:
    shown = FittedTable(
        *("epoch", "train loss", "val loss", "F1", "from 0 to 1"),
        left=("from 0 to 1",),
        drop=("train loss", "val loss"),
        header_style="dim",
    )
    for _, row in epochs.iterrows():
        losses = [score(None if pd.isna(loss) else loss) for loss in (row.train_loss, row.val_loss)]
        shown.add_row(str(row.epoch), *losses, score(row.val_f1), bar(row.val_f1, _BAR_WIDTH))
    return shown
