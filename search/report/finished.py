"""Terminal output about a finished run: the answer first, then its final configurations and the winner's scores."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.text import Text

from genre_core.corpus.corpus_table import read_columns, read_genres
from genre_core.models.registry import block_names
from genre_core.training.bootstrap import CONFIDENCE, RESAMPLES
from search.config.schema import BUILTIN, load
from search.data.sanity_checks import implausible_scores, missing_groups_warning
from search.evaluate.verdict import configurations, extension_note
from search.report.fitting import FittedTable
from search.report.formatting import counted, rate, score
from search.run.folder import RunFolder
from search.run.tables import read_finish, read_test_tracks, read_test_use, test_used_at

_TITLES = {"f1": "F1", "accuracy": "accuracy", "precision": "precision", "recall": "recall"}
"""Score -> its title, in the order in which scores are shown."""
_INTERVAL = f"{CONFIDENCE:.0%} interval"
"""Title of the columns with bootstrap intervals over the test tracks."""
_SPREAD = ("test", _INTERVAL, "seed SD", "seed range")
"""Titles of the columns about a score."""
_RANGE_LAST = ("seed range", "seed SD")
"""Titles of the columns that a narrow screen leaves out, the least important first."""


def verdict(run: Path) -> list[Any]:
    """The terminal output about a finished run."""
    finish, corpus = read_finish(run), RunFolder(run).corpus
    genres = read_genres(corpus)
    tested = Counter(read_columns(corpus, "genre", part="test")["genre"])
    look = read_test_use(run)
    assert look, "a finished run has used its test set"
    found = configurations(finish, read_test_tracks(run), genres)
    winner = found.iloc[0]
    return [
        *_answer(winner, scored=look.scored),
        Text(),
        _configurations(found),
        Text(
            f"The winner is trial {winner.trial}, the best by validation F1 before the test set was used. "
            "Choosing another one by its test score would bias the result."
        ),
        Text(),
        _scores(winner),
        Text(),
        _genres(finish[finish["rank"] == 1], genres, tested),
        Text(),
        _how(run, finish, tested.total()),
        *_warnings(found, genres, tested.total(), generated=load(RunFolder(run).config, {}).data == BUILTIN),
        *[
            _warning(line)
            for line in [missing_groups_warning(read_columns(corpus, "group")["group"])]
            if line
        ],
        *[_warning(note) for note in [extension_note(run)] if note],
    ]


def _answer(winner: "pd.Series[Any]", scored: int) -> list[Text]:
    """The winner's test F1, compared with its validation F1."""
    gap = winner.test_f1 - winner.val_f1
    difference = f"{abs(gap):.3f} {'higher' if gap > 0 else 'lower'}"
    depth = f"{winner.frozen_blocks}/{len(block_names(winner.backbone))}"
    return [
        Text(
            f"Test F1 {winner.test_f1:.3f} ({_INTERVAL} {_interval(winner, 'f1')}), trial {winner.trial}: "
            f"{winner.backbone}, frozen {depth}",
            style="bold",
        ),
        Text(
            f"Validation F1 was {winner.val_f1:.3f}, the best of {counted(scored, 'trial')}; "
            f"test F1 is {difference}."
        ),
    ]


def _configurations(found: pd.DataFrame) -> FittedTable:
    shown = FittedTable(
        *("trial", "backbone", "frozen", "lr", "momentum", "epochs", "val F1"),
        *("test F1", *_SPREAD[1:]),
        left=("backbone",),
        drop=("seed range", "momentum", "epochs", "seed SD", "frozen"),
    )
    for _, row in found.iterrows():
        shown.add_row(
            str(row.trial),
            row.backbone,
            f"{row.frozen_blocks}/{len(block_names(row.backbone))}",
            rate(row.learning_rate),
            rate(row.momentum),
            str(row.epochs),
            score(row.val_f1),
            *_spread(row, "f1"),
        )
    return shown


def _scores(winner: "pd.Series[Any]") -> FittedTable:
    shown = FittedTable("score", *_SPREAD, left=("score",), drop=_RANGE_LAST)
    for name, title in _TITLES.items():
        shown.add_row(title, *_spread(winner, name))
    return shown


def _spread(row: "pd.Series[Any]", name: str) -> list[str]:
    """A score with its interval, and its standard deviation and range over seeds."""
    mean, sd, least, most = (row[f"test_{name}{end}"] for end in ("", "_sd", "_min", "_max"))
    return [
        score(mean),
        _interval(row, name),
        score(None if pd.isna(sd) else sd),
        f"{least:.3f}-{most:.3f}",
    ]


def _interval(row: "pd.Series[Any]", name: str) -> str:
    return f"{row[f'test_{name}_low']:.3f}-{row[f'test_{name}_high']:.3f}"


def _genres(winners: pd.DataFrame, genres: Sequence[str], tested: Mapping[str, int]) -> FittedTable:
    """The winner's F1 by genre: mean and range over seeds."""
    shown = FittedTable("genre", "test F1", "seed range", "tracks", left=("genre",), drop=("seed range",))
    by_genre = np.stack(winners["f1_per_genre"].to_list()).T
    for genre, f1 in zip(genres, by_genre, strict=True):
        shown.add_row(genre, score(f1.mean()), f"{f1.min():.3f}-{f1.max():.3f}", str(tested[genre]))
    return shown


def _how(run: Path, finish: pd.DataFrame, test_tracks: int) -> Text:
    """When and how the test set was used, and what the columns mean."""
    moment, seeds = test_used_at(run), sorted(finish["seed"].unique())
    tracks, models = counted(test_tracks, "track"), counted(len(finish), "model")
    named = f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"
    return Text(
        f"The test set of {run} was used once, at {moment:%Y-%m-%d %H:%M} UTC: {tracks}, {models} trained on the train "
        f"and validation sets, {named} for each configuration. Scores are means over seeds, with {CONFIDENCE:.0%} "
        f"bootstrap intervals over tracks ({RESAMPLES} resamples), and standard deviation (SD) and range over seeds. "
        "To evaluate on the test set again, start a new search."
    )


def _warnings(found: pd.DataFrame, genres: Sequence[str], test_tracks: int, *, generated: bool) -> list[Text]:
    """Reasons to doubt the scores, one line each."""
    return [
        _warning(f"trial {row.trial}: {doubt}")
        for _, row in found.iterrows()
        for doubt in implausible_scores(
            genres,
            test_tracks=test_tracks,
            accuracy=row.test_accuracy,
            val_f1=row.val_f1,
            test_f1=row.test_f1,
            test_f1_low=row.test_f1_low,
            generated=generated,
        )
    ]


def _warning(line: str) -> Text:
    return Text(f"warning: {line}", style="yellow")
