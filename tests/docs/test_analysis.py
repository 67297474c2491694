"""The code in docs/analysis.md runs on a finished search, and its results agree with the tables."""

import contextlib
import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TRIALS

from search.run.schemas import TRIALS as COLUMNS
from search.run.tables import read_epochs, read_trials

TEXT = (Path(__file__).parents[2] / "docs" / "analysis.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(scope="module")
def answers(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The variables after running all blocks in order, in a folder that has the runs of the examples."""
    for package in ("duckdb", "polars"):
        pytest.importorskip(package, reason=f"{package} is an extra")
    folder = tmp_path_factory.mktemp("analysis")
    for name in ("music", "again"):
        shutil.copytree(run, folder / "runs" / name)
    variables: dict[str, Any] = {}
    with contextlib.chdir(folder):
        for block in BLOCKS:
            exec(compile(block, "docs/analysis.md", "exec"), variables)
        yield variables  # in this folder, because the study reads its journal when it is asked


def test_pandas_duckdb_and_polars_agree_on_the_backbones(answers: dict[str, Any], run: Path) -> None:
    trials = read_trials(run)
    scores = trials[trials["state"] == "COMPLETE"]["val_f1"].tolist()
    expected = ["resnet18", max(scores), float(np.median(scores)), len(scores)]
    assert [*answers["in_sql"].iloc[0]] == expected == [*answers["in_polars"].row(0)]
    pandas = answers["by_backbone"].reset_index().iloc[0]
    assert [pandas["backbone"], pandas["max"], pandas["median"], pandas["count"]] == expected
    assert pandas["behind"] == 0


def test_learning_rates_are_those_of_the_best_quarter_of_trials(answers: dict[str, Any], run: Path) -> None:
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


def test_a_learning_curve_has_a_value_for_each_epoch_of_its_trial(answers: dict[str, Any], run: Path) -> None:
    epochs = read_epochs(run)
    assert answers["curves"].count().to_dict() == epochs["trial"].value_counts().to_dict()
    losses = {n: own["val_loss"].tolist() for n, own in epochs.groupby("trial")}
    rises = {row["trial"]: row["rise"] for row in answers["overfit"].to_dicts()}
    assert rises == {number: own[-1] - min(own) for number, own in losses.items()}


def test_a_pruned_trial_could_have_won_if_the_largest_gain_of_another_suffices(
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


def test_the_confusion_matrix_is_that_of_the_best_trial(answers: dict[str, Any], run: Path) -> None:
    confusion, winner = answers["confusion"], answers["winner"]
    trials = read_trials(run)
    assert winner["val_f1"] == trials["val_f1"].max()
    assert np.trace(confusion.to_numpy()) / confusion.to_numpy().sum() == winner["val_accuracy"]
    assert list(confusion.index) == answers["genres"] == sorted(answers["genres"])
    assert answers["mistakes"].sum() == confusion.to_numpy().sum() - np.trace(confusion.to_numpy())


def test_several_runs_column_units_and_the_study_are_read(answers: dict[str, Any], run: Path) -> None:
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
    """The JSON that a starting server answers."""
    until = time.monotonic() + 100
    while time.monotonic() < until:
        assert process.poll() is None, "the server has ended"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"{url} does not answer")


def test_optuna_dashboard_opens_the_journal_without_changing_it(run: Path) -> None:
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
