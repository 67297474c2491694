"""Results of a finished search: scores of its final configurations, and warnings about them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table
from rich.text import Text

from genre_core.corpus.tracks import Corpus, load_corpus
from genre_core.models.registry import block_names
from genre_core.training.bootstrap import CONFIDENCE, RESAMPLES, bootstrap
from genre_core.training.metrics import SCORES
from search.config.schema import BUILTIN, load
from search.data.sanity_checks import implausible_scores, missing_groups_warning
from search.run.folder import RunFolder
from search.run.identity import EXTENDED, read_provenance
from search.run.tables import (
    as_indices,
    read_finish,
    read_test_tracks,
    read_test_use,
    read_trials,
    test_used_at,
)

_TITLES = {"f1": "F1", "accuracy": "accuracy", "precision": "precision", "recall": "recall"}
"""Score -> its title, in the order in which scores are shown."""
_SHARED = ["rank", "trial", "backbone", "frozen_blocks", "learning_rate", "momentum", "epochs", "val_f1"]
"""Columns in which the final models of a configuration do not differ."""


def configurations(finish: pd.DataFrame, predictions: pd.DataFrame, genres: Sequence[str]) -> pd.DataFrame:
    """Aggregate the final models over seeds.

    Args:
        finish: one row per final model, as returned by `read_finish`.
        predictions: one row per final model and test track, as returned by `read_test_tracks`.
        genres: in the order of the models' outputs.

    Returns:
        One row per configuration, the winner first: the settings that its models share, and for each score S the mean
        over seeds test_S, the ends of its bootstrap interval test_S_low and test_S_high, and over seeds the standard
        deviation test_S_sd (None for a single seed), test_S_min and test_S_max.
    """
    rows = []
    for _, models in finish.groupby("rank"):
        row = models.iloc[0][_SHARED].to_dict()
        own = predictions[predictions["trial"] == row["trial"]]
        intervals = bootstrap(*as_indices(own, genres), len(genres))
        for name in SCORES:
            over_seeds = models[f"test_{name}"]
            row[f"test_{name}"] = over_seeds.mean()
            row[f"test_{name}_low"], row[f"test_{name}_high"] = intervals[name]
            row[f"test_{name}_sd"] = over_seeds.std() if len(models) > 1 else None
            row[f"test_{name}_min"], row[f"test_{name}_max"] = over_seeds.min(), over_seeds.max()
        rows.append(row)
    return pd.DataFrame(rows)


def verdict(run: Path) -> list[Any]:
    """The terminal output about a finished run."""
    finish, corpus = read_finish(run), load_corpus(RunFolder(run).corpus)
    look = read_test_use(run)
    assert look, "a finished run has used its test set"
    found = configurations(finish, read_test_tracks(run), corpus.genres)
    winner = found.iloc[0]
    return [
        _headline(run, finish, corpus),
        _configurations(found),
        Text(
            f"\nThe winner is trial {winner.trial}, the best by validation F1 before the test set was used. "
            "Choosing another one by its test score would bias the result.",
            style="bold",
        ),
        _scores(winner),
        _gap(winner, scored=look.scored),
        _genres(finish[finish["rank"] == 1], corpus),
        *_warnings(found, corpus, generated=load(RunFolder(run).config, {}).data == BUILTIN),
        *[_warning(note) for note in [extension_note(run)] if note],
    ]


def extension_note(run: Path) -> str | None:
    """A warning about a search that was extended after its test set had been used; None for any other search."""
    look = read_test_use(run)
    if look is None or not read_provenance(run).get(EXTENDED):
        return None
    added = len(read_trials(run)) - look.trials
    return (
        f"the search was extended after its test set had been used ({look.at:%Y-%m-%d %H:%M} UTC), by {added} "
        f"{'trial' if added == 1 else 'trials'}: the test scores are those of configurations chosen among the first "
        f"{look.trials} trials; later trials have no test score, and choosing by both would bias the result"
    )


def _headline(run: Path, finish: pd.DataFrame, corpus: Corpus) -> Text:
    moment, seeds = test_used_at(run), sorted(finish["seed"].unique())
    models = "1 model" if len(finish) == 1 else f"{len(finish)} models"
    return Text(
        f"The test set of {run} was used once, at {moment:%Y-%m-%d %H:%M} UTC: {len(corpus.part('test'))} tracks, "
        f"{models} trained on the train and validation sets, seeds {', '.join(map(str, seeds))} for each "
        f"configuration.\nTo evaluate on the test set again, start a new search. Scores are means over seeds ± "
        f"standard deviation, with {CONFIDENCE:.0%} bootstrap intervals over tracks in parentheses "
        f"({RESAMPLES} resamples)."
    )


def _table(*titles: str) -> Table:
    shown = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for title in titles:
        shown.add_column(title, justify="left" if title in ("backbone", "genre") else "right", no_wrap=True)
    return shown


def _configurations(found: pd.DataFrame) -> Table:
    shown = _table(
        *("trial", "backbone", "frozen", "lr", "momentum", "epochs", "val F1"),
        *("test F1", "", "seeds ±", "min-max"),
    )
    for _, row in found.iterrows():
        shown.add_row(
            str(row.trial),
            row.backbone,
            f"{row.frozen_blocks}/{len(block_names(row.backbone))}",
            f"{row.learning_rate:.3g}",
            f"{row.momentum:.3g}",
            str(row.epochs),
            f"{row.val_f1:.3f}",
            *_spread(row, "f1"),
        )
    return shown


def _scores(winner: "pd.Series[Any]") -> Table:
    shown = _table("", "test", "", "seeds ±", "min-max")
    for name, title in _TITLES.items():
        shown.add_row(title, *_spread(winner, name))
    return shown


def _spread(row: "pd.Series[Any]", name: str) -> list[str]:
    """A score with its interval, and its standard deviation and range over seeds."""
    mean, low, high, sd, least, most = (
        row[f"test_{name}{end}"] for end in ("", "_low", "_high", "_sd", "_min", "_max")
    )
    deviation = "-" if pd.isna(sd) else f"{sd:.3f}"
    return [f"{mean:.3f}", f"({low:.3f}-{high:.3f})", deviation, f"{least:.3f}-{most:.3f}"]


def _gap(winner: "pd.Series[Any]", scored: int) -> Text:
    gap = winner.test_f1 - winner.val_f1
    return Text(
        f"trial {winner.trial}: validation F1 {winner.val_f1:.3f}, the best of {scored} trials; "
        f"test F1 {winner.test_f1:.3f}, {abs(gap):.3f} {'higher' if gap > 0 else 'lower'}"
    )


def _genres(winners: pd.DataFrame, corpus: Corpus) -> Table:
    """The winner's F1 by genre: mean and range over seeds."""
    shown = _table("genre", "test F1", "min-max", "tracks")
    by_genre = np.stack(winners["f1_per_genre"].to_list()).T
    for genre, f1 in zip(corpus.genres, by_genre, strict=True):
        tracks = sum(track.genre == genre for track in corpus.part("test"))
        shown.add_row(genre, f"{f1.mean():.3f}", f"{f1.min():.3f}-{f1.max():.3f}", str(tracks))
    return shown


def _warnings(found: pd.DataFrame, corpus: Corpus, *, generated: bool) -> list[Text]:
    """Reasons to doubt the scores, one line each."""
    lines = [
        f"trial {row.trial}: {doubt}"
        for _, row in found.iterrows()
        for doubt in implausible_scores(
            corpus,
            accuracy=row.test_accuracy,
            val_f1=row.val_f1,
            test_f1=row.test_f1,
            test_f1_low=row.test_f1_low,
            generated=generated,
        )
    ]
    lines += [line for line in [missing_groups_warning(corpus)] if line]
    return [_warning(line) for line in lines]


def _warning(line: str) -> Text:
    return Text(f"warning: {line}", style="yellow")
