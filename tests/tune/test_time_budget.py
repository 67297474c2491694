"""When the time is over: trials that still ran are PRUNED, say why, and count by what they had scored."""

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from optuna.trial import TrialState
from rich.console import Console

from search.cli.progress import Display
from search.config.schema import SearchConfig, load, to_yaml
from search.engine.recorder import Recorder
from search.evaluate.finish import finish
from search.export.chosen_model import chosen_model
from search.export.export import export
from search.recovery.reconcile import reconcile
from search.recovery.unclaimed import Unclaimed
from search.report import leaderboard
from search.report.time_accounting import time_spent
from search.run import ranking
from search.run.tables import ResultsWriter, read_epochs, read_finish, read_trials
from search.study.pruners import make_pruner
from search.study.samplers import make_sampler
from search.study.study import TIME_BUDGET, Study
from search.study.suggest import sample
from search.study.warm_start import teach
from search.tune import search
from search.tune.time_budget import TimeBudget

SPACE = {"space.backbone": "resnet18", "space.frozen_blocks": 3}
CONFIG = load(None, SPACE | {"provenance": {"weights": {}}})


def _open(run: Path, sampler: str = "random", **parameters: Any) -> Study:
    return Study(
        run / "study.journal",
        name="s",
        sampler=make_sampler(sampler, parameters, seed=0),
        pruner=make_pruner("none", {}, epochs=9),
    )


def _epoch(number: int, f1: float) -> dict[str, Any]:
    """What a worker says of an epoch."""
    scores = dict.fromkeys(("val_loss", "val_accuracy", "val_precision", "val_recall", "val_f1"), f1)
    times = dict.fromkeys(("total_seconds", "seconds", "arithmetic_seconds"), 2.0 * number)
    other = dict.fromkeys(("train_loss", "learning_rate", "samples_per_second", "f1_per_genre", "confusion"))
    shape = {"trainable_parameters": 1, "features": "shared", "features_seconds": 0.0, "resident": True}
    memory = {"memory_before_bytes": 1, "peak_memory_bytes": 2, "device": "cpu", "hostname": "n", "pid": 1}
    return scores | times | other | shape | memory | {"epoch": number, "best_epoch": number}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A search as it is when its time is over: one trial has ended, one runs in its third epoch, one in its first."""
    (tmp_path / "config.yaml").write_text(to_yaml(CONFIG))
    study, screen = _open(tmp_path), StringIO()
    display = Display(Console(file=screen, width=160))
    recorder = Recorder(study, ResultsWriter(tmp_path), name="r", show=display.trial)
    for epochs in (1, 2, 0):
        number = (trial := study.ask()).number
        recorder.begin(number, sample(trial, CONFIG))
        for epoch in range(1, epochs + 1):
            f1 = 0.1 * (number + epoch)
            recorder.epoch(number, _epoch(epoch, f1))
            study.report(number, epoch=epoch, f1=f1)
            recorder.changed(number)
    study.complete(0)
    recorder.changed(0)
    search._end(recorder, study, display, interrupted=False)
    (tmp_path / "screen").write_text(screen.getvalue())
    return tmp_path


def test_what_still_ran_is_pruned_with_the_reason_in_the_study_and_in_the_table(run: Path) -> None:
    trials = _open(run).trials
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
    assert lines[-1].endswith(": 2")
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
    study = _open(run)
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
    (tmp_path / "config.yaml").write_text(to_yaml(CONFIG))
    study, screen = _open(tmp_path), Display(Console(file=StringIO()))
    recorder = Recorder(study, ResultsWriter(tmp_path), name="r", show=screen.trial)
    trial = study.ask()
    recorder.begin(trial.number, sample(trial, CONFIG))
    search._end(recorder, study, screen, interrupted=True)
    assert read_trials(tmp_path)["state"].tolist() == ["RUNNING"]
    assert _open(tmp_path).running == (0,)


def test_tables_of_a_version_without_the_column_are_read_and_mended(run: Path) -> None:
    table = run / "results" / "trials.parquet"
    pq.write_table(pq.read_table(table).drop_columns(["stopped"]), table)
    old = read_trials(run)
    assert old["stopped"].isna().tolist() == [True] * 3
    assert leaderboard.summary(old).plain.startswith("3 trials: 1 complete, 2 pruned")
    study = _open(run)
    rows = reconcile(run, CONFIG, study, ResultsWriter(run), Unclaimed(run))
    assert [row["stopped"] for row in rows] == [None] * 3, (
        "of a trial that has ended, the table has the last word"
    )


@pytest.mark.parametrize("up", [True, False])
def test_tpe_learns_from_the_curves_of_trials_that_were_cut_off(up: bool, tmp_path: Path) -> None:
    """The good end of a range is where those trials were good, though none came to its end."""
    study = _open(tmp_path, "tpe", n_startup_trials=10, n_ei_candidates=100)
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
    study = _open(tmp_path / "new")
    earlier = Earlier(folder="e", config=CONFIG, corpus=None, trials=_open(run).trials)  # type: ignore[arg-type]
    teach(study, CONFIG, [earlier], weights={"resnet18": None}, say=said.append)  # type: ignore[dict-item]
    assert study.known == {("e", 0), ("e", 1)}
    assert "1 without an epoch" in said[0]


def test_the_time_is_over_when_the_budget_is_spent_and_never_without_one() -> None:
    now, called = iter([100.0, 100.0 + 7.9, 100.0 + 8.0, 100.0 + 8.1]), []
    budget = TimeBudget(8.0, ended=lambda: called.append(1), clock=lambda: next(now))
    asked = [(budget.stop_all(), budget.over, len(called)) for _ in range(4)]
    assert asked == [(False, False, 0)] * 2 + [(True, True, 1)] * 2
    endless = TimeBudget(None, clock=iter([0.0, 1e12]).__next__)
    assert [endless.stop_all() for _ in range(2)] == [False] * 2


@pytest.mark.usefixtures("small_ray")
def test_a_search_with_only_such_trials_ends_in_order_and_its_model_is_used(
    tiny: Callable[..., SearchConfig], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "r"

    class WithEpochs(TimeBudget):
        """Over when two epochs are on record, however fast the machine is."""

        def _is_over(self, passed: float) -> bool:
            return len(read_epochs(folder)) >= 2

    monkeypatch.setattr(search, "TimeBudget", WithEpochs)
    config = tiny(time_budget="1s", pruner="none", training__epochs=500, training__patience=500, trials=4)
    screen = StringIO()
    display = Display(Console(file=screen, width=200))
    assert search.run(config, folder=folder, cache=cache, screen=display), "it came to its own end"
    first = read_trials(folder)
    assert first[["state", "stopped"]].values.tolist() == [["PRUNED", TIME_BUDGET]]
    assert first["epochs"][0] >= 2
    assert leaderboard.best_trial(folder)
    finish(load(folder / "config.yaml", {}), folder=folder, cache=cache, screen=display, top=1, seeds=1)
    assert read_finish(folder)[["trial", "epochs"]].values.tolist() == [[0, first["best_epoch"][0]]]
    assert chosen_model(folder).parent.name == "finish"
    export(folder, tmp_path / "model", trial=0, onnx=False)
    assert (tmp_path / "model" / "model.safetensors").exists()
