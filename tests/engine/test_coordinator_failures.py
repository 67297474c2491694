"""Decisions of the coordinator after failures of fine-tunes, workers and nodes."""

from pathlib import Path

import pytest
from coordinated import CONFIG, Coordinated
from made_runs import epoch_report

from search.engine.coordinator import REASON_CHARACTERS
from search.engine.messages import (
    Decision,
    Failure,
    Finished,
    Lost,
    NodeFailure,
    Notice,
    Resting,
    Wait,
    Waiting,
)
from search.engine.node_failures import REST_SECONDS
from search.run.tables import read_epochs, read_trials

FULL = NodeFailure(node="two", reason="OSError: [Errno 28] No space left on device")


def test_a_failed_nodes_trial_is_requeued_while_its_worker_rests(tmp_path: Path) -> None:
    search = Coordinated(tmp_path)
    assert (search.assign("a").trial, search.assign("b").trial) == (0, 1)
    assert search.coordinator.hear("a", FULL) is Decision.CONTINUE
    assert search.coordinator.hear("a", Resting()) is Decision.CONTINUE
    assert search.state(0) == ("RUNNING", None)
    assert isinstance(search.coordinator.next_for("c"), Wait), "a resting worker keeps its slot"
    assert search.coordinator.hear("b", Failure(reason="Diverged")) is Decision.STOP
    requeued = search.assign("c")
    assert (requeued.trial, requeued.attempt, requeued.may_have_checkpoint) == (0, 2, True)
    search.clock.now += REST_SECONDS
    assert search.coordinator.hear("a", Resting()) is Decision.STOP
    assert search.assign("d").trial == 2, "the slot of the rested worker is free"
    (line,) = search.said
    assert "two: trial 0" in line
    assert FULL.reason in line


def test_a_trial_fails_with_the_reason_of_its_node_once_retries_are_used_up(tmp_path: Path) -> None:
    search = Coordinated(tmp_path, workers=1, retries=1)
    for state in ("RUNNING", None), ("FAIL", FULL.reason):
        assert search.assign("a").trial == 0
        assert search.coordinator.hear("a", FULL) is Decision.STOP
        assert search.state(0) == state
    assert search.forgotten == [0]
    assert search.assign("a").trial == 1


def test_a_resting_worker_that_dies_frees_its_slot_without_affecting_its_former_trial(tmp_path: Path) -> None:
    search = Coordinated(tmp_path)
    search.assign("a"), search.assign("b")
    search.coordinator.hear("a", FULL)
    search.coordinator.lost("a", Lost(reason="died"))
    assert search.state(0) == ("RUNNING", None)
    assert search.assign("c").trial == 0
    assert isinstance(search.coordinator.next_for("d"), Wait), "the trial was requeued only once"


def test_a_notice_is_shown_once_per_key(tmp_path: Path) -> None:
    search = Coordinated(tmp_path)
    for text, key in [
        ("trial 4", "budget"),
        ("trial 5", "budget"),
        ("trial 5", "disk"),
        ("x", ""),
        ("x", ""),
    ]:
        search.coordinator.notice(Notice(text=text, key=key))
    assert search.said == ["trial 4", "trial 5", "x"]


@pytest.mark.parametrize(
    ("losses", "retries", "state"),
    [
        ([Lost(reason="killed")], 0, ("FAIL", "killed")),
        ([Lost(reason="killed")], 1, ("RUNNING", None)),
        ([Lost(reason="killed"), Lost(reason="again")], 1, ("FAIL", "again")),
        ([Lost(reason="gone", preempted=True)] * 3, 0, ("RUNNING", None)),
        ([Lost(reason="gone", preempted=True), Lost(reason="killed")], 0, ("FAIL", "killed")),
        ([Lost(reason="TypeError: x", retryable=False, died=False)], 9, ("FAIL", "TypeError: x")),
        ([Lost(reason="OSError: x", died=False)], 1, ("RUNNING", None)),
    ],
)
def test_a_lost_workers_trial_is_requeued_as_often_as_retries_allow(
    losses: list[Lost], retries: int, state: tuple[str, str | None], tmp_path: Path
) -> None:
    search = Coordinated(tmp_path, workers=1, retries=retries)
    for attempt, loss in enumerate(losses, 1):
        assignment = search.assign("a")
        assert (assignment.trial, assignment.attempt) == (0, attempt)
        search.coordinator.lost("a", loss)
    assert search.state(0) == state
    assert search.assign("a").trial == (0 if state == ("RUNNING", None) else 1)
    assert search.forgotten == ([] if state == ("RUNNING", None) else [0])


@pytest.mark.parametrize(
    ("silent_seconds", "died", "hung"),
    [(61.0, True, True), (59.0, True, False), (61.0, False, False)],
)
def test_a_worker_that_dies_after_a_long_silence_was_hanging(
    silent_seconds: float, died: bool, hung: bool, tmp_path: Path
) -> None:
    search = Coordinated(tmp_path, epoch_limit=60.0)
    search.assign("a")
    search.clock.now += 500.0
    search.coordinator.hear("a", Waiting(reason="GPU memory"))  # does not count as hanging
    search.clock.now += silent_seconds
    search.coordinator.lost("a", Lost(reason="the process ended", died=died))
    state, error = search.state(0)
    assert state == "FAIL"
    assert ("epoch_limit, 60 s" in str(error)) == hung
    assert ("the process ended" in str(error)) != hung


def test_a_fine_tune_that_fails_is_recorded_with_a_short_reason_and_the_search_continues(
    tmp_path: Path,
) -> None:
    search = Coordinated(tmp_path)
    search.assign("a")
    search.coordinator.hear("a", epoch_report(0, [0.3]))
    reason = "Diverged: its loss is not finite " + "x " * 1000
    assert search.coordinator.hear("a", Failure(reason=reason)) is Decision.STOP
    state, error = search.state(0)
    assert state == "FAIL"
    assert str(error).startswith("Diverged: its loss is not finite")
    assert len(str(error)) <= REASON_CHARACTERS
    assert search.assign("a").trial == 1
    search.coordinator.end(interrupted=True)
    assert read_trials(tmp_path)[["state", "error"]].iloc[0].tolist() == ["FAIL", error]
    assert read_epochs(tmp_path)["val_f1"].tolist() == [0.3]


def test_a_search_is_not_finished_while_the_worker_of_its_last_trial_may_be_lost(tmp_path: Path) -> None:
    search = Coordinated(tmp_path, CONFIG.model_copy(update={"trials": 1}), retries=1)
    search.assign("a")
    assert isinstance(search.coordinator.next_for("b"), Wait)
    search.coordinator.lost("a", Lost(reason="killed"))
    assert search.assign("b").attempt == 2
    assert search.coordinator.hear("b", epoch_report(0, [0.3], attempt=2, finished=True)) is Decision.STOP
    assert isinstance(search.coordinator.next_for("a"), Finished)


@pytest.mark.parametrize(("replayed", "repeated"), [(True, 0), (False, 1)])
def test_an_epoch_computed_again_is_counted_and_not_written_twice(
    replayed: bool, repeated: int, tmp_path: Path
) -> None:
    search = Coordinated(tmp_path, retries=1)
    search.assign("a")
    search.coordinator.hear("a", epoch_report(0, [0.3]))
    search.coordinator.lost("a", Lost(reason="killed"))
    search.assign("b")
    again = epoch_report(0, [0.3], attempt=2, node="other", replayed=replayed)
    assert search.coordinator.hear("b", again) is Decision.CONTINUE
    search.coordinator.hear("b", epoch_report(0, [0.3, 0.4], attempt=2, node="other"))
    search.coordinator.end(interrupted=True)
    row = read_trials(tmp_path).iloc[0]
    assert (row["repeated_epochs"], row["attempt"], row["node"], row["epochs"]) == (repeated, 2, "other", 2)
    assert read_epochs(tmp_path)[["epoch", "attempt"]].values.tolist() == [[1, 1], [2, 2]]
