"""When the time is over: trials that still ran are PRUNED, say why, and count by what they had scored."""

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from unittest.mock import Mock

import pyarrow.parquet as pq
import pytest
from coordinated import CONFIG, Coordinated, open_study
from made_runs import epoch_report, make_run
from optuna.trial import TrialState
from rich.console import Console

from genre_core.models.artifact import read_card
from search.config.schema import SearchConfig
from search.display.progress import Display
from search.engine.coordinator import Coordinator
from search.engine.recorder import Recorder
from search.evaluate.finish import _best
from search.export.chosen_model import chosen_model
from search.recovery.reconcile import reconcile
from search.recovery.unclaimed import Unclaimed
from search.report import leaderboard, winner
from search.report.time_accounting import time_spent
from search.run import ranking
from search.run.tables import ResultsWriter, read_epochs, read_trials
from search.study.study import TIME_BUDGET
from search.study.suggest import sample
from search.study.warm_start import teach
from search.tune import search as launch
from search.tune.adapter import BudgetStopper


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A search whose time is over: one trial has ended, one runs in its third epoch, one in its first."""
    screen = StringIO()
    search = Coordinated(tmp_path, show=Display(Console(file=screen, width=160)).trial, workers=3)
    for worker in "abc":
        search.assign(worker)
    search.coordinator.hear("a", epoch_report(0, [0.1], finished=True))
    for scores in ([0.2], [0.2, 0.3]):
        search.coordinator.hear("b", epoch_report(1, scores))
    assert search.coordinator.end(interrupted=False) == 2
    (tmp_path / "screen").write_text(screen.getvalue())
    return tmp_path


def test_what_still_ran_is_pruned_with_the_reason_in_the_study_and_in_the_table(run: Path) -> None:
    trials = open_study(run).trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.PRUNED]
    assert [trial.user_attrs.get("stopped") for trial in trials] == [None, TIME_BUDGET, TIME_BUDGET]
    assert [trial.value for trial in trials] == [0.1, pytest.approx(0.3), None]
    rows = read_trials(run)
    assert rows["state"].tolist() == ["COMPLETE", "PRUNED", "PRUNED"]
    assert rows["stopped"].fillna("").tolist() == ["", TIME_BUDGET, TIME_BUDGET]
    assert rows["error"].isna().all()
    assert rows["finished"].notna().all()


def test_the_screen_and_the_leaderboard_say_who_ended_them(run: Path) -> None:
    lines = (run / "screen").read_text().splitlines()
    assert len([line for line in lines if "PRUNED" in line and TIME_BUDGET in line]) == 2
    summary = leaderboard.summary(read_trials(run)).plain
    assert summary.startswith("3 trials: 1 complete, 2 cut off by the time budget")
    best = ranking.select(read_trials(run)).iloc[0]
    assert (best["trial"], best["best_epoch"]) == (1, 2)


def test_they_are_not_counted_as_what_pruning_saved(run: Path) -> None:
    spent = time_spent(read_trials(run))
    assert spent.by_backbone["pruned"].sum() == 0
    assert spent.by_backbone["training"].sum() > 0
    assert spent.pruning_saved == 0


def test_a_resumed_search_keeps_them_as_they_are_and_lost_tables_are_made_again(run: Path) -> None:
    before = read_trials(run)
    (run / "results" / "trials.parquet").unlink()
    study = open_study(run)
    assert (study.running, study.ended, study.all_failed()) == ((), 3, None)
    writer = ResultsWriter(run)
    Recorder(study, writer, name="r", show=lambda row: None).take_up(
        reconcile(run, CONFIG, study, writer, Unclaimed(run))
    )
    writer.flush()
    columns = ["trial", "state", "stopped", "val_f1", "epochs"]
    after = read_trials(run)[columns]
    assert after.astype(object).equals(before[columns].astype(object))


def test_an_interrupted_search_leaves_them_running(tmp_path: Path) -> None:
    search = Coordinated(tmp_path)
    search.assign("a")
    assert search.coordinator.end(interrupted=True) == 0
    assert read_trials(tmp_path)["state"].tolist() == ["RUNNING"]
    assert open_study(tmp_path).running == (0,)


def test_tables_of_a_version_without_the_column_are_read_and_repaired(run: Path) -> None:
    table = run / "results" / "trials.parquet"
    pq.write_table(pq.read_table(table).drop_columns(["stopped"]), table)
    old = read_trials(run)
    assert old["stopped"].isna().tolist() == [True] * 3
    assert leaderboard.summary(old).plain.startswith("3 trials: 1 complete, 2 pruned")
    study = open_study(run)
    rows = reconcile(run, CONFIG, study, ResultsWriter(run), Unclaimed(run))
    assert [row.stopped for row in rows] == [None] * 3, (
        "of a trial that has ended, the table has the last word"
    )


@pytest.mark.parametrize("up", [True, False])
def test_tpe_learns_from_the_curves_of_trials_that_were_cut_off(up: bool, tmp_path: Path) -> None:
    """The good end of a range is where those trials were good, though none came to its end."""
    study = open_study(tmp_path, "tpe", n_startup_trials=10, n_ei_candidates=100)
    for _ in range(30):
        number = (trial := study.ask()).number
        momentum = sample(trial, CONFIG).momentum
        study.report(number, epoch=1, f1=momentum if up else 1 - momentum)
        study.stop(number, TIME_BUDGET)
    drawn = [sample(study.ask(), CONFIG).momentum for _ in range(10)]
    middle = (0.5 + 0.99) / 2
    assert sum((momentum > middle) == up for momentum in drawn) >= 8


def test_a_warm_start_leaves_out_what_never_scored(run: Path, tmp_path: Path) -> None:
    from search.study.warm_start import Earlier

    (tmp_path / "new").mkdir()
    said: list[str] = []
    study = open_study(tmp_path / "new")
    earlier = Earlier(folder="e", config=CONFIG, trials=open_study(run).trials)
    teach(study, CONFIG, [earlier], weights={"resnet18": None}, say=said.append)  # type: ignore[dict-item]
    assert study.known == {("e", 0), ("e", 1)}
    assert "1 without an epoch" in said[0]


def test_the_time_is_over_when_the_budget_is_spent_and_never_without_one(tmp_path: Path) -> None:
    search, spent = Coordinated(tmp_path / "limited", time_budget=8.0), Mock()
    stopper, over = BudgetStopper(search.coordinator, spent=spent), []
    for seconds in (0.0, 7.9, 0.1, 0.1):
        search.clock.now += seconds
        over.append((stopper.stop_all(), stopper.stopped, spent.call_count))
    assert over == [(False, False, 0)] * 2 + [(True, True, 1)] * 2
    endless = Coordinated(tmp_path / "endless")
    assert not endless.coordinator.budget_spent()
    endless.clock.now += 1e12
    assert not endless.coordinator.budget_spent()


def test_the_time_begins_with_the_first_question(tmp_path: Path) -> None:
    search = Coordinated(tmp_path, time_budget=8.0)
    search.clock.now += 100.0  # Ray starts
    assert not search.coordinator.budget_spent()
    search.clock.now += 8.0
    assert search.coordinator.budget_spent()


def test_a_search_with_only_such_trials_has_a_winner_to_finish_and_a_model_to_export(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", ((0.2,), (0.3,)))
    assert read_trials(run)[["state", "stopped"]].values.tolist() == [["PRUNED", TIME_BUDGET]] * 2
    assert winner.best_trial(run)
    assert [(model.trial, model.epochs) for model in _best(run)] == [(1, 1), (0, 1)]
    assert chosen_model(run).name == "trial-00001-epoch-001"


def test_a_final_model_of_such_a_trial_is_trained_up_to_its_best_epoch(run: Path) -> None:
    assert [(model.trial, model.epochs) for model in _best(run)] == [(1, 2), (0, 1)]


@pytest.mark.usefixtures("small_ray")
def test_ray_ends_a_search_whose_time_is_over_in_order(
    tiny: Callable[..., SearchConfig], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time is over when two epochs are on record, however fast the machine is."""
    folder, screen = tmp_path / "r", StringIO()
    monkeypatch.setattr(Coordinator, "budget_spent", lambda _: len(read_epochs(folder)) >= 2)
    config = tiny(time_budget="1s", pruner="none", training__epochs=500, training__patience=500, trials=4)
    display = Display(Console(file=screen, width=200))
    assert launch.run(config, folder=folder, cache=cache, reporter=display), "it came to its own end"
    trials = read_trials(folder)
    assert trials[["state", "stopped"]].values.tolist() == [["PRUNED", TIME_BUDGET]]
    assert trials["epochs"][0] >= 2
    last = screen.getvalue().splitlines()[-1]
    assert "time budget of 1 s spent" in last
    assert "epochs: 1;" in last, "how many were stopped"
    assert last.endswith(f"resume {folder} --time-budget TIME")
    assert read_card(chosen_model(folder))["epoch"] == trials["best_epoch"][0]
