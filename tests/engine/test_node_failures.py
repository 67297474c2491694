"""A node that fails: its trials go to other workers and are not used up, its workers rest, nothing goes on for ever."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from noise import RECIPE
from ray import cloudpickle
from ray.exceptions import RayTaskError
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from safetensors import SafetensorError

from genre_core.errors import InputError
from search.engine.messages import NODE_FAILED, NOTE, NUMBER, RESTING
from search.engine.node_failures import (
    IDLE_SECONDS,
    LONGEST_REST_SECONDS,
    REST_SECONDS,
    NodeFailures,
    Verdict,
)
from search.engine.recorder import Recorder
from search.run.checkpoints import RunFolderFull, is_full
from search.run.model_store import ModelShelf
from search.run.tables import ResultsWriter
from search.study.pruners import make_pruner
from search.study.samplers import make_sampler
from search.study.study import Study
from search.tune.scheduler import StudyScheduler
from search.tune.trainable import GenreTrial


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _failures(clock: Clock, *, workers: int, retries: int = 2) -> NodeFailures:
    """Of workers called a, b, c ..., each with a trial."""
    failures = NodeFailures(workers=workers, retries=retries, clock=clock)
    for worker in "abcdefgh"[:workers]:
        failures.began(worker)
    return failures


def test_a_trial_goes_elsewhere_and_the_worker_rests(clock: Clock) -> None:
    failures = _failures(clock, workers=2)
    failures.works("b", "good")
    assert failures.failed("a", "bad", number=0) is Verdict.ELSEWHERE
    assert failures.rests("a")
    assert not failures.rested("a")
    clock.now += REST_SECONDS
    assert failures.rested("a")
    assert not failures.rests("a")


def test_a_node_that_fails_again_and_again_rests_longer_until_it_works(clock: Clock) -> None:
    failures, rests = _failures(clock, workers=2), []
    failures.works("b", "good")
    for number in (0, 1, 2, 3, 4, 5):
        began = clock.now
        assert failures.failed("a", "bad", number) is Verdict.ELSEWHERE
        while not failures.rested("a"):
            clock.now += 1
        failures.began("a")
        rests.append(clock.now - began)
        if number == 4:
            failures.works("a", "bad")
    assert rests == [60, 120, 240, 480, LONGEST_REST_SECONDS, 60]


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_bad_node_with_many_workers_uses_up_no_trial(epochs: int, clock: Clock) -> None:
    failures = _failures(clock, workers=8, retries=0)
    for _ in range(epochs):  # or the other node has not got so far
        failures.works("h", "good")
    assert {failures.failed(worker, "bad", number=0) for worker in "abcdefg"} == {Verdict.ELSEWHERE}


def test_a_trial_that_every_node_fails_comes_to_nothing(clock: Clock) -> None:
    failures = _failures(clock, workers=5, retries=1)
    for worker, node in zip("abcde", ["one", "two", "one", "two", "one"], strict=True):
        failures.works(worker, node)
    verdicts = [
        failures.failed(worker, node, 0) for worker, node in zip("abc", ["one", "two", "one"], strict=True)
    ]
    assert verdicts == [Verdict.ELSEWHERE, Verdict.ELSEWHERE, Verdict.FAIL]


def test_where_there_is_one_worker_it_tries_again_at_once_and_not_for_ever(clock: Clock) -> None:
    failures = _failures(clock, workers=1, retries=2)
    assert [failures.failed("a", "only", 0) for _ in range(3)] == [Verdict.AGAIN, Verdict.AGAIN, Verdict.FAIL]


def test_a_worker_does_not_rest_on_where_no_trial_runs(clock: Clock) -> None:
    failures = _failures(clock, workers=2)
    failures.failed("a", "bad", number=0)
    failures.ended("b")
    assert not failures.rested("a"), "the other one may get the trial in this moment"
    clock.now += IDLE_SECONDS + 1
    assert failures.rested("a")


class Told:
    """A scheduler over a study of two trials on two workers, and what it told others."""

    def __init__(self, folder: Path, *, workers: int, retries: int) -> None:
        folder.mkdir(exist_ok=True)
        sampler, pruner = make_sampler("random", {}, seed=0), make_pruner("none", {}, epochs=2)
        self.study = Study(folder / "study.journal", name="s", sampler=sampler, pruner=pruner)
        recorder = Recorder(self.study, ResultsWriter(folder), name="s", show=lambda row: None)
        self.again: list[int] = []
        self.said: list[str] = []
        self.scheduler = StudyScheduler(
            self.study,
            recorder,
            retries=retries,
            epoch_limit=60.0,
            workers=workers,
            go_on=self.again.append,
            forget=lambda number: None,
            say=self.said.append,
        )
        for number in range(2):
            self.study.ask()
            recorder.begin(number, RECIPE)
            self.scheduler.on_trial_add(cast(Any, None), _on_ray(number))

    def hear(self, number: int, node: str, **result: object) -> str:
        """A trial's worker on a node has this to tell."""
        row = {"hostname": node} | result
        return self.scheduler.on_trial_result(cast(Any, None), _on_ray(number), row)


def _on_ray(number: int) -> Trial:
    return cast(Trial, SimpleNamespace(config={NUMBER: number}, trial_id=f"ray-{number}"))


def test_a_failed_nodes_trial_is_given_out_again_and_stays_running(tmp_path: Path) -> None:
    told = Told(tmp_path, workers=2, retries=0)
    reason = "OSError: [Errno 28] No space left on device"
    assert told.hear(0, "two", **{NODE_FAILED: reason}) == TrialScheduler.CONTINUE
    assert told.hear(0, "two", **{RESTING: True}) == TrialScheduler.CONTINUE
    assert told.again == [0]
    assert told.study.state(0) == "RUNNING"
    (line,) = told.said
    assert line.startswith("two: trial 0 is given out again")
    assert reason in line


def test_a_trial_fails_with_its_nodes_reason_where_nothing_is_left_to_try(tmp_path: Path) -> None:
    told = Told(tmp_path, workers=1, retries=1)
    assert told.hear(0, "one", **{NODE_FAILED: "OSError: read-only"}) == TrialScheduler.STOP
    assert told.study.state(0) == "RUNNING"
    told.scheduler.on_trial_add(cast(Any, None), _on_ray(0))
    assert told.hear(0, "one", **{NODE_FAILED: "OSError: read-only"}) == TrialScheduler.STOP
    assert (told.study.state(0), told.study.error(0)) == ("FAIL", "OSError: read-only")


def test_a_note_of_a_node_is_said_once(tmp_path: Path) -> None:
    told = Told(tmp_path, workers=2, retries=0)
    for number in (0, 1):
        told.hear(number, "two", **{NOTE: "the disk of /cache is full", NODE_FAILED: "OSError: x"})
    assert told.said.count("two: the disk of /cache is full") == 1


FULL = (28, "No space left on device")


def _raised(folder: Path, cause: Exception) -> Trial:
    """A trial on Ray whose worker raised this."""
    error = RayTaskError("step", "a traceback", cause).as_instanceof_cause()  # type: ignore[no-untyped-call]
    (folder / "error.pkl").write_bytes(cloudpickle.dumps(error))  # type: ignore[no-untyped-call]
    (folder / "error.txt").write_text(f"Traceback\n{type(cause).__name__}: {cause}")
    trial = _on_ray(0)
    trial.pickled_error_file = str(folder / "error.pkl")  # type: ignore[misc]  # a property of Ray's
    trial.error_file = str(folder / "error.txt")  # type: ignore[misc]  # a property of Ray's
    return trial


def test_a_full_disk_ends_the_search_only_if_it_is_the_run_folders(tmp_path: Path) -> None:
    told = Told(tmp_path, workers=2, retries=1)
    told.scheduler.on_trial_error(cast(Any, None), _raised(tmp_path, OSError(*FULL)))
    assert (told.study.state(0), told.again) == ("RUNNING", [0])
    told.scheduler.on_trial_error(cast(Any, None), _raised(tmp_path, OSError(*FULL)))
    assert told.study.state(0) == "FAIL"
    again = Told(tmp_path / "again", workers=2, retries=1)
    with pytest.raises(RunFolderFull):
        again.scheduler.on_trial_error(
            cast(Any, None), _raised(tmp_path, RunFolderFull(*FULL, "runs/r/models"))
        )
    assert again.study.state(0) == "RUNNING"


@pytest.mark.parametrize(
    "error", [OSError(*FULL), SafetensorError("I/O error: No space left on device (os error 28)")]
)
def test_a_model_that_has_no_room_says_that_the_run_folder_is_full(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("search.run.model_store.write_model", fail)
    with pytest.raises(RunFolderFull) as caught:
        ModelShelf(tmp_path / "models", keep=1).offer(0, 0.5, {}, {"epoch": 1})
    assert is_full(caught.value)
    assert caught.value.filename == str(tmp_path / "models" / "trial-00000-epoch-001")


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> GenreTrial:
    """A worker without Ray, between two trials."""
    made = GenreTrial.__new__(GenreTrial)
    made._set = cast(Any, SimpleNamespace(epoch_limit=60.0))
    made._arrivals, made._note = None, None
    made._sender = cast(Any, SimpleNamespace(wait_for_copy=lambda: None, news=dict))
    made._cut_off, made._resting, made._empty = False, False, True
    made._cache = cast(Any, SimpleNamespace(trouble=lambda: "/cache cannot be used: No space left on device"))
    monkeypatch.setattr("search.tune.trainable.REST_STEP_SECONDS", 0.0)
    return made


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), InputError("no weights here")])
def test_a_worker_whose_node_fails_says_so_and_rests(
    error: Exception, worker: GenreTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: GenreTrial) -> None:
        raise error

    monkeypatch.setattr(GenreTrial, "_next_epoch", fail)
    row = worker.step()
    assert str(error) in row[NODE_FAILED]
    assert "No space left on device" in row[NOTE]
    assert worker.step() == {RESTING: True}


def test_what_another_process_raised_is_not_the_nodes_fault(
    worker: GenreTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    cause = OSError(28, "No space left on device")
    full = RayTaskError("put", "a traceback", cause).as_instanceof_cause()  # type: ignore[no-untyped-call]
    assert isinstance(full, OSError)

    def fail(_: GenreTrial) -> None:
        raise full

    monkeypatch.setattr(GenreTrial, "_next_epoch", fail)
    with pytest.raises(RayTaskError):
        worker.step()
