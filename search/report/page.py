"""What a search found, on one page: an HTML file that holds all it needs, made at any time from the run's folder."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray
from plotly.offline import get_plotlyjs

from genre_core.corpus.audit import reason_counts
from genre_core.corpus.relocation import relocated_by_name
from genre_core.corpus.tracks import SPLITS, Corpus, load_corpus
from genre_core.system.atomic import atomic_file
from search.config import schema
from search.config.schema import SearchConfig
from search.config.space import Space
from search.evaluate.verdict import configurations, extension
from search.report import charts
from search.report.charts import Figure
from search.report.formatting import STATE_WORD, duration
from search.report.importance import FEWEST_TRIALS, FROZEN, Importance, importances, seed_noise
from search.report.misclassified import WrongTrack, worst_tracks
from search.report.time_accounting import TimeSpent, time_spent
from search.run import ranking
from search.run.commands import command
from search.run.lock import is_driven
from search.run.model_store import kept_card
from search.run.tables import (
    TestLook,
    read_epochs,
    read_finish,
    read_test_look,
    read_test_tracks,
    read_trials,
    require_run,
)

MAIN = ("learning_rate", "momentum", FROZEN)
"""Hyperparameters that are shown against each other."""
REASONS = 5
"""Reasons of failures that are named."""

_Row = Mapping[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that a page says of a run."""

    run: Path
    written: datetime
    going_on: bool
    """Whether a driver was at work when this was read."""
    settings: SearchConfig
    corpus: Corpus
    trials: pd.DataFrame
    """The best first; with the column frozen_share."""
    epochs: pd.DataFrame
    finish: pd.DataFrame
    """Of the final models; empty before `finish`."""
    final: pd.DataFrame
    """The final configurations, the winner first: means over seeds, with intervals."""
    importances: Mapping[str, Importance]
    time: TimeSpent | None
    """None before an epoch is done."""
    worst: Sequence[WrongTrack] | None
    """None where the model of trial `subject` is not kept."""
    look: TestLook | None
    """At the test part; None before `finish`."""
    extension: str | None
    """What to know of a search that was extended after `finish`."""

    def command(self, name: str) -> str:
        """A command to give next for this run."""
        return command(name, self.run)

    @property
    def backbones(self) -> list[str]:
        """In the order in which they have their colours."""
        return list(self.settings.backbones)

    @property
    def best(self) -> _Row | None:
        """The best trial's row."""
        scored = self.trials[self.trials["val_f1"].notna()]
        return dict(scored.iloc[0]) if len(scored) else None

    @property
    def subject(self) -> int | None:
        """The trial that is looked at genre by genre: the winner of `finish`, before that the best trial."""
        return _subject(self.trials, self.finish)

    @property
    def best_epoch(self) -> _Row | None:
        """The best epoch's row of trial `subject`."""
        if (subject := self.subject) is None:
            return None
        best_epoch = self.trials.loc[self.trials["trial"] == subject, "best_epoch"].iloc[0]
        rows = self.epochs[(self.epochs["trial"] == subject) & (self.epochs["epoch"] == best_epoch)]
        # an epoch that only the study remembers, after a crash, has a score and no matrix
        return dict(rows.iloc[0]) if len(rows) and rows.iloc[0]["confusion"] is not None else None

    @property
    def counts(self) -> dict[str, int]:
        """State -> trials."""
        counts = self.trials["state"].value_counts()
        return {state: int(counts.get(state, 0)) for state in STATE_WORD}

    @property
    def cut_off(self) -> int:
        """How many of the PRUNED trials the time budget ended, and not the pruner."""
        return int(self.trials["stopped"].notna().sum())


def write_report(run: Path, out: Path, *, cache: Path, data: Path | None = None) -> None:
    """Make the page of a run, whether or not it has ended; nothing of the run is changed.

    Args:
        run: the run's folder.
        out: the HTML file, replaced whole.
        cache: where spectrograms are kept.
        data: where the music is now, a folder or a manifest; None where it has not moved.

    Raises:
        InputError: the folder holds no run, or a file of it is damaged.
    """
    text = page(facts(run, cache=cache, data=data))
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(out, durable=False) as partial:
        partial.write_text(text, encoding="utf-8")


def facts(run: Path, *, cache: Path, data: Path | None = None) -> Facts:
    """Read a run."""
    require_run(run)
    settings = schema.load(run / "config.yaml", {})
    corpus = load_corpus(run / "corpus.parquet")
    if data:
        corpus = relocated_by_name(corpus, data)
    trials = ranking.select(read_trials(run))
    finish = read_finish(run)
    trials[FROZEN] = trials["frozen_blocks"] / trials["n_blocks"]
    subject = _subject(trials, finish)
    card = None if subject is None else kept_card(run, subject)
    store = cache / "spectrograms" / str((settings.provenance or {}).get("spectrograms"))
    return Facts(
        run=run,
        written=datetime.now(UTC),
        going_on=is_driven(run),
        settings=settings,
        corpus=corpus,
        trials=trials,
        epochs=read_epochs(run),
        finish=finish,
        final=configurations(finish, read_test_tracks(run), corpus.genres),
        importances=importances(run),
        time=time_spent(trials) if trials["seconds"].notna().any() else None,
        worst=worst_tracks(card, corpus, spectrograms=store) if card else None,
        look=read_test_look(run),
        extension=extension(run),
    )


def _subject(trials: pd.DataFrame, finish: pd.DataFrame) -> int | None:
    """See `Facts.subject`."""
    if len(finish):
        return int(finish.loc[finish["rank"] == 1, "trial"].iloc[0])
    scored = trials[trials["val_f1"].notna()]
    return int(scored["trial"].iloc[0]) if len(scored) else None


def page(facts: Facts) -> str:
    """The facts as HTML."""
    here = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(here),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "title": charts.title, "count": "{:,}".format}
    figures = _figures(facts)
    plain = json.dumps(
        {name: {k: f[k] for k in ("data", "layout")} for name, f in figures.items()}, allow_nan=False
    )
    return environment.get_template("report.html.j2").render(
        facts=facts,
        figures=figures,
        figures_json=Markup(plain.replace("<", "\\u003c")),
        plotly=Markup(get_plotlyjs()),
        style=Markup((here / "report.css").read_text(encoding="utf-8")),
        script=Markup((here / "report.js").read_text(encoding="utf-8")),
        **_tables(facts, figures),
    )


def _figures(facts: Facts) -> dict[str, Figure]:
    """Name -> figure, of all that there is data for."""
    trials, backbones = facts.trials, facts.backbones
    if facts.best is None:
        return {}
    figures = {"history": charts.history(trials, backbones)}
    curves = charts.curves(trials, facts.epochs, backbones, facts.best["trial"])
    figures |= {f"curves {backbone}": figure for backbone, figure in curves.items()}
    if "all" in facts.importances:
        figures["importance"] = charts.importance(facts.importances["all"], seed_noise(facts.finish))
    varied = charts.sampled(trials, Space.model_fields)
    figures |= {f"slice {name}": figure for name, figure in charts.slices(trials, backbones, varied).items()}
    pairs = charts.contours(trials, backbones, [name for name in MAIN if name in varied])
    for (x, y), group in pairs.items():
        figures |= {f"contour {x} {y} {backbone}": figure for backbone, figure in group.items()}
    figures |= {f"cost {name}": figure for name, figure in charts.costs(trials, backbones).items()}
    if (epoch := facts.best_epoch) is not None:
        genres, winner = facts.corpus.genres, facts.finish[facts.finish["rank"] == 1]
        figures["confusion"] = charts.confusion(_matrix(epoch["confusion"]), genres)
        if len(winner):
            added_up = np.sum([_matrix(rows) for rows in winner["confusion"]], axis=0)
            figures["confusion test"] = charts.confusion(added_up, genres)
        test = np.mean(winner["f1_per_genre"].to_list(), axis=0).tolist() if len(winner) else None
        figures["genres"] = charts.genre_scores(genres, list(epoch["f1_per_genre"]), test)
    if facts.time:
        figures["times"] = charts.times(facts.time)
    return figures


def _tables(facts: Facts, figures: Mapping[str, Figure]) -> dict[str, Any]:
    """What the page shows in rows."""
    trials, corpus = facts.trials, facts.corpus
    parts = {part: corpus.part(part) for part in SPLITS}
    return {
        "marks": {backbone: charts.mark(facts.backbones, backbone) for backbone in facts.backbones},
        "symbols": charts.SYMBOLS,
        "fewest_trials": FEWEST_TRIALS,
        "noise": seed_noise(facts.finish),
        "excluded": reason_counts(corpus),
        "parts": {
            part: (len(tracks), sum(track.seconds or 0.0 for track in tracks))
            for part, tracks in parts.items()
        },
        "genre_tracks": {
            genre: {part: sum(track.genre == genre for track in tracks) for part, tracks in parts.items()}
            for genre in corpus.genres
        },
        "errors": trials["error"].value_counts().head(REASONS).to_dict(),
        "by_backbone": trials[trials["val_f1"].notna()]
        .groupby("backbone")["val_f1"]
        .agg(["count", "median", "max"]),
        "fronts": {name: charts.pareto(trials, name) for name in ("seconds", "trainable_parameters")},
        "slices": [name.removeprefix("slice ") for name in figures if name.startswith("slice ")],
        "pairs": list(combinations([name for name in MAIN if f"slice {name}" in figures], 2)),
        "by_f1": (trials["val_f1"].min(), trials["val_f1"].max()),
        "rows": trials.astype(object).where(trials.notna(), None).to_dict("records"),
    }


def _matrix(rows: Any) -> NDArray[np.int64]:
    """A confusion matrix as pandas gives it: an array of arrays."""
    return np.array([list(row) for row in rows])
