"""Lines about trials: one for each ended trial and, on request, one for each epoch; their fields align."""

from collections.abc import Iterable
from dataclasses import dataclass

from rich.text import Text

from genre_core.models.registry import block_names
from search.display.plan_output import short
from search.report.fitting import Field, fitted_line, wrapped
from search.report.formatting import STATE_STYLE, rate, score, working_time
from search.run.schemas import EpochRow, TrialRow

_STATE, _RATE, _MOMENTUM, _TIME = 8, 8, 5, 10
"""Widest state, learning rate, momentum and working time, in characters."""
_INDENT = "    "
"""Start of a line that continues the one above."""


@dataclass(frozen=True, kw_only=True)
class Widths:
    """Widths of the fields that depend on the search, in characters."""

    trial: int = 3
    epochs: int = 2
    backbone: int = 11
    frozen: int = 3

    @classmethod
    def of(cls, *, trials: int, epochs: int, backbones: Iterable[str]) -> "Widths":
        """The widths for a search of this many trials of at most this many epochs."""
        names = list(backbones)
        deepest = max(len(block_names(name)) for name in names)
        return cls(
            trial=len(str(max(0, trials - 1))),
            epochs=len(str(epochs)),
            backbone=max(map(len, names)),
            frozen=len(f"{deepest}/{deepest}"),
        )


def trial_line(
    row: TrialRow,
    widths: Widths,
    *,
    width: int | None,
    counter: str = "",
    progress: str = "",
) -> Text:
    """The result of an ended trial.

    Args:
        row: of the trial.
        widths: of the fields.
        width: of the screen, on which fields are left out and long reasons wrapped; None for a file, in which each
            trial has one line with all fields.
        counter: the number of trials so far, at the start of the line.
        progress: of the search, at the end of the line.
    """
    style = STATE_STYLE[row.state]
    epochs = f"{row.epochs:>{widths.epochs}}/{row.max_epochs} {'epoch' if row.max_epochs == 1 else 'epochs'}"
    frozen = f"{row.frozen_blocks}/{row.n_blocks}"
    fields = [
        *([Field(text=Text(counter))] if counter else []),
        Field(text=Text(f"trial {row.trial:<{widths.trial}}")),
        Field(text=Text(f"{row.state:<{_STATE}}", style=style)),
        Field(text=Text(f"F1 {score(row.val_f1):<5}")),
        Field(text=Text(f"{row.backbone:<{widths.backbone}}")),
        Field(text=Text(f"frozen {frozen:<{widths.frozen}}"), drop=4),
        Field(text=Text(f"lr {rate(row.learning_rate):<{_RATE}}")),
        Field(text=Text(f"momentum {rate(row.momentum):<{_MOMENTUM}}"), drop=2),
        Field(text=Text(epochs), drop=3),
        Field(text=Text(f"{working_time(row.seconds):>{_TIME}}"), drop=1),
        *([Field(text=Text(progress))] if progress else []),
    ]
    line = fitted_line(fields, width or 10**6)
    for reason, own_style in ((row.error, "red"), (row.stopped and f"stopped by the {row.stopped}", style)):
        if reason:
            _append(line, reason, own_style, width)
    return line


def epoch_line(row: EpochRow, widths: Widths, *, max_epochs: int, width: int | None) -> Text:
    """The result of an epoch.

    Args:
        row: of the epoch.
        widths: of the fields.
        max_epochs: of the trial.
        width: see `trial_line`.
    """
    fields = [
        Field(text=Text(f"trial {row.trial:<{widths.trial}}")),
        Field(text=Text(f"epoch {row.epoch:>{widths.epochs}}/{max_epochs}")),
        Field(text=Text(f"F1 {score(row.val_f1):<5}")),
        Field(text=Text(f"train loss {score(row.train_loss):<5}"), drop=2),
        Field(text=Text(f"val loss {score(row.val_loss):<5}"), drop=3),
        Field(text=Text(f"{'-' if row.seconds is None else short(row.seconds):>{_TIME}}"), drop=1),
    ]
    line = fitted_line(fields, width or 10**6)
    line.stylize("dim")
    return line


def _append(line: Text, reason: str, style: str, width: int | None) -> None:
    """Add a reason to a line, on lines of its own where it does not fit."""
    last = line.plain.rpartition("\n")[2]
    if width is None or len(last) + 2 + len(reason) <= width:
        line.append(f"  {reason}", style=style)
        return
    for part in wrapped(reason, width - len(_INDENT)).split("\n"):
        line.append(f"\n{_INDENT}{part}", style=style)
