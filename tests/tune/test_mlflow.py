"""Logging to MLflow: it agrees with the tables, and MLflow's errors become one line."""

import math
import shutil
import sqlite3
from collections import defaultdict
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from made_runs import RECIPE, epoch_report
from ray.tune.experiment import Trial
from rich.console import Console

from genre_core.errors import InputError
from search.config.schema import SearchConfig, load
from search.display.progress import Display
from search.engine.messages import Assignment
from search.errors import SearchErrorCode
from search.run.schemas import TrialRow
from search.run.tables import read_epochs, read_trials
from search.tune import search
from search.tune.mlflow import callbacks, require_usable
from search.tune.wire_format import config_of, result_of

mlflow = pytest.importorskip("mlflow", reason="mlflow is an extra")
# MLflow's own tables use an option that SQLAlchemy is about to drop
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow store, which takes seconds to create."""
    file = tmp_path_factory.mktemp("mlflow") / "empty.db"
    require_usable(f"sqlite:///{file}", "none")
    return file


class Breaks(Display):
    """A display that drops MLflow's table of metrics when the first trial has ended."""

    def __init__(self, database: Path) -> None:
        super().__init__(Console(file=StringIO()))
        self._database = database

    def trial(self, row: TrialRow) -> None:
        super().trial(row)
        if row.state != "RUNNING":
            with sqlite3.connect(self._database) as connection:
                connection.execute("drop table if exists metrics")
            connection.close()


@pytest.mark.usefixtures("small_ray")
def test_every_trial_is_logged_with_its_recipe_and_its_scores(
    tiny: Callable[..., SearchConfig], cache: Path, store: Path, tmp_path: Path
) -> None:
    uri, run = f"sqlite:///{shutil.copy(store, tmp_path / 'm.db')}", tmp_path / "logged"
    rates = [0.01, 1e30]
    config = tiny(
        mlflow=uri, space__learning_rate=rates, sampler="random", trials=4, seed=1, training__epochs=2
    )
    search.run(config, folder=run, cache=cache, reporter=Display(Console(file=StringIO())))
    client = mlflow.MlflowClient(uri)
    logged = client.search_runs([client.get_experiment_by_name("logged").experiment_id])
    by_trial = {int(each.data.params["number"]): each for each in logged}
    trials, epochs = read_trials(run).set_index("trial"), read_epochs(run)
    assert sorted(by_trial) == sorted(trials.index)
    assert set(trials["state"]) == {"COMPLETE", "FAIL"}
    for number, each in by_trial.items():
        assert float(each.data.params["recipe/learning_rate"]) == trials.loc[number, "learning_rate"]
        assert each.data.params["recipe/backbone"] == "resnet18"
        assert each.info.status == "FINISHED"
        own = epochs[epochs["trial"] == number]
        for name in ("val_f1", "val_loss", "train_loss"):
            history = client.get_metric_history(each.info.run_id, name)
            assert {m.step: m.value for m in history} == dict(zip(own["epoch"], own[name], strict=True))
        assert not {"confusion", "f1_per_genre"} & each.data.metrics.keys()
        assert all(math.isfinite(value) for value in each.data.metrics.values())


class Driver:
    """A driver of a search that logs to MLflow; no trial is trained."""

    def __init__(self, uri: str, search_id: str = "one") -> None:
        (self._callback,) = callbacks(uri, "e", search_id=search_id)

    def turn(self, trial: int, *scores: float, attempt: int = 1, done: int = 0, dies: bool = False) -> None:
        """A worker has a trial for some epochs, which follow those that are done; the first one may be replayed."""
        assignment = Assignment(trial=trial, recipe=RECIPE, attempt=attempt, paused=(7,))
        on_ray = cast(Trial, SimpleNamespace(trial_id="any", config=config_of(assignment)))
        self._callback.on_trial_start(0, [], on_ray)
        for last in range(max(done, 1), len(scores) + 1):
            report = epoch_report(trial, list(scores[:last]), attempt=attempt, replayed=last == done)
            self._callback.on_trial_result(0, [], on_ray, result_of(report, []))
        if not dies:
            self._callback.on_trial_complete(0, [], on_ray)


def _runs(uri: str) -> dict[str, tuple[str, dict[int, list[float]]]]:
    """Trial -> the status of its MLflow run, and its scores by epoch; it has one run."""
    client = mlflow.MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("e").experiment_id])
    found = {}
    for run in runs:
        scores: dict[int, list[float]] = defaultdict(list)
        for metric in client.get_metric_history(run.info.run_id, "val_f1"):
            scores[metric.step].append(metric.value)
        found[run.data.params["number"]] = run.info.status, dict(scores)
    assert len(found) == len(runs)
    return found


@pytest.mark.parametrize("restarted", [False, True])
def test_a_trial_that_is_paused_and_resumed_has_one_mlflow_run(
    restarted: bool, store: Path, tmp_path: Path
) -> None:
    uri = f"sqlite:///{shutil.copy(store, tmp_path / 'm.db')}"
    driver = Driver(uri)
    driver.turn(0, 0.1, 0.2)
    driver.turn(1, 0.5, dies=True)
    assert _runs(uri)["1"] == ("RUNNING", {1: [0.5]})
    driver = Driver(uri) if restarted else driver
    driver.turn(0, 0.1, 0.2, 0.3, attempt=2, done=2)
    driver.turn(1, 0.5, 0.6, attempt=2, done=1)
    driver.turn(0, 0.1, 0.2, 0.3, 0.4, attempt=3, done=4)
    assert _runs(uri) == {
        "0": ("FINISHED", {1: [0.1], 2: [0.2], 3: [0.3], 4: [0.4]}),
        "1": ("FINISHED", {1: [0.5], 2: [0.6]}),
    }


def test_trials_of_another_search_with_the_same_name_have_their_own_mlflow_runs(
    store: Path, tmp_path: Path
) -> None:
    uri = f"sqlite:///{shutil.copy(store, tmp_path / 'm.db')}"
    Driver(uri).turn(0, 0.1)
    Driver(uri, "two").turn(0, 0.2, attempt=2)
    client = mlflow.MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("e").experiment_id])
    assert sorted(run.data.metrics["val_f1"] for run in runs) == [0.1, 0.2]


def test_a_worker_that_is_lost_before_it_began_is_no_error(store: Path, tmp_path: Path) -> None:
    (callback,) = callbacks(f"sqlite:///{shutil.copy(store, tmp_path / 'm.db')}", "e", search_id="one")
    config = config_of(Assignment(trial=0, recipe=RECIPE))
    callback.on_trial_error(0, [], cast(Trial, SimpleNamespace(trial_id="any", config=config)))


@pytest.mark.long
@pytest.mark.usefixtures("small_ray")
def test_an_error_of_mlflow_ends_the_search_with_one_line_and_the_search_can_be_resumed(
    tiny: Callable[..., SearchConfig], cache: Path, store: Path, tmp_path: Path
) -> None:
    run, database = tmp_path / "r", Path(shutil.copy(store, tmp_path / "m.db"))
    config = tiny(mlflow=f"sqlite:///{database}", trials=3, training__epochs=1)
    with pytest.raises(InputError) as caught:
        search.run(config, folder=run, cache=cache, reporter=Breaks(database))
    assert caught.value.code is SearchErrorCode.MLFLOW_FAILED
    assert all(words in str(caught.value) for words in ("no such table", "genre-search resume"))
    assert "\n" not in str(caught.value)
    again = load(run / "config.yaml", {"mlflow": f"sqlite:///{shutil.copy(store, tmp_path / 'other.db')}"})
    search.resume(again, folder=run, cache=cache, reporter=Display(Console(file=StringIO())))
    assert read_trials(run)["state"].tolist() == ["COMPLETE"] * 3


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("foo://bar", "got unsupported URI 'foo://bar'"),
        ("http://127.0.0.1:9", "Connection refused"),
        ("mlruns", "maintenance mode"),
    ],
)
def test_an_address_without_mlflow_is_refused_in_one_line(uri: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        require_usable(uri, "e")
    assert caught.value.code is SearchErrorCode.MLFLOW_UNREACHABLE
    assert all(text in str(caught.value) for text in (f"mlflow={uri}", words))
    assert "\n" not in str(caught.value)


def test_an_address_with_a_password_is_refused() -> None:
    with pytest.raises(InputError, match="MLFLOW_TRACKING_PASSWORD"):
        load(None, {"mlflow": "http://me:secret@host"})
