"""A worker's session without Ray: epochs, checkpoints, restoring, every rung of the memory policy, waiting."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import (
    DATA_BYTES,
    DIVERGED,
    FROZEN,
    OUT_OF_MEMORY,
    AnalyticTrainer,
    Clock,
    Ledger,
    LocalCheckpoints,
    PatientWatchdog,
    analytic_f1,
)
from noise import RECIPE

from genre_core.errors import ErrorCode, InputError
from genre_core.models.artifact import read_card, read_tensors
from search.engine.gpu_demand import CONTEXT_BYTES
from search.engine.messages import Assignment, EpochReport, Failure, NodeFailure, Report, Resting, Waiting
from search.engine.ports import Arrays, OutOfMemory, RemoteError
from search.engine.worker import MOST_WARM, WorkerSession
from search.run.checkpoints import clear_checkpoints
from search.run.model_store import ModelStore, kept_models


class Worker:
    """A session with all that surrounds it."""

    def __init__(
        self,
        folder: Path,
        *,
        ledger: Ledger | None = None,
        can_stream: bool = False,
        budget: int = 10**9,
        models: ModelStore | None = None,
    ) -> None:
        clear_checkpoints(folder / "checkpoints", keep=range(20))
        (folder / "models").mkdir(exist_ok=True)
        self.clock, self.watchdog = Clock(), PatientWatchdog()
        self.trainer = AnalyticTrainer(can_stream=can_stream, clock=self.clock)
        self.ledger = ledger
        self.session = WorkerSession(
            self.trainer,
            node="node",
            pid=11,
            watchdog=self.watchdog,
            models=models or ModelStore(folder / "models", keep=1),
            checkpoints=LocalCheckpoints.in_folder(folder / "checkpoints", budget),
            ledger=ledger,
            clock=self.clock,
            sleep=self.clock.sleep,
        )

    def begin(
        self,
        trial: int = 7,
        *,
        epochs: int = 3,
        attempt: int = 1,
        done: int = 0,
        paused: Sequence[int] = (),
    ) -> None:
        """Take a trial of which some epochs are done, while others are paused."""
        recipe = RECIPE.__class__(**vars(RECIPE) | {"epochs": epochs})
        self.session.begin(
            Assignment(trial=trial, recipe=recipe, attempt=attempt, epochs=done, paused=tuple(paused))
        )

    def pause(self, *trials: int) -> None:
        """Train the first epoch of these trials, each of which is paused after it."""
        for number, trial in enumerate(trials):
            self.begin(trial, paused=trials[:number])
            self.steps(1)

    def steps(self, count: int) -> list[Report]:
        """The next reports."""
        return [self.session.step() for _ in range(count)]


@pytest.fixture
def worker(tmp_path: Path) -> Callable[..., Worker]:
    """Makes a worker; several in one test share their stores, as workers of a search do."""
    return lambda **options: Worker(tmp_path, **options)


def epochs_of(reports: Sequence[Report]) -> list[int]:
    """The epochs of reports, all of which are of an epoch."""
    assert all(isinstance(report, EpochReport) for report in reports), reports
    return [report.row.epoch for report in reports if isinstance(report, EpochReport)]


def test_an_assignment_is_trained_to_its_end_with_its_scores_and_its_best_model(
    worker: Callable[..., Worker], tmp_path: Path
) -> None:
    own = worker()
    own.begin()
    reports = own.steps(3)
    assert epochs_of(reports) == [1, 2, 3]
    last = reports[-1]
    assert isinstance(last, EpochReport)
    assert (last.finished, last.best_epoch, last.replayed) == (True, 3, False)
    assert last.row.val_f1 == analytic_f1(RECIPE, 3)
    assert (last.usage.node, last.usage.pid, last.usage.total_seconds) == ("node", 11, 3.0)
    assert [model.name for model in kept_models(tmp_path)] == ["trial-00007-epoch-003"]
    assert own.trainer.released == [False], "the memory of a finished fine-tune is given back"


def test_a_trial_continues_from_its_checkpoint_on_another_worker_and_replays_its_epoch(
    worker: Callable[..., Worker],
) -> None:
    first, second = worker(), worker()
    first.begin()
    first.steps(2)
    second.begin(attempt=2)
    replayed, following = second.steps(2)
    assert isinstance(replayed, EpochReport)
    assert isinstance(following, EpochReport)
    assert (replayed.row.epoch, replayed.replayed, replayed.row.attempt) == (2, True, 2)
    assert (following.row.epoch, following.replayed, following.finished) == (3, False, True)
    assert second.trainer.computed == [(7, 3)], "no epoch is computed twice"
    assert following.usage.total_seconds == 3.0, "the seconds of both workers"


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_trial_without_a_checkpoint_starts_from_its_beginning(
    attempt: int, worker: Callable[..., Worker]
) -> None:
    own = worker()
    own.begin(attempt=attempt)
    assert epochs_of(own.steps(2)) == [1, 2]


def test_a_checkpoint_that_finds_no_room_becomes_a_notice(worker: Callable[..., Worker]) -> None:
    own = worker(budget=1)
    own.begin()
    own.steps(1)
    (notice,) = own.session.notices()
    assert notice.key == "budget"
    assert "trial 7" in notice.text
    assert not list(own.session.notices())


@pytest.mark.parametrize("kind", [DIVERGED, OUT_OF_MEMORY])
def test_a_fine_tune_that_fails_reports_why_and_leaves_the_worker_free(
    kind: Exception, worker: Callable[..., Worker]
) -> None:
    own = worker()
    own.begin()
    own.trainer.failures = [kind]
    assert own.steps(1) == [Failure(reason=str(kind))]
    assert own.trainer.released == [False]
    own.begin()
    assert epochs_of(own.steps(1)) == [1]


# shared GPU, can stream, how often memory runs out -> requests as alone, streamed, the end
RUNGS = [
    pytest.param(True, True, 0, [False], [False], [1, 2, 3], id="enough memory"),
    pytest.param(True, True, 1, [False, True], [False, False], [1, 2, 3], id="alone"),
    pytest.param(True, True, 2, [False, True, True], [False, False, True], [1, 2, 3], id="streamed"),
    pytest.param(True, True, 3, [False, True, True], [False, False, True], "fails", id="not even streamed"),
    pytest.param(True, False, 2, [False, True], [False, False], "fails", id="alone without streaming"),
    pytest.param(False, True, 1, [], [False, True], [1, 2, 3], id="own GPU, streamed"),
    pytest.param(False, True, 2, [], [False, True], "fails", id="own GPU, not even streamed"),
    pytest.param(False, False, 1, [], [False], "fails", id="CPU"),
]


@pytest.mark.parametrize(("shared", "can_stream", "errors", "alone", "streamed", "end"), RUNGS)
@pytest.mark.parametrize("done", [0, 2])
def test_a_fine_tune_that_runs_out_of_memory_gets_more_of_the_device_step_by_step(
    done: int,
    shared: bool,
    can_stream: bool,
    errors: int,
    alone: list[bool],
    streamed: list[bool],
    end: list[int] | str,
    worker: Callable[..., Worker],
) -> None:
    ledger = Ledger() if shared else None
    own = worker(ledger=ledger, can_stream=can_stream)
    own.begin()
    before = epochs_of(own.steps(done))
    own.trainer.failures = [OUT_OF_MEMORY] * errors
    if end == "fails":
        assert own.steps(1) == [Failure(reason=str(OUT_OF_MEMORY))]
    else:
        reports = own.steps(3 - done)
        assert before + epochs_of(reports) == end
        assert all(isinstance(report, EpochReport) and not report.replayed for report in reports)
    assert own.trainer.prepared == streamed
    assert [each for _, each in ledger.requests] == alone if ledger else True


def test_epochs_that_no_checkpoint_has_are_trained_again_after_memory_ran_out(
    worker: Callable[..., Worker],
) -> None:
    own = worker(ledger=Ledger(), budget=0)
    own.begin()
    own.steps(2)
    own.trainer.failures = [OUT_OF_MEMORY]
    assert epochs_of(own.steps(1)) == [3]
    assert [epoch for _, epoch in own.trainer.computed] == [1, 2, 1, 2, 3]


def test_the_ledger_learns_what_a_trial_took_and_gets_it_back(worker: Callable[..., Worker]) -> None:
    ledger = Ledger()
    own = worker(ledger=ledger)
    own.begin(epochs=1)
    own.steps(1)
    assert ledger.requests == [(own.trainer.demand(RECIPE, stream=False).kind, False)]
    assert ledger.measurements == [own.trainer.memory() + CONTEXT_BYTES]
    assert ledger.released == 1


def test_waiting_for_gpu_memory_is_a_state_that_neither_trains_nor_hangs(
    worker: Callable[..., Worker],
) -> None:
    ledger = Ledger(grants=False)
    own = worker(ledger=ledger)
    own.begin()
    assert own.steps(5) == [Waiting(reason="GPU memory")] * 5
    assert not own.watchdog.guarding
    assert own.trainer.released == [True], "who waits holds no data either"
    assert len(ledger.requests) == 1, "it keeps its place in the queue"
    ledger.grants = True
    (report,) = own.steps(1)
    assert isinstance(report, EpochReport)
    assert report.usage.total_seconds == 1.0, "of the epoch alone"


@pytest.mark.parametrize(("whole", "held"), [(False, DATA_BYTES), (True, 0)])
def test_between_trials_data_stays_on_a_shared_gpu_unless_another_worker_waits_for_all_of_it(
    whole: bool, held: int, worker: Callable[..., Worker]
) -> None:
    ledger = Ledger()
    ledger.whole = whole
    own = worker(ledger=ledger)
    own.begin(epochs=1)
    own.steps(1)
    assert own.trainer.released == [whole]
    assert ledger.held == held


def test_a_worker_that_leaves_the_queue_withdraws_its_request(worker: Callable[..., Worker]) -> None:
    ledger = Ledger(grants=False)
    own = worker(ledger=ledger)
    own.begin()
    own.steps(1)
    own.begin()
    assert ledger.released == 1


def test_waiting_for_other_workers_within_an_epoch_is_not_counted(
    worker: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = worker()
    prepare = own.trainer.prepare

    def wait_first(*given: Any, **options: Any) -> Any:
        own.clock.sleep(500.0)
        own.watchdog.waited_seconds += 500.0
        return prepare(*given, **options)

    monkeypatch.setattr(own.trainer, "prepare", wait_first)
    own.begin()
    (report,) = own.steps(1)
    assert isinstance(report, EpochReport)
    assert report.usage.total_seconds == 1.0


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        InputError("no such weights", code=ErrorCode.WEIGHTS_UNREADABLE),
    ],
)
def test_a_node_that_cannot_do_its_part_is_reported_and_the_worker_rests(
    error: Exception, worker: Callable[..., Worker]
) -> None:
    own = worker()
    own.begin()
    own.trainer.unprepared = [error]
    failure, *rest = own.steps(3)
    assert isinstance(failure, NodeFailure)
    assert failure.node == "node"
    assert str(error) in failure.reason
    assert rest == [Resting()] * 2
    own.begin(attempt=2)
    assert epochs_of(own.steps(1)) == [1]


def test_an_error_of_another_process_is_not_this_nodes(
    worker: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = worker()
    own.begin()
    own.trainer.unprepared = [RemoteError(OSError(28, "No space left on device"))]
    with pytest.raises(RemoteError):
        own.session.step()


def test_a_final_model_is_trained_without_scores_and_with_the_same_memory_policy(
    worker: Callable[..., Worker],
) -> None:
    ledger = Ledger()
    own = worker(ledger=ledger, can_stream=True, budget=0)
    own.begin()
    own.trainer.failures = [OUT_OF_MEMORY, OUT_OF_MEMORY]
    tensors, blocks = own.session.train_unscored(3)
    assert np.array_equal(tensors["weight"], [3.0])
    assert tensors.keys() == {"weight", *FROZEN}
    assert blocks.keys() == {"frozen"}
    assert own.trainer.prepared == [False, False, True]
    assert own.trainer.computed == [], "nothing was scored"
    own.begin()
    own.trainer.failures = [OUT_OF_MEMORY] * 3
    with pytest.raises(OutOfMemory):
        own.session.train_unscored(3)
    assert ledger.released == 6, "for each request, also after the last one"


@pytest.mark.parametrize(
    ("shared", "errors", "streamed"),
    [
        (True, 0, [False]),
        (True, 1, [False, False]),
        (True, 2, [False, False, True]),
        (False, 1, [False, True]),
    ],
    ids=["fits", "alone", "streamed", "a GPU of its own"],
)
def test_predictions_that_run_out_of_memory_get_more_of_the_device_step_by_step(
    shared: bool, errors: int, streamed: list[bool], worker: Callable[..., Worker]
) -> None:
    ledger = Ledger() if shared else None
    own = worker(ledger=ledger, can_stream=True)
    own.begin()
    own.trainer.failures = [OUT_OF_MEMORY] * errors
    assert own.session.predict({"weight": np.array([2.0, 5.0])}).tolist() == [[2.0, 5.0]]
    assert own.trainer.prepared == streamed
    if ledger:
        kinds = [(f"predict/{stream}", number > 0) for number, stream in enumerate(streamed)]
        assert ledger.requests == kinds, "not those of a fine-tune"
        assert ledger.measurements == [own.trainer.memory() + CONTEXT_BYTES]
        assert ledger.released == len(streamed)


def test_predictions_that_never_fit_fail_and_return_their_memory(worker: Callable[..., Worker]) -> None:
    ledger = Ledger()
    own = worker(ledger=ledger, can_stream=True)
    own.begin()
    own.trainer.failures = [OUT_OF_MEMORY] * 3
    with pytest.raises(OutOfMemory):
        own.session.predict({"weight": np.zeros(2)})
    assert ledger.released == 3


def test_predictions_wait_for_gpu_memory(worker: Callable[..., Worker]) -> None:
    waits = []

    class Busy(Ledger):
        def granted(self, *, within: float) -> bool:
            """At the third look."""
            waits.append(within)
            return len(waits) == 3

    own = worker(ledger=Busy(grants=False))
    own.begin()
    assert own.session.predict({"weight": np.ones(2)}).tolist() == [[1.0, 1.0]]
    assert len(waits) == 3
    assert own.trainer.released[0], "who waits holds no data"


# models


class CountingModels(ModelStore):
    """Remembers the names of the tensors of each offer, and loses all blocks before the first ones."""

    def __init__(self, folder: Path, *, losses: int = 0) -> None:
        super().__init__(folder, keep=2)
        self.folder, self.losses = folder, losses
        self.sent: list[set[str]] = []

    def offer(self, trial: int, f1: float, tensors: Arrays, card: Mapping[str, Any]) -> tuple[str, ...]:
        """Count."""
        if self.losses:
            self.losses -= 1
            shutil.rmtree(self.folder / "shared")
        self.sent.append(set(tensors))
        return super().offer(trial, f1, tensors, card)


def test_a_frozen_block_is_sent_once(worker: Callable[..., Worker], tmp_path: Path) -> None:
    models = CountingModels(tmp_path / "models")
    own = worker(models=models)
    for trial in (7, 8):
        own.begin(trial)
        own.steps(3)
    assert models.sent == [{"weight", *FROZEN}, *[{"weight"}] * 5]
    assert [read_tensors(place, read_card(place)).keys() for place in kept_models(tmp_path)] == [
        {"weight", *FROZEN}
    ] * 2


def test_a_block_that_was_deleted_meanwhile_is_sent_again(
    worker: Callable[..., Worker], tmp_path: Path
) -> None:
    models = CountingModels(tmp_path / "models")
    own = worker(models=models)
    own.begin(epochs=2)
    own.steps(1)
    models.losses = 1
    own.steps(1)
    assert models.sent == [{"weight", *FROZEN}, {"weight"}, {"weight", *FROZEN}]
    (place,) = kept_models(tmp_path)
    assert place.name == "trial-00007-epoch-002"
    assert read_tensors(place, read_card(place)).keys() == {"weight", *FROZEN}


# paused trials in memory


def test_a_paused_trial_is_resumed_from_memory_without_a_replay(worker: Callable[..., Worker]) -> None:
    own = worker()
    own.pause(7, 8)
    own.begin(7, attempt=2, done=1, paused=[8])
    (report,) = own.steps(1)
    assert isinstance(report, EpochReport)
    assert (report.row.epoch, report.row.attempt, report.replayed) == (2, 2, False)
    assert report.usage.total_seconds == 2.0, "of its own epochs alone"
    own.begin(8, attempt=2, done=1, paused=[7])
    own.steps(2)
    own.begin(7, attempt=3, done=2)
    (last,) = own.steps(1)
    assert isinstance(last, EpochReport)
    assert (last.row.epoch, last.finished, last.usage.total_seconds) == (3, True, 3.0)
    assert own.trainer.prepared == [False] * 2, "each was built once"
    assert len(own.trainer.computed) == len(set(own.trainer.computed)) == 6


def test_a_trial_that_is_resumed_at_once_was_never_out_of_memory(worker: Callable[..., Worker]) -> None:
    own = worker()
    own.pause(7)
    own.begin(7, attempt=2, done=1)
    assert epochs_of(own.steps(2)) == [2, 3]
    assert own.trainer.prepared == [False]


def test_a_trial_that_another_worker_has_continued_is_resumed_from_its_checkpoint(
    worker: Callable[..., Worker],
) -> None:
    own, other = worker(), worker()
    own.pause(7, 8)
    other.begin(7, attempt=2, done=1, paused=[8])
    assert epochs_of(other.steps(2)) == [1, 2]
    own.begin(7, attempt=3, done=2, paused=[8])
    replayed, last = own.steps(2)
    assert isinstance(replayed, EpochReport)
    assert (replayed.row.epoch, replayed.replayed) == (2, True)
    assert epochs_of([last]) == [3]


def test_what_the_coordinator_no_longer_calls_paused_is_not_kept(worker: Callable[..., Worker]) -> None:
    own = worker()
    own.pause(7)
    own.begin(8)
    own.begin(7, attempt=2, done=1)
    (report,) = own.steps(1)
    assert isinstance(report, EpochReport)
    assert report.replayed


@pytest.mark.parametrize(
    ("room_for", "expected"), [(0, []), (1, [3]), (2, [2, 3]), (9, [1, 2, 3])], ids=lambda value: str(value)
)
def test_of_paused_trials_those_used_last_are_kept_as_far_as_there_is_memory(
    room_for: int, expected: list[int], worker: Callable[..., Worker]
) -> None:
    own = worker()
    own.trainer.spares = lambda: len(own.session._warm) <= room_for
    own.pause(1, 2, 3)
    own.begin(4, paused=[1, 2, 3])
    assert sorted(own.session._warm) == expected


def test_only_so_many_trials_are_kept(worker: Callable[..., Worker]) -> None:
    own = worker()
    own.pause(*range(MOST_WARM + 3))
    own.begin(19, paused=range(MOST_WARM + 3))
    assert list(own.session._warm) == list(range(3, MOST_WARM + 3))


@pytest.mark.parametrize("end", ["finished", "failed", "node failed"])
def test_what_has_ended_is_not_kept(end: str, worker: Callable[..., Worker]) -> None:
    own = worker()
    own.begin(7, epochs=1 if end == "finished" else 3)
    own.trainer.failures = [DIVERGED] if end == "failed" else []
    own.trainer.unprepared = [OSError(28, "No space left on device")] if end == "node failed" else []
    own.steps(1)
    own.begin(8, paused=[7])
    assert not own.session._warm


def test_on_a_shared_gpu_none_is_kept(worker: Callable[..., Worker]) -> None:
    own = worker(ledger=Ledger())
    own.pause(7)
    own.begin(8, paused=[7])
    assert not own.session._warm


def test_when_memory_runs_out_paused_trials_are_freed_before_anything_else_is_tried(
    worker: Callable[..., Worker],
) -> None:
    own = worker(can_stream=True)
    own.pause(7, 8)
    own.begin(9, paused=[7, 8])
    own.trainer.failures = [OUT_OF_MEMORY] * 2
    assert epochs_of(own.steps(3)) == [1, 2, 3]
    assert own.trainer.prepared == [False] * 4 + [True], "7, 8, 9, 9 without them, 9 streamed"
    own.begin(7, attempt=2, done=1)
    (replayed,) = own.steps(1)
    assert isinstance(replayed, EpochReport)
    assert replayed.replayed


def test_a_resumed_trial_that_runs_out_of_memory_continues_from_its_checkpoint(
    worker: Callable[..., Worker],
) -> None:
    own = worker()
    own.pause(7, 8)
    own.begin(7, attempt=2, done=1, paused=[8])
    own.trainer.failures = [OUT_OF_MEMORY]
    (report,) = own.steps(1)
    assert isinstance(report, EpochReport)
    assert (report.row.epoch, report.replayed) == (2, False)
    assert own.trainer.computed == [(7, 1), (8, 1), (7, 2)]


def test_a_fine_tune_whose_data_is_streamed_is_not_kept(worker: Callable[..., Worker]) -> None:
    own = worker(can_stream=True)
    own.begin(7)
    own.trainer.failures = [OUT_OF_MEMORY]
    own.steps(1)
    own.begin(8, paused=[7])
    assert not own.session._warm
