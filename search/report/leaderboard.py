"""Terminal output about a run: its trials ranked, a summary, costs, and its best trial."""

import shlex
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table
from rich.text import Text

from genre_core.errors import InputError
from search.config.schema import OPTUNA
from search.config.space import Space
from search.errors import SearchErrorCode
from search.evaluate.verdict import extension_note
from search.report import expectation
from search.report.formatting import STATE_STYLE, STATE_WORD, duration, plain_table, score
from search.run import ranking
from search.run.commands import command
from search.run.lock import is_driven
from search.run.schemas import RUNNING
from search.run.tables import read_epochs, read_finish, read_test_use, read_trials

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
"""End of a bar; not rich.bar.Bar, whose characters have no ASCII substitute on plain terminals (search.cli.common)."""


def table(trials: pd.DataFrame, *, of_several: bool = False) -> Table:
    """A table of trials, with a column for the run if there are several."""
    shown = plain_table(*(["run"] if of_several else []), *_TITLES, left=("run", "state", "backbone"))
    for _, row in trials.iterrows():
        shown.add_row(*([row.study] if of_several else []), *_cells(row))
    return shown


def summary(trials: pd.DataFrame) -> Text:
    """The number of trials in each state, the elapsed time, and the most frequent errors."""
    not_cut_off = trials[trials["stopped"].isna()]["state"].value_counts()
    counts = [f"{not_cut_off[state]} {word}" for state, word in STATE_WORD.items() if state in not_cut_off]
    counts += [f"{count} cut off by the {what}" for what, count in trials["stopped"].value_counts().items()]
    text = Text(f"{len(trials)} trials: {', '.join(counts)}")
    if len(trials) and trials["finished"].notna().any():
        text.append(f", in {duration((trials['finished'].max() - trials['started'].min()).total_seconds())}")
    text.append(_sharing(trials))
    for reason, count in trials["error"].value_counts().head(3).items():
        text.append(f"\n{count} failed: {reason}", style="red")
    return text


def expected(run: Path, trials: pd.DataFrame) -> list[Text]:
    """What the best validation F1 of a run lets expect on new tracks; nothing if no trial has a score.

    Args:
        run: the run's folder.
        trials: all trials of the run, as returned by `read_trials`.
    """
    found = expectation.sentence(run, trials)
    return [Text(found)] if found else []


def abandoned(run: Path, trials: pd.DataFrame) -> list[Text]:
    """A warning with the command to resume a run whose trials are RUNNING without a driver; otherwise nothing."""
    running = int((trials["state"] == RUNNING).sum())
    if not running or is_driven(run):
        return []
    subject = "1 trial is" if running == 1 else f"{running} trials are"
    text = f"{subject} RUNNING, but no process on this machine drives {run}. Continue with: {command('resume', run)}"
    return [Text(text, style="yellow")]


def _sharing(trials: pd.DataFrame) -> str:
    """How trials obtained their activations at the cut, and whether their data fitted on the GPU."""
    kinds = trials["features"].value_counts()
    if kinds.empty:
        return ""
    share = trials["features_seconds"].sum() / max(trials["seconds"].sum(), 1e-9)
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    text = f"\nactivations at the cut: {counts}; {share:.0%} of the trials' time"
    if not trials["resident"].dropna().all():
        text += "\nsegments did not fit into GPU memory and were transferred batch by batch"
    return text


def costs(trials: pd.DataFrame) -> Table:
    """The mean time of an epoch and of computing activations, by backbone and freeze depth."""
    ran = trials[trials["epochs"] > 0]
    titles = ("backbone", "frozen", "trials", "seconds per epoch", "seconds for activations")
    shown = plain_table(*titles, left=("backbone",))
    for (backbone, frozen, blocks), cell in ran.groupby(["backbone", "frozen_blocks", "n_blocks"]):
        seconds = cell["training_seconds"].sum() / cell["epochs"].sum()
        features = cell["features_seconds"].mean()
        shown.add_row(
            str(backbone), f"{frozen}/{blocks}", str(len(cell)), f"{seconds:.3g}", f"{features:.3g}"
        )
    return shown


def best_trial(run: Path) -> list[Any]:
    """The settings of the best trial, its learning curve, and the command that repeats it.

    Raises:
        InputError: the folder is not a run, or none of its trials has a score.
    """
    trials = read_trials(run)
    scored = ranking.select(trials)
    scored = scored[scored["val_f1"].notna()]
    if scored.empty:
        raise InputError(
            f"RUN must have a trial with a score, but {run} has none yet; see {command('results', run)}",
            code=SearchErrorCode.NO_SCORED_TRIAL,
        )
    row = scored.iloc[0]
    epochs = read_epochs(run)
    curve = epochs[epochs["trial"] == row.trial]
    title = Text(
        f"trial {row.trial} of {run}: validation F1 {row.val_f1:.3f} at epoch {row.best_epoch}", style="bold"
    )
    repeat = [Text("\nRepeat it with:"), Text(repeat_command(run, row))]
    return [
        title,
        *expected(run, trials),
        *_test_scores(run, int(row.trial)),
        _settings(row),
        _curve(curve),
        *repeat,
    ]


def _test_scores(run: Path, best: int) -> list[Text]:
    """The test score of a finished run's winner, with a warning if that is no longer the best trial."""
    finals = read_finish(run)
    if finals.empty:
        return []
    final, look = finals[finals["rank"] == 1], read_test_use(run)
    assert look, "a finished run has used its test set"
    trial = int(final["trial"].iloc[0])
    lines = [
        f"trial {trial}, the best of {look.scored} trials when the test set was used: test F1 "
        f"{final['test_f1'].mean():.3f}, mean over {len(final)} {'seed' if len(final) == 1 else 'seeds'}"
    ]
    if trial != best:
        lines.append(f"trial {best} has no test score")
    lines += [note for note in [extension_note(run)] if note]
    return [Text(line, style="" if index == 0 else "yellow") for index, line in enumerate(lines)]


def repeat_command(run: Path, row: "pd.Series[Any]") -> str:
    """The command that repeats a trial, with identical results on the same machine."""
    fixed = {f"space.{name}": row[name] for name in Space.model_fields}
    fixed |= {"search": OPTUNA, "sampler": "random", "pruner": "none", "trials": 1}
    fixed |= {"time_budget": "null", "worker_budget": "null", "warm_start": "[]"}
    fixed["seed"] = row["seed"]
    settings = " ".join(f"--set {shlex.quote(f'{key}={_plain(value)}')}" for key, value in fixed.items())
    return f"{command('run', '--config', run / 'config.yaml')} {settings}"


def _plain(value: Any) -> str:
    """A setting as YAML, with all digits of a float."""
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
    shown = plain_table("epoch", "train loss", "val loss", "F1", "", left=("",), header_style="dim")
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
