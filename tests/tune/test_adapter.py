"""Ray Tune's results and errors as the engine's messages, and the coordinator's decisions as Ray's."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from coordinated import CONFIG, Coordinated
from made_runs import RECIPE, epoch_report
from ray import cloudpickle
from ray.exceptions import ActorDiedError, ObjectLostError, RayActorError, RayTaskError
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher
from ray.tune.utils import flatten_dict

from search.engine.messages import (
    Assignment,
    Failure,
    NodeFailure,
    Notice,
    Report,
    Resting,
    Waiting,
)
from search.engine.ports import RemoteError
from search.run.checkpoints import RunFolderFull
from search.tune.adapter import CoordinatorScheduler, CoordinatorSearcher, loss_of
from search.tune.wire_format import assignment_of, config_of, notices_of, report_of, result_of

FULL = (28, "No space left on device")
TUNE = cast(Any, None)
"""In place of Ray's controller, which nothing asks."""


def _raised(cause: Exception) -> RayTaskError:
    """As Ray passes on what was raised in a worker."""
    error: RayTaskError = RayTaskError("step", "", cause).as_instanceof_cause()  # type: ignore[no-untyped-call]
    return error


Ended = Callable[[Exception, str], Trial]


@pytest.fixture
def ended(tmp_path: Path) -> Ended:
    """Makes a trial of Ray's that ended with this error and this traceback."""

    def make(error: Exception, traceback: str) -> Trial:
        (tmp_path / "error.pkl").write_bytes(cloudpickle.dumps(error))  # type: ignore[no-untyped-call]
        (tmp_path / "error.txt").write_text(traceback)
        files = {"pickled_error_file": str(tmp_path / "error.pkl"), "error_file": str(tmp_path / "error.txt")}
        return cast(Trial, SimpleNamespace(trial_id="a", **files))

    return make


@pytest.mark.parametrize(
    ("error", "retryable", "died", "preempted"),
    [
        (_raised(ValueError("x")), False, False, False),
        (_raised(OSError(*FULL)), True, False, False),
        (_raised(RemoteError(ValueError("x"))), False, False, False),
        (_raised(RemoteError(OSError(*FULL))), True, False, False),
        (_raised(RemoteError(ActorDiedError())), True, False, False),
        (_raised(ObjectLostError("1", None, "")), True, True, False),
        (ActorDiedError(), True, True, False),
        (RayActorError(preempted=True), True, True, True),
    ],
    ids=lambda value: getattr(value, "cause", value).__repr__()[:50],
)
def test_what_ended_a_worker_says_whether_another_may_succeed(
    error: Exception, retryable: bool, died: bool, preempted: bool, ended: Ended
) -> None:
    loss = loss_of(ended(error, "Traceback\n"))
    assert (loss.retryable, loss.died, loss.preempted) == (retryable, died, preempted)


@pytest.mark.parametrize("wrap", [lambda error: error, RemoteError], ids=["raised here", "in an actor"])
def test_a_full_disk_ends_the_search_only_if_it_is_the_run_folders(
    wrap: Callable[[Exception], Exception], ended: Ended, tmp_path: Path
) -> None:
    search = Coordinated(tmp_path / "r", retries=1)
    scheduler = CoordinatorScheduler(search.coordinator)
    search.assign("a")
    scheduler.on_trial_error(TUNE, ended(_raised(wrap(OSError(*FULL))), "OSError"))
    assert search.state(0) == ("RUNNING", None)
    assert search.assign("a").attempt == 2
    full = ended(_raised(wrap(RunFolderFull(*FULL, "runs/r/models"))), "OSError")
    with pytest.raises(RunFolderFull) as caught:
        scheduler.on_trial_error(TUNE, full)
    assert caught.value.filename == "runs/r/models"
    assert search.state(0) == ("RUNNING", None), "a resumed search continues it"


@pytest.mark.parametrize(
    ("traceback", "reason"),
    [
        ("Traceback\n  step\nray.exceptions.ActorDiedError: it died\n", "ActorDiedError: it died"),
        ("Traceback\nValueError: at 3.5: no such. file: x", "ValueError: at 3.5: no such. file: x"),
        ("  \n", "the worker ended without an error message"),
    ],
)
def test_the_reason_is_the_last_line_of_the_traceback(traceback: str, reason: str, ended: Ended) -> None:
    assert loss_of(ended(ActorDiedError(), traceback)).reason == reason


@pytest.mark.parametrize(
    "report",
    [
        epoch_report(3, [0.5, 0.25], attempt=2, finished=True),
        epoch_report(3, [0.5, 0.25], replayed=True),
        Failure(reason="Diverged"),
        NodeFailure(node="two", reason="OSError"),
        Waiting(reason="GPU memory"),
        Resting(),
    ],
    ids=lambda report: type(report).__name__,
)
def test_a_report_is_the_same_after_its_way_through_ray(report: Report) -> None:
    notices = [Notice(text="the disk of /cache is full", key="disk")]
    result = flatten_dict(result_of(report, notices) | {"training_iteration": 1, "config": {"a": 1}})
    assert "done" not in result, "Ray would end the trial without asking the scheduler"
    assert (report_of(result), notices_of(result)) == (report, notices)


def test_an_assignment_is_the_same_after_its_way_through_ray() -> None:
    assignment = Assignment(trial=7, recipe=RECIPE, attempt=2, epochs=3, paused=(1, 4))
    assert assignment_of(config_of(assignment)) == assignment


def test_the_scheduler_does_what_the_coordinator_decides(tmp_path: Path) -> None:
    search = Coordinated(tmp_path)
    scheduler, search_alg = CoordinatorScheduler(search.coordinator), CoordinatorSearcher(search.coordinator)
    config = search_alg.suggest("a")
    assert isinstance(config, dict)
    assert assignment_of(config).trial == 0
    on_ray = cast(Trial, SimpleNamespace(trial_id="a"))
    notices = [Notice(text="the disk of /cache is full")]
    reports = [epoch_report(0, [0.1]), epoch_report(0, [0.1, 0.2], finished=True)]
    decisions = [scheduler.on_trial_result(TUNE, on_ray, result_of(report, notices)) for report in reports]
    assert decisions == [TrialScheduler.CONTINUE, TrialScheduler.STOP]
    assert search.said == ["the disk of /cache is full"]
    assert search.study.state(0) == "COMPLETE"


def test_the_searcher_has_nothing_while_all_workers_are_busy_and_is_finished_at_the_end(
    tmp_path: Path,
) -> None:
    search = Coordinated(tmp_path, CONFIG.model_copy(update={"trials": 1}))
    search_alg = CoordinatorSearcher(search.coordinator)
    assert isinstance(search_alg.suggest("a"), dict)
    assert search_alg.suggest("b") is None
    search.coordinator.hear("a", Failure(reason="Diverged"))
    assert search_alg.suggest("b") == Searcher.FINISHED
