"""Logging to MLflow: it agrees with the tables, and MLflow's errors become one line."""

import math
import shutil
import sqlite3
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from genre_core.errors import InputError
from search.cli.progress import Display
from search.config.schema import SearchConfig, load
from search.errors import SearchErrorCode
from search.run.schemas import TrialRow
from search.run.tables import read_epochs, read_trials
from search.tune import search
from search.tune.mlflow import callbacks

mlflow = pytest.importorskip("mlflow", reason="mlflow is an extra")
# MLflow's own tables use an option that SQLAlchemy is about to drop
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow store, which takes seconds to create."""
    file = tmp_path_factory.mktemp("mlflow") / "empty.db"
    callbacks(f"sqlite:///{file}", "none")
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
        callbacks(uri, "e")
    assert caught.value.code is SearchErrorCode.MLFLOW_UNREACHABLE
    assert all(text in str(caught.value) for text in (f"mlflow={uri}", words))
    assert "\n" not in str(caught.value)


def test_an_address_with_a_password_is_refused() -> None:
    with pytest.raises(InputError, match="MLFLOW_TRACKING_PASSWORD"):
        load(None, {"mlflow": "http://me:secret@host"})
