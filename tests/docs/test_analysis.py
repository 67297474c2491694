"""What docs/analysis.md shows is run on a finished search, and its answers are compared with each other's."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import TRIALS, Command

from genre_core.corpus.tracks import Corpus, load_corpus, write_corpus
from search.run.lock import driving
from search.run.tables import TRIALS as COLUMNS
from search.run.tables import read_epochs, read_trials

TEXT = (Path(__file__).parents[2] / "docs" / "analysis.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(scope="module")
def answers(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the blocks leave behind, run one after the other where the doc's paths lead somewhere."""
    for package in ("duckdb", "polars"):
        pytest.importorskip(package, reason=f"{package} is an extra")
    here, folder = Path.cwd(), tmp_path_factory.mktemp("analysis")
    for name in ("music", "again"):
        shutil.copytree(run, folder / "runs" / name)
    os.chdir(folder)
    found: dict[str, Any] = {}
    for block in BLOCKS:
        exec(compile(block, "docs/analysis.md", "exec"), found)
    yield found
    os.chdir(here)


def test_pandas_duckdb_and_polars_agree_on_the_backbones(answers: dict[str, Any], run: Path) -> None:
    trials = read_trials(run)
    scores = trials[trials["state"] == "COMPLETE"]["val_f1"].tolist()
    expected = ["resnet18", max(scores), float(np.median(scores)), len(scores)]
    assert [*answers["in_sql"].iloc[0]] == expected == [*answers["in_polars"].row(0)]
    pandas = answers["by_backbone"].reset_index().iloc[0]
    assert [pandas["backbone"], pandas["max"], pandas["median"], pandas["count"]] == expected
    assert pandas["behind"] == 0


def test_learning_rates_are_those_of_the_best_quarter(answers: dict[str, Any], run: Path) -> None:
    trials = read_trials(run).sort_values("val_f1", ascending=False)
    rates = answers["rates"].iloc[0]
    assert rates["best"] in trials[trials["val_f1"] == trials["val_f1"].max()]["learning_rate"].tolist()
    assert rates["lowest"] <= rates["best"] <= rates["highest"]
    assert 1 <= rates["trials"] < TRIALS


def test_freezing_and_time_account_for_every_trial(answers: dict[str, Any], run: Path) -> None:
    trials, freezing, spent = read_trials(run), answers["freezing"], answers["time_spent"].iloc[0]
    assert freezing["trials"].sum() == spent["trials"] == TRIALS
    assert freezing["best_f1"].max() == trials["val_f1"].max()
    deepest = trials[trials["frozen_blocks"] == trials["frozen_blocks"].max()]
    seconds = deepest["training_seconds"].sum() / deepest["epochs"].sum()
    assert freezing["epoch_seconds"].iloc[-1] == pytest.approx(seconds)
    assert spent["total"] == pytest.approx(trials["seconds"].sum())
    assert spent["features"] + spent["training"] == pytest.approx(spent["total"])
    assert spent["arithmetic"] == pytest.approx(read_epochs(run)["arithmetic_seconds"].sum())


def test_curves_end_where_trials_were_pruned(answers: dict[str, Any], run: Path) -> None:
    epochs = read_epochs(run)
    assert answers["curves"].count().to_dict() == epochs["trial"].value_counts().to_dict()
    losses = {n: own["val_loss"].tolist() for n, own in epochs.groupby("trial")}
    rises = {row["trial"]: row["rise"] for row in answers["overfit"].to_dicts()}
    assert rises == {number: own[-1] - min(own) for number, own in losses.items()}


def test_a_pruned_trial_could_have_won_by_the_most_that_another_gained(
    answers: dict[str, Any], run: Path
) -> None:
    trials, epochs = read_trials(run), read_epochs(run)
    f1 = {n: own["val_f1"].tolist() for n, own in epochs.groupby("trial")}
    complete = [f1[n] for n in trials[trials["state"] == "COMPLETE"]["trial"]]
    pruned = answers["pruned"]
    assert set(pruned["trial"]) == set(trials[trials["state"] == "PRUNED"]["trial"])
    for _, row in pruned.iterrows():
        done = row["epochs"]
        gain = max(max(0.0, max(own) - max(own[:done])) for own in complete)
        assert row["most_gain"] == pytest.approx(gain)
        assert row["could_have_won"] == (max(f1[row["trial"]]) + gain > max(map(max, complete)))


def test_the_confusion_is_the_winners_and_adds_up(answers: dict[str, Any], run: Path) -> None:
    confusion, winner = answers["confusion"], answers["winner"]
    trials = read_trials(run)
    assert winner["val_f1"] == trials["val_f1"].max()
    assert np.trace(confusion.to_numpy()) / confusion.to_numpy().sum() == winner["val_accuracy"]
    assert list(confusion.index) == answers["genres"] == sorted(answers["genres"])
    assert answers["mistakes"].sum() == confusion.to_numpy().sum() - np.trace(confusion.to_numpy())


def test_runs_units_and_the_study_are_read(answers: dict[str, Any], run: Path) -> None:
    trials = read_trials(run)
    assert answers["every"].iloc[0]["trials"] == 2 * TRIALS  # both are copies of one
    assert answers["units"] == {
        field.name: field.metadata[b"unit"].decode() for field in COLUMNS if field.metadata
    }
    complete = trials[trials["state"] == "COMPLETE"]
    assert answers["study"].best_value == complete["val_f1"].max()


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
    return port


def _get(url: str, process: "subprocess.Popen[bytes]") -> Any:
    """What a server that is starting answers."""
    until = time.monotonic() + 100
    while time.monotonic() < until:
        assert process.poll() is None, "it has ended"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"{url} does not answer")


def test_optunas_dashboard_shows_the_study_as_it_is(run: Path) -> None:
    pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is an extra")
    journal, port = run / "study.journal", _free_port()
    before = journal.read_bytes()
    program = Path(sys.executable).parent / "optuna-dashboard"
    command: list[str | Path] = [program, journal, "--host", "127.0.0.1", "--port", str(port), "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            shown = _get(f"http://127.0.0.1:{port}/api/studies/0", server)["trials"]
        finally:
            server.terminate()
    states = [trial["state"].upper() for trial in shown]
    assert states == read_trials(run).sort_values("trial")["state"].tolist()
    assert journal.read_bytes() == before


def test_runs_are_compared_and_ranked_together(run: Path, genre_search: Command, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(run, again)
    trials = read_trials(run)
    both = genre_search("results", run, again, "--state", "complete", "--top", 3, "--sort", "seconds")
    assert both.returncode == 0, both.stderr
    assert "not comparable" not in both.stdout
    head, first, second, titles, *rows = both.stdout.splitlines()
    assert (head.split()[:2], titles.split()[:2]) == (["run", "F1"], ["run", "trial"])
    assert (first.split()[0], second.split()[0]) == ("tiny", "again")
    counts = trials["state"].value_counts()
    assert first.split()[1] == f"{trials['val_f1'].max():.3f}"
    assert first.split()[2:6] == [str(counts.get(s, 0)) for s in ("COMPLETE", "PRUNED", "FAIL", "RUNNING")]
    fastest = trials[trials["state"] == "COMPLETE"]["seconds"].min()
    assert [row.split()[0] for row in rows[:2]] == ["tiny", "again"]
    assert rows[0].split()[-1] == rows[1].split()[-1] == f"{fastest:.1f}"
    assert len(rows) == 3
    table = genre_search("results", run, again, "--csv").stdout.splitlines()
    assert len(table) == 1 + 2 * TRIALS
    assert {line.split(",")[0] for line in table[1:]} == {"tiny", "again"}


@pytest.mark.parametrize(
    ("setting", "value", "differs"),
    [
        ("front_end: mel64", "front_end: mel128", "front_end"),
        ("level: track\n", "", "level"),
        ("split", None, "split"),
    ],
)
def test_runs_that_differ_in_what_scores_depend_on_are_called_so(
    setting: str, value: str | None, differs: str, run: Path, genre_search: Command, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(run, other)
    if value is not None:
        config = other / "config.yaml"
        text = config.read_text()
        assert setting in text
        config.write_text(text.replace(setting, value))
    else:
        first, *rest = load_corpus(other / "corpus.parquet").tracks
        moved = replace(first, split="test" if first.split != "test" else "train")
        write_corpus(Corpus((moved, *rest)), other / "corpus.parquet")
    shown = genre_search("results", run, other)
    assert f"the scores of other and tiny are not comparable, for these differ: {differs}\n" in shown.stdout


def test_a_run_that_nobody_drives_is_told_with_the_way_on(
    run: Path, genre_search: Command, tmp_path: Path
) -> None:
    left = tmp_path / "left"
    shutil.copytree(run, left)
    file = left / "results" / "trials.parquet"
    table = pq.read_table(file)
    rows = table.to_pylist()
    rows[-1] |= {"state": "RUNNING", "finished": None}
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), file)
    words = f"1 trial is RUNNING, but no process here drives {left}; go on with: genre-search resume {left}"
    assert words in genre_search("results", left).stdout
    assert words in genre_search("results", run, left).stdout
    assert "go on with" not in genre_search("results", run).stdout
    with driving(left):
        assert "go on with" not in genre_search("results", left).stdout
