"""The HTML report of a run: a single self-contained file, written at any time from the run's folder."""

import json
from collections.abc import Collection, Mapping, Sequence
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

from genre_core.corpus.corpus_table import load_corpus
from genre_core.corpus.relocation import relocate_corpus_by_name
from genre_core.corpus.tracks import Corpus
from genre_core.recipe import SGD
from genre_core.system.atomic import atomic_file
from search.config import schema
from search.config.front_end import needed_front_end
from search.config.schema import SearchConfig, to_yaml
from search.config.space import Space
from search.evaluate.verdict import configurations, extension_note
from search.report import charts, expectation
from search.report.charts import Chart
from search.report.corpus_summary import CorpusSummary
from search.report.downloads import csv_lines
from search.report.formatting import STATE_WORD, duration
from search.report.importance import FROZEN, MIN_TRIALS, Importance, importances, seed_noise
from search.report.misclassified import MisclassifiedTrack, worst_tracks
from search.report.time_accounting import TimeSpent, time_spent
from search.report.winner import best_row, winner_config
from search.run import ranking
from search.run.commands import command
from search.run.folder import RunFolder
from search.run.lock import is_driven
from search.run.model_store import kept_card
from search.run.tables import (
    TestUse,
    read_epochs,
    read_finish,
    read_test_tracks,
    read_test_use,
    read_trials,
    require_run,
)

PAIRED = ("learning_rate", "momentum", FROZEN)
"""Hyperparameters that are plotted in pairs."""

_Row = Mapping[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that the page shows about a run."""

    run: Path
    written: datetime
    running: bool
    """Whether a driver was running the search when its folder was read."""
    config: SearchConfig
    corpus: CorpusSummary
    trials: pd.DataFrame
    """The best trial first; with the additional column frozen_share."""
    epochs: pd.DataFrame
    finish: pd.DataFrame
    """The final models; empty before `finish`."""
    configurations: pd.DataFrame
    """The final configurations, the winner first: means over seeds, with intervals."""
    importances: Mapping[str, Importance]
    time: TimeSpent | None
    """None before the first epoch has ended."""
    misclassified: Sequence[MisclassifiedTrack] | None
    """None if the model of trial `examined` is not kept."""
    expectation: str | None
    """A sentence about the F1 to expect on new tracks; None if no trial has a score."""
    test_look: TestUse | None
    """When the test set was used; None before `finish`."""
    extension_note: str | None
    """A note about a search that was extended after `finish`; otherwise None."""
    settings: str | None
    """A configuration in YAML that repeats the best trial; None if no trial has a score."""
    reload_seconds: float | None
    """Seconds after which the page reloads itself, because it is rewritten; None if it does not."""

    def command(self, name: str) -> str:
        """The command line that applies a command to this run."""
        return command(name, self.run)

    @property
    def backbones(self) -> list[str]:
        """The backbones in the order in which they are assigned colours."""
        return list(self.config.backbones)

    @property
    def front_end(self) -> str:
        """The name of the front end."""
        needed = needed_front_end(self.backbones)
        return needed.name if needed else self.config.front_end

    @property
    def best(self) -> _Row | None:
        """The row of the best trial."""
        scored = self.trials[self.trials["val_f1"].notna()]
        return dict(scored.iloc[0]) if len(scored) else None

    @property
    def examined(self) -> int | None:
        """The trial whose results are shown by genre: the winner of `finish`, or before `finish` the best trial."""
        return _examined(self.trials, self.finish)

    @property
    def best_epoch(self) -> _Row | None:
        """The row of the best epoch of trial `examined`."""
        return None if self.examined is None else self._best_epoch(self.examined)

    @property
    def best_validation(self) -> _Row | None:
        """The row of the epoch with the best validation F1 of all trials; that of `best_epoch` if it is lost."""
        best = self.best
        return (best and self._best_epoch(best["trial"])) or self.best_epoch

    def _best_epoch(self, trial: int) -> _Row | None:
        best_epoch = self.trials.loc[self.trials["trial"] == trial, "best_epoch"].iloc[0]
        rows = self.epochs[(self.epochs["trial"] == trial) & (self.epochs["epoch"] == best_epoch)]
        # After a crash the study may know the score of an epoch whose confusion matrix is lost.
        return dict(rows.iloc[0]) if len(rows) and rows.iloc[0]["confusion"] is not None else None

    @property
    def counts(self) -> dict[str, int]:
        """State -> number of trials."""
        counts = self.trials["state"].value_counts()
        return {state: int(counts.get(state, 0)) for state in STATE_WORD}

    @property
    def cut_off(self) -> int:
        """Number of PRUNED trials that were ended by a budget rather than the pruner."""
        return int(self.trials["stopped"].notna().sum())


def write_report(
    run: Path, out: Path, *, cache: Path, data: Path | str | None = None, reload_seconds: float | None = None
) -> None:
    """Write the report of a run, whether or not it has ended, without changing the run.

    Args:
        run: the run's folder.
        out: the HTML file, replaced atomically.
        cache: the folder with cached spectrograms.
        data: current path or address of the music, a folder or a manifest; None if it has not moved.
        reload_seconds: seconds after which the page reloads itself; None if it does not.

    Raises:
        InputError: the folder is not a run, or one of its files is damaged.
    """
    html = render(collect(run, cache=cache, data=data, reload_seconds=reload_seconds))
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(out, durable=False) as partial:
        partial.write_text(html, encoding="utf-8")


def collect(
    run: Path, *, cache: Path, data: Path | str | None = None, reload_seconds: float | None = None
) -> Report:
    """Read a run's folder; the arguments and errors are those of `write_report`."""
    require_run(run)
    config = schema.load(RunFolder(run).config, {})
    corpus, validated = CorpusSummary.read(RunFolder(run).corpus), _validated(run, data)
    trials = ranking.select(read_trials(run))
    settings = to_yaml(winner_config(run, best_row(run))) if trials["val_f1"].notna().any() else None
    trials[FROZEN] = trials["frozen_blocks"] / trials["n_blocks"]
    finish = read_finish(run)
    examined = _examined(trials, finish)
    card = None if examined is None else kept_card(run, examined)
    store = cache / "spectrograms" / str((config.provenance or {}).get("spectrograms"))
    return Report(
        run=run,
        written=datetime.now(UTC),
        running=is_driven(run),
        config=config,
        corpus=corpus,
        trials=trials,
        epochs=read_epochs(run),
        finish=finish,
        configurations=configurations(finish, read_test_tracks(run), corpus.genres),
        importances=importances(run),
        time=time_spent(trials) if trials["seconds"].notna().any() else None,
        misclassified=worst_tracks(card, validated, spectrograms=store) if card else None,
        expectation=expectation.sentence(run, trials),
        test_look=read_test_use(run),
        extension_note=extension_note(run),
        settings=settings,
        reload_seconds=reload_seconds,
    )


def _validated(run: Path, data: Path | str | None) -> Corpus:
    """The validation tracks of a run, with their paths in `data` if that is given."""
    corpus = load_corpus(RunFolder(run).corpus, part="validation")
    return relocate_corpus_by_name(corpus, data) if data else corpus


def _examined(trials: pd.DataFrame, finish: pd.DataFrame) -> int | None:
    """See `Report.examined`."""
    if len(finish):
        return int(finish.loc[finish["rank"] == 1, "trial"].iloc[0])
    scored = trials[trials["val_f1"].notna()]
    return int(scored["trial"].iloc[0]) if len(scored) else None


def render(report: Report) -> str:
    """The report as HTML."""
    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "title": charts.title, "count": "{:,}".format}
    drawn = _charts(report)
    figures = {name: chart.to_plotly_json() for name, chart in drawn.items()}
    header, *lines = csv_lines(report.trials.drop(columns=FROZEN))
    data = {
        "template": charts.template().to_plotly_json(),
        "figures": figures,
        "csv": {"header": header, "lines": dict(zip(report.trials["trial"].tolist(), lines, strict=True))},
    }
    return environment.get_template("report.html.j2").render(
        report=report,
        charts=drawn,
        data=Markup(_as_script(data)),
        plotly=Markup(get_plotlyjs()),
        style=Markup((folder / "report.css").read_text(encoding="utf-8")),
        script=Markup((folder / "report.js").read_text(encoding="utf-8")),
        surfaces=_surfaces(drawn, report.backbones),
        **_tables(report),
    )


def _as_script(data: Mapping[str, Any]) -> str:
    """JSON that is safe in a script element, which ends at the first end tag."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _charts(report: Report) -> dict[str, Chart]:
    """Name -> chart, for all charts with data."""
    trials, backbones = report.trials, report.backbones
    if report.best is None:
        return {}
    found = {"history": charts.history(trials, backbones)}
    curves = charts.curves(trials, report.epochs, backbones, report.best["trial"])
    found |= {f"curves {backbone}": chart for backbone, chart in curves.items()}
    if "all" in report.importances:
        found["importance"] = charts.importance(report.importances["all"], seed_noise(report.finish))
    varied = _varied_columns(trials)
    found |= {f"slice {name}": chart for name, chart in charts.slices(trials, backbones, varied).items()}
    pairs = charts.contours(trials, backbones, [name for name in PAIRED if name in varied])
    for (x, y), group in pairs.items():
        found |= {f"contour {x} {y} {backbone}": chart for backbone, chart in group.items()}
    found |= {f"cost {name}": chart for name, chart in charts.costs(trials, backbones).items()}
    if report.best_epoch is not None:
        found |= _genre_charts(report, report.best_epoch)
    if report.time:
        found["times"] = charts.times(report.time)
    return found


def _surfaces(drawn: Collection[str], backbones: Sequence[str]) -> dict[tuple[str, str], list[str]]:
    """Pair of hyperparameters -> the backbones whose surface over both is drawn."""
    found = {
        (x, y): [name for name in backbones if f"contour {x} {y} {name}" in drawn]
        for x, y in combinations(PAIRED, 2)
    }
    return {pair: names for pair, names in found.items() if names}


def _genre_charts(report: Report, epoch: _Row) -> dict[str, Chart]:
    """The best epoch of the search and, after `finish`, the winner's final models on the test set; F1 of `examined`."""
    genres, winner = report.corpus.genres, report.finish[report.finish["rank"] == 1]
    validated = report.best_validation or epoch
    found = {"confusion": charts.confusion(_matrix(validated["confusion"]), genres)}
    test = None
    if len(winner):
        total = np.sum([_matrix(rows) for rows in winner["confusion"]], axis=0)
        found["confusion test"] = charts.confusion(total, genres)
        test = np.mean(winner["f1_per_genre"].to_list(), axis=0).tolist()
    return found | {"genres": charts.genre_scores(genres, list(epoch["f1_per_genre"]), test)}


def _varied_columns(trials: pd.DataFrame) -> list[str]:
    """The numeric hyperparameters that the search varied."""
    names = [FROZEN if name == "frozen_blocks" else name for name in Space.model_fields]
    return [
        name
        for name in names
        if pd.api.types.is_numeric_dtype(trials[name])
        and not pd.api.types.is_bool_dtype(trials[name])
        and trials[name].nunique() > 1
    ]


def _tables(report: Report) -> dict[str, Any]:
    """The template's variables with the contents of tables and lists."""
    trials, corpus = report.trials, report.corpus
    scored = trials[trials["val_f1"].notna()]
    varied = _varied_columns(trials) if len(scored) else []
    return {
        "marks": {backbone: charts.mark(report.backbones, backbone) for backbone in report.backbones},
        "symbols": charts.SYMBOLS,
        "min_trials": MIN_TRIALS,
        "noise": seed_noise(report.finish),
        "splits": corpus.splits,
        "errors": _errors(trials),
        "optimizers": isinstance(report.config.space.optimizer, tuple)
        or bool((trials["optimizer"] != SGD).any()),
        "by_backbone": scored.groupby("backbone")["val_f1"]
        .agg(["count", "median", "max"])
        .sort_values(["max", "median"], ascending=False),
        "fronts": {name: charts.pareto_front(trials, name) for name in charts.COSTS},
        "slices": varied,
        "pairs": list(combinations([name for name in PAIRED if name in varied], 2)),
        "min_surface": charts.MIN_TRIALS,
        "roomy_genres": charts.ROOMY_GENRES,
        "rows": trials.astype(object).where(trials.notna(), None).to_dict("records"),
    }


def _errors(trials: pd.DataFrame) -> dict[str, list[str]]:
    """Kind of error, the most frequent first -> the messages of its failed trials, by trial number."""
    kinds: dict[str, list[str]] = {}
    for error in trials.sort_values("trial")["error"].dropna():
        kinds.setdefault(error.partition(":")[0], []).append(error)
    return dict(sorted(kinds.items(), key=lambda kind: -len(kind[1])))


def _matrix(rows: Any) -> NDArray[np.int64]:
    """A confusion matrix from pandas' array of arrays."""
    return np.array([list(row) for row in rows])
