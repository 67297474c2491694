"""What a search found, for people: the ranking of its trials, its summary, the winner and how to repeat it."""

import shlex
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table
from rich.text import Text

from genre_core.errors import InputError
from search.config.space import Space
from search.evaluate.verdict import extension
from search.report.formatting import STATE_STYLE, STATE_WORD, duration, score
from search.run import ranking
from search.run.commands import command
from search.run.lock import is_driven
from search.run.tables import RUNNING, read_epochs, read_finish, read_test_look, read_trials

_TITLES = (
    "trial",
    "state",
    "F1",
    "accuracy",
    "precision",
    "recall",
    "backbone",
    "frozen",
    "lr",
    "momentum",
    "epochs",
    "seconds",
)
_BAR = "▁▂▃▄▅▆▇█"


def table(trials: pd.DataFrame, *, of_several: bool = False) -> Table:
    """Trials as a table for the screen; of several runs, each with its run's name."""
    shown = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("run", *_TITLES) if of_several else _TITLES:
        left = title in ("run", "state", "backbone")
        shown.add_column(title, justify="left" if left else "right", no_wrap=True)
    for _, row in trials.iterrows():
        shown.add_row(*([row.study] if of_several else []), *_cells(row))
    return shown


def summary(trials: pd.DataFrame) -> Text:
    """How many trials ended how, the failures' reasons, and the time, in a line or two."""
    by_themselves = trials[trials["stopped"].isna()]["state"].value_counts()
    counts = [
        f"{by_themselves[state]} {word}" for state, word in STATE_WORD.items() if state in by_themselves
    ]
    counts += [f"{count} cut off by the {what}" for what, count in trials["stopped"].value_counts().items()]
    text = Text(f"{len(trials)} trials: {', '.join(counts)}")
    if len(trials) and trials["finished"].notna().any():
        text.append(f", in {duration((trials['finished'].max() - trials['started'].min()).total_seconds())}")
    text.append(_sharing(trials))
    for reason, count in trials["error"].value_counts().head(3).items():
        text.append(f"\n{count} failed: {reason}", style="red")
    return text


def undriven(run: Path, trials: pd.DataFrame) -> list[Text]:
    """That trials of a run are RUNNING with nobody to drive them, and how to go on; nothing where all is well."""
    running = int((trials["state"] == RUNNING).sum())
    if not running or is_driven(run):
        return []
    said = "1 trial is" if running == 1 else f"{running} trials are"
    text = f"{said} RUNNING, but no process here drives {run}; go on with: {command('resume', run)}"
    return [Text(text, style="yellow")]


def _sharing(trials: pd.DataFrame) -> str:
    """How the trials came by their activations at the cut, and where the data did not fit."""
    kinds = trials["features"].value_counts()
    if kinds.empty:
        return ""
    share = trials["features_seconds"].sum() / max(trials["seconds"].sum(), 1e-9)
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    text = f"\nactivations at the cut: {counts}; {share:.0%} of the trials' time"
    if not trials["resident"].dropna().all():
        text += "\nthe segments did not fit on the GPU and were sent to it batch by batch"
    return text


def costs(trials: pd.DataFrame) -> Table:
    """What an epoch took, by backbone and frozen depth."""
    ran = trials[trials["epochs"] > 0]
    shown = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("backbone", "frozen", "trials", "seconds an epoch", "seconds for features"):
        shown.add_column(title, justify="left" if title == "backbone" else "right", no_wrap=True)
    for (backbone, frozen, blocks), cell in ran.groupby(["backbone", "frozen_blocks", "n_blocks"]):
        seconds = cell["training_seconds"].sum() / cell["epochs"].sum()
        features = cell["features_seconds"].mean()
        shown.add_row(
            str(backbone), f"{frozen}/{blocks}", str(len(cell)), f"{seconds:.3g}", f"{features:.3g}"
        )
    return shown


def winner(run: Path) -> list[Any]:
    """The best trial's settings, its curve by epoch, and the command that repeats it.

    Raises:
        InputError: no run, or no trial of it has scored.
    """
    scored = ranking.select(read_trials(run))
    scored = scored[scored["val_f1"].notna()]
    if scored.empty:
        raise InputError(
            f"RUN must have a trial with a score, but {run} has none yet; see {command('results', run)}"
        )
    row = scored.iloc[0]
    epochs = read_epochs(run)
    curve = epochs[epochs["trial"] == row.trial]
    title = Text(
        f"trial {row.trial} of {run}: validation F1 {row.val_f1:.3f} at epoch {row.best_epoch}", style="bold"
    )
    repeat = [Text("\nrepeat it with:"), Text(repeat_command(run, row))]
    return [title, *_test_scores(run, int(row.trial)), _settings(row), _curve(curve), *repeat]


def _test_scores(run: Path, best: int) -> list[Text]:
    """Of a finished run the winner's test score, and what to know where the best trial is another one by now."""
    finals = read_finish(run)
    if finals.empty:
        return []
    final, look = finals[finals["rank"] == 1], read_test_look(run)
    assert look, "a finished run has read its test part"
    trial = int(final["trial"].iloc[0])
    lines = [
        f"trial {trial}, the best of {look.scored} trials when the test part was read: test F1 "
        f"{final['test_f1'].mean():.3f}, mean over {len(final)} {'seed' if len(final) == 1 else 'seeds'}"
    ]
    if trial != best:
        lines.append(f"trial {best} has no test score")
    lines += [line for line in [extension(run)] if line]
    return [Text(line, style="" if index == 0 else "yellow") for index, line in enumerate(lines)]


def repeat_command(run: Path, row: "pd.Series[Any]") -> str:
    """The command that runs one trial again, to the same numbers on the same machine."""
    fixed = {f"space.{name}": row[name] for name in Space.model_fields}
    fixed |= {"sampler": "random", "pruner": "none", "trials": 1, "time_budget": "null", "warm_start": "[]"}
    fixed["seed"] = row["seed"]
    settings = " ".join(f"--set {shlex.quote(f'{key}={_plain(value)}')}" for key, value in fixed.items())
    return f"{command('run', '--config', run / 'config.yaml')} {settings}"


def _plain(value: Any) -> str:
    """A setting as YAML reads it: floats with all their digits."""
    if isinstance(value, float):
        text = repr(float(value))
        return text if "." in text.partition("e")[0] else text.replace("e", ".0e")
    return str(value).lower() if isinstance(value, bool) or str(value) in ("True", "False") else str(value)


def _settings(row: "pd.Series[Any]") -> Table:
    shown = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    names = [*Space.model_fields, "weights", "trainable_parameters"]
    for name in names:
        value = f"{row[name]} of {row.n_blocks}" if name == "frozen_blocks" else row[name]
        shown.add_row(name, f"{value:.6g}" if isinstance(value, float) else str(value))
    for name in ("val_accuracy", "val_precision", "val_recall", "val_f1", "val_loss"):
        shown.add_row(name, score(row[name]))
    return shown


def _curve(epochs: pd.DataFrame) -> Table:
    shown = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("epoch", "train loss", "val loss", "F1", ""):
        shown.add_column(title, justify="right" if title else "left")
    for _, row in epochs.iterrows():
        bar = "█" * int(row.val_f1 * 30) + _BAR[int(row.val_f1 * 30 % 1 * len(_BAR))]
        shown.add_row(
            str(row.epoch), f"{row.train_loss:.3f}", f"{row.val_loss:.3f}", f"{row.val_f1:.3f}", bar
        )
    return shown


def _cells(row: "pd.Series[Any]") -> list[Any]:
    scores = [
        score(None if pd.isna(row[f"val_{name}"]) else row[f"val_{name}"])
        for name in ("f1", "accuracy", "precision", "recall")
    ]
    return [
        str(row.trial),
        Text(
            row.state if pd.isna(row.stopped) else f"{row.state} ({row.stopped})",
            style=STATE_STYLE[row.state],
        ),
        *scores,
        row.backbone,
        f"{row.frozen_blocks}/{row.n_blocks}",
        f"{row.learning_rate:.3g}",
        f"{row.momentum:.3g}",
        f"{row.epochs}/{row.max_epochs}",
        "-" if pd.isna(row.seconds) else f"{row.seconds:.1f}",
    ]
