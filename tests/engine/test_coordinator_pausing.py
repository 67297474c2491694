"""Decisions of the coordinator of a search that pauses trials, and its budgets."""

from pathlib import Path
from typing import Any

import pytest
from coordinated import CONFIG, Coordinated
from made_runs import epoch_report
from optuna.samplers import RandomSampler
from optuna.trial import TrialState
from pausing import PauseAfter, Scripted

from genre_core.recipe import state_bytes
from search.engine.messages import (
    Decision,
    Failure,
    Finished,
    Lost,
    New,
    Nothing,
    Resume,
    Wait,
    Waiting,
)
from search.run.tables import read_epochs, read_trials
from search.study.study import CHECKPOINT_BUDGET, TIME_BUDGET, WORKER_BUDGET, Study

SIZE = 1000 * state_bytes("sgd")
"""Estimated bytes of a checkpoint: `epoch_report` says that 1000 parameters are trainable."""


def pausing(
    folder: Path, *after: tuple[int, int], strategy: Scripted | None = None, trials: int = 9, **limits: Any
) -> Coordinated:
    """A search that pauses after these (trial, epoch), new or resumed."""
    folder.mkdir(exist_ok=True)
    study = Study(
        folder / "study.journal", name=folder.name, sampler=RandomSampler(seed=0), pruner=PauseAfter(*after)
    )
    config = CONFIG.model_copy(update={"trials": trials})
    return Coordinated(folder, config, study=study, strategy=strategy or Scripted(), **limits)


def pause(search: Coordinated, worker: str, trial: int) -> None:
    """A worker trains the first epoch of a new trial, which is then paused."""
    assert search.assign(worker).trial == trial
    assert search.coordinator.hear(worker, epoch_report(trial, [0.1])) is Decision.PAUSE


def test_a_checkpoint_of_adamw_is_half_as_large_again(tmp_path: Path) -> None:
    sizes = {}
    for optimizer in ("sgd", "adamw"):
        config = CONFIG.model_copy(update={"space": CONFIG.space.model_copy(update={"optimizer": optimizer})})
        search = Coordinated(tmp_path / optimizer, config)
        search.assign("a")
        search.coordinator.hear("a", epoch_report(0, [0.5]))
        sizes[optimizer] = search.coordinator._recorder.checkpoint_bytes(0)
    assert sizes["adamw"] == 1.5 * sizes["sgd"] > 0


def test_a_paused_trial_stays_running_and_continues_on_another_worker(tmp_path: Path) -> None:
    search = pausing(tmp_path, (0, 1), strategy=Scripted(New(), New(), Resume(0)))
    pause(search, "a", 0)
    assert (search.study.running, search.coordinator.paused) == ((0,), frozenset({0}))
    assert not search.forgotten
    assert search.state(0) == ("RUNNING", None)
    assert search.assign("a").trial == 1, "the worker is free"
    resumed = search.assign("b")
    assert (resumed.trial, resumed.attempt, resumed.may_have_checkpoint) == (0, 2, True)
    assert resumed.epochs == 1
    assert not search.coordinator.paused
    replayed = epoch_report(0, [0.1], attempt=2, node="two", replayed=True)
    assert search.coordinator.hear("b", replayed) is Decision.CONTINUE, "it would pause here again"
    assert search.coordinator.hear("b", epoch_report(0, [0.1, 0.2], attempt=2)) is Decision.CONTINUE
    last = epoch_report(0, [0.1, 0.2, 0.3], attempt=2, finished=True)
    assert search.coordinator.hear("b", last) is Decision.STOP
    assert search.state(0) == ("COMPLETE", None)
    search.coordinator.end(interrupted=True)
    row = read_trials(tmp_path).iloc[0]
    assert (row["state"], row["attempt"], row["epochs"], row["repeated_epochs"]) == ("COMPLETE", 2, 3, 0)
    assert read_epochs(tmp_path)[["trial", "epoch", "attempt"]].values.tolist()[:3] == [
        [0, 1, 1],
        [0, 2, 2],
        [0, 3, 2],
    ]


def test_a_trial_without_its_checkpoint_starts_over_and_is_not_paused_at_an_epoch_that_it_had(
    tmp_path: Path,
) -> None:
    search = pausing(tmp_path, (0, 2), strategy=Scripted(New(), Resume(0)))
    search.assign("a")
    search.coordinator.hear("a", epoch_report(0, [0.1]))
    assert search.coordinator.hear("a", epoch_report(0, [0.1, 0.2])) is Decision.PAUSE
    search.assign("b")
    for scores in ([0.1], [0.1, 0.2], [0.1, 0.2, 0.3]):
        assert search.coordinator.hear("b", epoch_report(0, scores, attempt=2)) is Decision.CONTINUE
    assert search.study.of_optuna.pruner.asked == [(0, 1), (0, 2), (0, 3)]  # type: ignore[attr-defined]
    search.coordinator.end(interrupted=True)
    assert read_trials(tmp_path)["repeated_epochs"].tolist() == [2]


def test_the_strategy_is_asked_with_what_is_paused_and_busy_and_requeued_trials_come_first(
    tmp_path: Path,
) -> None:
    strategy = Scripted()
    search = pausing(tmp_path, (0, 1), strategy=strategy, trials=2, retries=1, workers=3)
    pause(search, "a", 0)
    assert search.assign("a").trial == 1
    search.coordinator.lost("a", Lost(reason="killed"))
    assert search.assign("b").trial == 1, "the trial of the lost worker"
    assert search.assign("c").trial == 0
    assert strategy.asked == [((), (), True), ((0,), (), True), ((0,), (1,), False)]


def test_the_last_epoch_is_not_followed_by_a_pause(tmp_path: Path) -> None:
    search = pausing(tmp_path, (0, 1))
    search.assign("a")
    assert search.coordinator.hear("a", epoch_report(0, [0.1], finished=True)) is Decision.STOP
    assert search.state(0) == ("COMPLETE", None)


def test_when_nothing_is_worth_its_cost_workers_wait_for_others_and_are_finished_after_them(
    tmp_path: Path,
) -> None:
    strategy = Scripted(New(), New(), Nothing(), Nothing(), Nothing())
    search = pausing(tmp_path, (0, 1), strategy=strategy)
    pause(search, "a", 0)
    search.assign("b")
    for _ in range(3):
        assert isinstance(search.coordinator.next_for("a"), Wait)
    search.coordinator.hear("b", Waiting(reason="GPU memory"))
    assert isinstance(search.coordinator.next_for("a"), Wait)
    assert len(strategy.asked) == 3, "it is asked again only after a report that it can learn from"
    search.coordinator.hear("b", epoch_report(1, [0.3]))
    assert isinstance(search.coordinator.next_for("a"), Wait)
    assert len(strategy.asked) == 4
    before = search.coordinator.finished
    search.coordinator.hear("b", epoch_report(1, [0.3, 0.4], finished=True))
    assert isinstance(search.coordinator.next_for("a"), Finished)
    assert (before, search.coordinator.finished) == (False, True)
    assert search.coordinator.end(interrupted=False) == 0
    assert search.state(0) == ("PRUNED", None)
    assert search.study.stopped(0) is None
    assert search.study.trials[0].value == 0.1
    assert search.forgotten == [1, 0]
    trials = read_trials(tmp_path)
    assert trials[["state", "epochs"]].values.tolist() == [["PRUNED", 1], ["COMPLETE", 2]]
    assert trials["finished"].notna().all()


def test_a_loss_makes_the_strategy_think_again(tmp_path: Path) -> None:
    strategy = Scripted(New(), Nothing())
    search = pausing(tmp_path, strategy=strategy)
    search.assign("a")
    assert isinstance(search.coordinator.next_for("b"), Wait)
    search.coordinator.hear("a", Failure(reason="Diverged"))
    assert search.assign("b").trial == 1


def test_without_checkpoints_a_pause_is_a_prune(tmp_path: Path) -> None:
    search = pausing(tmp_path, (0, 1), checkpoint_bytes=0)
    search.assign("a")
    assert search.coordinator.hear("a", epoch_report(0, [0.1])) is Decision.STOP
    assert (search.state(0), search.study.stopped(0)) == (("PRUNED", None), None)
    assert search.forgotten == [0]


def test_paused_trials_are_given_up_until_the_checkpoints_fit_into_their_budget(tmp_path: Path) -> None:
    strategy = Scripted(*[New()] * 4, gives_up=(1, 0, 2))
    search = pausing(
        tmp_path, (0, 1), (1, 1), (2, 1), strategy=strategy, workers=1, checkpoint_bytes=2 * SIZE
    )
    pause(search, "a", 0)
    pause(search, "a", 1)
    assert search.coordinator.paused == {0, 1}
    assert search.assign("a").trial == 2
    assert search.coordinator.paused == {0}, "the new trial's checkpoint needs as much space"
    assert search.study.stopped(1) == CHECKPOINT_BUDGET
    assert search.coordinator.hear("a", epoch_report(2, [0.1])) is Decision.PAUSE
    assert search.coordinator.paused == {0, 2}
    assert search.forgotten == [1]
    search.coordinator.end(interrupted=False)
    rows = read_trials(tmp_path)
    assert rows["state"].tolist() == ["PRUNED"] * 3
    assert rows["stopped"].fillna("").tolist() == ["", CHECKPOINT_BUDGET, ""]


def test_after_an_interrupt_trials_with_epochs_are_paused_and_those_without_are_assigned_again(
    tmp_path: Path,
) -> None:
    search = pausing(tmp_path, (0, 1), workers=3)
    pause(search, "a", 0)
    for worker in "abc":
        search.assign(worker)
    search.coordinator.hear("a", epoch_report(1, [0.2]))
    assert search.coordinator.end(interrupted=True) == 0
    assert search.study.running == (0, 1, 2, 3)
    strategy = Scripted(Resume(1))
    resumed = pausing(tmp_path, strategy=strategy, workers=4)
    assert resumed.coordinator.paused == {0, 1}
    assert [resumed.assign(worker).trial for worker in "abc"] == [2, 3, 1]
    assert strategy.asked == [((0, 1), (2, 3), True)]


def test_without_checkpoints_every_interrupted_trial_is_assigned_again(tmp_path: Path) -> None:
    search = pausing(tmp_path, workers=3)
    search.assign("a")
    search.coordinator.hear("a", epoch_report(0, [0.2]))
    search.coordinator.end(interrupted=True)
    resumed = pausing(tmp_path, checkpoint_bytes=0)
    assert not resumed.coordinator.paused
    assert resumed.assign("a").trial == 0


@pytest.mark.parametrize(
    ("budget", "seconds", "reason"),
    [("time_budget", 10.0, TIME_BUDGET), ("worker_budget", 25.0, WORKER_BUDGET)],
)
def test_at_the_end_of_a_budget_running_trials_say_why_they_were_stopped_and_paused_ones_are_pruned(
    budget: str, seconds: float, reason: str, tmp_path: Path
) -> None:
    limits: dict[str, Any] = {budget: seconds}
    search = pausing(tmp_path, (0, 1), workers=2, **limits)
    assert not search.coordinator.budget_spent()
    pause(search, "a", 0)
    search.assign("a"), search.assign("b")
    search.coordinator.hear("a", epoch_report(1, [0.1]))
    search.clock.now += 12.5
    assert search.coordinator.spent == 25.0
    assert search.coordinator.spent_budget() == reason
    search.clock.now += 100.0
    assert search.coordinator.end(interrupted=False) == 2
    assert [search.study.stopped(number) for number in range(3)] == [None, reason, reason]
    trials = search.study.trials
    assert [trial.state for trial in trials] == [TrialState.PRUNED] * 3
    assert [trial.value for trial in trials] == [0.1, 0.1, None]


def test_worker_time_is_counted_while_a_worker_holds_a_trial(tmp_path: Path) -> None:
    search = pausing(tmp_path, (0, 1), strategy=Scripted(New(), New(), Nothing()), retries=1)
    search.assign("a")
    search.clock.now += 5.0
    assert search.coordinator.spent == 5.0
    search.coordinator.hear("a", epoch_report(0, [0.1]))
    search.clock.now += 100.0
    assert search.coordinator.spent == 5.0, "a paused trial has no worker"
    search.assign("a")
    search.clock.now += 2.0
    search.coordinator.lost("a", Lost(reason="killed"))
    search.clock.now += 100.0
    assert search.coordinator.spent == 7.0
    search.coordinator.end(interrupted=True)
    resumed = pausing(tmp_path)
    assert resumed.coordinator.spent == 1.0, "what the rows say: an epoch of a second"


def test_an_assignment_says_which_trials_are_paused_and_how_far_its_own_is(tmp_path: Path) -> None:
    search = pausing(tmp_path, (0, 1), (1, 1), strategy=Scripted(New(), New(), New(), Resume(1)), workers=3)
    pause(search, "a", 0)
    pause(search, "a", 1)
    new, resumed = search.assign("a"), search.assign("b")
    assert (new.trial, new.epochs, new.paused) == (2, 0, (0, 1))
    assert (resumed.trial, resumed.epochs, resumed.paused) == (1, 1, (0,))


def test_a_trial_resumed_from_memory_reports_its_next_epoch_and_may_pause_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = pausing(tmp_path, (0, 1), (0, 2), strategy=Scripted(New(), Resume(0), Resume(0)))
    pause(search, "a", 0)
    search.assign("a")
    monkeypatch.setattr(search.costs, "turn", lambda *_, **__: pytest.fail("no checkpoint was read"))
    assert search.coordinator.hear("a", epoch_report(0, [0.1, 0.2], attempt=2)) is Decision.PAUSE
    assert search.assign("a").epochs == 2
    last = epoch_report(0, [0.1, 0.2, 0.3], attempt=3, finished=True)
    assert search.coordinator.hear("a", last) is Decision.STOP
    search.coordinator.end(interrupted=True)
    row = read_trials(tmp_path).iloc[0]
    assert (row["epochs"], row["attempt"], row["pauses"], row["repeated_epochs"]) == (3, 3, 2, 0)


def test_the_time_that_decisions_about_a_trial_take_is_recorded(tmp_path: Path) -> None:
    search = pausing(tmp_path, (0, 1), strategy=Scripted(New(), Resume(0)))
    ticks = iter(range(100))
    search.coordinator._timer = lambda: float(next(ticks))
    pause(search, "a", 0)
    search.assign("a")
    search.coordinator.hear("a", epoch_report(0, [0.1], attempt=2, replayed=True))
    search.coordinator.hear("a", epoch_report(0, [0.1, 0.2], attempt=2))
    search.coordinator.end(interrupted=True)
    assert read_trials(tmp_path)["decision_seconds"].tolist() == [4.0], (
        "sampling it, pausing it, resuming it and not pausing it again took a second each"
    )
