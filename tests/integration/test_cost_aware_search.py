"""A cost-aware search: its study and its tables agree while it runs and at its end, and trials change their workers."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unittest.mock import patch

import optuna
import pyarrow.parquet as pq
import pytest
from fakes import AnalyticTrainer, Clock
from invariants import check, examine
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from pausing import Elsewhere, PauseAfter
from reporters import unseen_display
from rich.console import Console
from without_ray import searches_in_process

from search.config.schema import SearchConfig, load
from search.cost_aware.cost import Cost
from search.display.progress import Display
from search.engine.coordinator import Coordinator
from search.engine.costs import Costs
from search.engine.ports import Strategy
from search.run.schemas import TrialRow
from search.run.tables import read_trials
from search.study.study import WORKER_BUDGET, Study
from search.tune import search

TRIALS, KEEP_MODELS = 8, 2
Make = Callable[..., SearchConfig]


def slow_searches(*, reports: int | None = None) -> AbstractContextManager[None]:
    """Searches in this process whose epochs take a second each, so that it is worth while to pause trials."""
    clock = Clock()
    return searches_in_process(lambda _: AnalyticTrainer(clock=clock), reports=reports, clock=clock)


def _compare(run: Path) -> list[dict[str, Any]]:
    """Compare the study with the tables, both read without this project; returns the rows of the trials."""
    storage = JournalStorage(JournalFileBackend(str(run / "study.journal")))
    study = optuna.load_study(study_name="r", storage=storage)
    rows: list[dict[str, Any]] = pq.read_table(run / "results" / "trials.parquet").to_pylist()
    assert [row["trial"] for row in rows] == [trial.number for trial in study.trials]
    for row, trial in zip(rows, study.trials, strict=True):
        file = run / "results" / "epochs" / f"trial-{trial.number:05d}.parquet"
        epochs = pq.read_table(file).to_pylist() if file.exists() else []
        assert {epoch["epoch"]: epoch["val_f1"] for epoch in epochs} == trial.intermediate_values
        assert [epoch["epoch"] for epoch in epochs] == list(range(1, row["epochs"] + 1))
        assert row["state"] == trial.state.name
        assert (row["learning_rate"], row["momentum"]) == (
            trial.params["learning_rate"],
            trial.params["momentum"],
        )
        assert row["pauses"] <= min(row["attempt"], row["epochs"])
        if trial.state is TrialState.COMPLETE:
            assert trial.value == row["val_f1"] == max(trial.intermediate_values.values())
        if trial.state is TrialState.PRUNED:
            assert trial.value == (epochs[-1]["val_f1"] if epochs else None)
    return rows


class States(Display):
    """Remembers every state that a trial was shown in."""

    def __init__(self) -> None:
        super().__init__(Console(file=StringIO()))
        self.seen: defaultdict[int, set[str]] = defaultdict(set)

    def trial(self, row: TrialRow) -> None:
        """Remember it."""
        self.seen[row.trial].add(row.state)
        super().trial(row)

    @property
    def promoted(self) -> bool:
        """Whether a trial that was paused came to its own end."""
        return any({"PAUSED", "COMPLETE"} <= states for states in self.seen.values())


def test_the_study_and_the_tables_of_the_default_search_agree_by_trial_and_epoch(
    tiny: Make, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(
        trials=TRIALS,
        training__epochs=5,
        worker_budget="10h",  # far more than it needs
        workers=2,
        keep_models=KEEP_MODELS,
        space__backbone=["resnet18", "alexnet"],
        space__frozen_blocks={"low": 0, "high": "all"},
        segment_seconds=3.0,
    )
    assert config.search == "cost_aware"
    # times measured on this machine would make the choices differ from run to run
    monkeypatch.setattr(Costs, "of", lambda *_, **__: Cost(start=0.1, epoch=1.0, switch=0.01))
    run = tmp_path / "r"
    states = States()
    monkeypatch.setattr(
        Coordinator,
        "spent_budget",
        lambda self: WORKER_BUDGET if states.promoted and self.paused else None,
    )
    with slow_searches(reports=12):
        assert not search.run(config, folder=run, cache=cache, reporter=states), "it was interrupted"
    running = [row for row in _compare(run) if row["state"] == "RUNNING"]
    assert any(row["pauses"] == row["attempt"] for row in running), "one is paused"
    with slow_searches():
        resumed = search.resume(load(run / "config.yaml", {}), folder=run, cache=cache, reporter=states)
        assert resumed, "its budget was spent"
    rows = _compare(run)
    check(run, trials=len(rows), keep_models=KEEP_MODELS)
    assert {row["state"] for row in rows} == {"COMPLETE", "PRUNED"}
    assert any(row["state"] == "COMPLETE" and row["pauses"] for row in rows), "one was promoted"
    stayed = [row for row in rows if row["state"] == "PRUNED" and row["stopped"] is None]
    assert any(row["pauses"] for row in stayed), "one stayed paused"
    assert all(row["decision_seconds"] > 0 for row in rows)
    assert {row["stopped"] for row in rows} <= {None, WORKER_BUDGET}


def test_a_search_whose_worker_budget_was_spent_before_says_so_and_how_to_continue(
    tiny: Make, cache: Path, tmp_path: Path
) -> None:
    run, screen = tmp_path / "r", StringIO()
    with slow_searches(reports=6):
        search.run(tiny(trials=4, training__epochs=4), folder=run, cache=cache, reporter=unseen_display())
    before = _compare(run)
    spent = load(run / "config.yaml", {"worker_budget": "2s"})
    with slow_searches(), patch.object(search, "_tune", lambda *_: pytest.fail("a worker was started")):
        assert search.resume(
            spent, folder=run, cache=cache, reporter=Display(Console(file=screen, width=200))
        )
    last = screen.getvalue().splitlines()[-1]
    assert "worker budget of 2 s spent" in last
    assert last.endswith(f"resume {run} --budget TIME")
    after = _compare(run)
    assert [row["epochs"] for row in after] == [row["epochs"] for row in before]
    assert "RUNNING" not in {row["state"] for row in after}


@pytest.mark.usefixtures("small_ray")
def test_with_ray_a_paused_trial_continues_on_another_worker(
    tiny: Make, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def strategy(config: SearchConfig, study: Study, *_: object, **__: object) -> Strategy:
        study.use(study.of_optuna.sampler, PauseAfter((0, 1), (1, 1)))
        return Elsewhere()

    pids: defaultdict[int, set[int]] = defaultdict(set)

    class Seen(Display):
        def trial(self, row: TrialRow) -> None:
            """Remember the worker, too."""
            pids[row.trial] |= {row.pid} if row.pid else set()
            super().trial(row)

        def take_up(
            self, rows: Sequence[TrialRow], curves: Mapping[int, Mapping[int, float]] = MappingProxyType({})
        ) -> None:
            """Nothing was there before."""
            raise AssertionError(rows)

    monkeypatch.setattr(search, "_strategy", strategy)
    run = tmp_path / "r"
    config = tiny(
        trials=3,
        workers=2,
        space__frozen_blocks=5,
        keep_models=KEEP_MODELS,
        enqueue=[{"learning_rate": 0.011}, {"learning_rate": 0.012}],
    )
    assert search.run(config, folder=run, cache=cache, reporter=Seen(Console(file=StringIO())))
    check(run, trials=3, keep_models=KEEP_MODELS)
    rows = read_trials(run).set_index("trial").sort_index()
    assert rows["learning_rate"].tolist()[:2] == [0.011, 0.012], "the enqueued ones come first"
    assert rows["state"].tolist() == ["COMPLETE"] * 3
    assert rows["attempt"].tolist() == [2, 2, 1]
    assert rows["pauses"].tolist() == [1, 1, 0]
    assert rows["epochs"].tolist() == [3] * 3
    assert (rows["repeated_epochs"] <= 1).all(), "even if its checkpoint was still on its way"
    assert max(len(pids[number]) for number in (0, 1)) == 2, "one continued on another worker"


def test_examine_sees_a_paused_trial_as_running(tiny: Make, cache: Path, tmp_path: Path) -> None:
    with slow_searches(reports=6):
        search.run(
            tiny(trials=4, training__epochs=4, workers=2),
            folder=tmp_path / "r",
            cache=cache,
            reporter=unseen_display(),
        )
    found = examine(tmp_path / "r", keep_models=3)
    assert found.zombies > 0
    assert found.rows_lost == found.rows_doubled == found.disagreements == 0, found.words
