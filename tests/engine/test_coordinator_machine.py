"""A search by the coordinator, whatever happens to it: after each step its folder is in order, and nothing is lost.

Every worker is a real session with an analytic fine-tune; the study, the tables, the checkpoints and the models are
the real ones on disk. The driver is killed between any two of its writes.
"""

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import pytest
from fakes import DIVERGED, OUT_OF_MEMORY, AnalyticTrainer, Clock, Ledger, LocalCheckpoints, PatientWatchdog
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from invariants import examine
from optuna.storages.journal import JournalFileBackend
from pausing import RandomChoices, RandomPauses

from genre_core.recipe import state_bytes
from search.config.schema import load, to_yaml
from search.engine.coordinator import Coordinator, Limits
from search.engine.messages import Assignment, Decision, EpochReport, Finished, Lost
from search.engine.recorder import Recorder
from search.engine.worker import WorkerSession
from search.recovery.reconcile import reconcile, unsettled
from search.recovery.unclaimed import Unclaimed
from search.run.checkpoints import CheckpointStore, clear_checkpoints
from search.run.folder import RunFolder, epoch_number
from search.run.identity import new_identity
from search.run.model_store import ModelStore
from search.run.tables import ResultsWriter, read_epochs
from search.study.opening import open_study
from search.study.suggest import sample

WORKERS = {"a": "one", "b": "one", "c": "two"}
"""Worker -> its node."""
ON_SHARED_GPU = "b"
"""The worker that keeps no paused trials in memory."""
EPOCHS, KEEP_MODELS, RETRIES, EPOCH_LIMIT = 4, 2, 1, 60.0
SIZE = 10 * state_bytes("sgd")
"""Estimated bytes of a checkpoint of the analytic fine-tune."""
PRUNERS = {"none": "none", "median": {"name": "median", "n_startup_trials": 1, "n_warmup_steps": 0}}
RESTLESS_TURNS = 40
"""Turns of all workers at the end of a search in which nothing fails, but trials are still paused."""
ENQUEUED: list[dict[str, Any]] = [
    {"backbone": "alexnet", "learning_rate": 0.011, "momentum": 0.9, "frozen_blocks": 2},
    {"learning_rate": 0.012},
    {"backbone": "resnet18", "frozen_blocks": "all", "learning_rate": 0.013},
    {"learning_rate": 0.014},
]
STEPS: Counter[str] = Counter()
"""Steps that were made, by rule."""


class Killed(BaseException):
    """The driver is gone, in the middle of whatever it did."""


class Bomb:
    """Kills the driver before one of its next writes."""

    def __init__(self) -> None:
        self.left: int | None = None

    def count(self, what: str) -> None:
        """A write is about to happen."""
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.left = None
                STEPS[f"killed before {what}"] += 1
                raise Killed

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Writes of the study's journal, and files that replace others, are counted."""
        append, replace = JournalFileBackend.append_logs, Path.replace

        def counted_append(backend: Any, logs: Any) -> None:
            self.count("journal")
            append(backend, logs)

        def counted_replace(path: Path, target: Any) -> Path:
            self.count(Path(target).parent.name)
            return replace(path, target)

        with (
            patch.object(JournalFileBackend, "append_logs", counted_append),
            patch.object(Path, "replace", counted_replace),
        ):
            yield


class SearchMachine(RuleBasedStateMachine):
    """A search of a few trials on three workers of two nodes."""

    @initialize(
        trials=st.integers(2, 5),
        pruner=st.sampled_from(sorted(PRUNERS)),
        seed=st.integers(0, 9),
        checkpoints=st.sampled_from([10**6, 10**6, 3 * SIZE, 0]),
        pauses=st.sampled_from([True, True, False]),
    )
    def begin(self, trials: int, pruner: str, seed: int, checkpoints: int, pauses: bool) -> None:
        """A new run."""
        self.stores_checkpoints = checkpoints > 0
        self.checkpoint_bytes = checkpoints
        self.pauses = pauses
        random = Random(seed)
        self.choices, self.pruner = RandomChoices(random), RandomPauses(random)
        self.home = Path(tempfile.mkdtemp(prefix="gsm"))
        self.run = RunFolder(self.home / "run")
        self.run.path.mkdir()
        self.config = load(
            None,
            {
                "weights": "random",
                "space.backbone": ["resnet18", "alexnet"],
                "training.epochs": EPOCHS,
                "sampler": "random",
                "pruner": {
                    "name": pruner,
                    **({"n_startup_trials": 1, "n_warmup_steps": 0} if pruner == "median" else {}),
                },
                "seed": seed,
                "enqueue": ENQUEUED[: seed % (len(ENQUEUED) + 1)],
            },
        ).model_copy(update={"provenance": new_identity(self.run.path).provenance})
        self.run.config.write_text(to_yaml(self.config))
        self.clock, self.bomb = Clock(), Bomb()
        self.goal, self.kills, self.budget = trials, Counter[int](), None
        self.shown: list[str] = []
        self.over = False
        self.open()

    def open(self) -> None:
        """Start the driver: a new search, or the same one resumed."""
        self.driven = True
        self.study = open_study(self.config, self.run.path, name="run")
        if self.pauses:
            self.study.use(self.study.of_optuna.sampler, self.pruner)
        writer = ResultsWriter(self.run.path)
        recorder = Recorder(self.study, writer, name="run", show=lambda row: None)
        unclaimed = Unclaimed(self.run.path)
        recorder.take_up(reconcile(self.run.path, self.config, self.study, writer, unclaimed))
        assert unclaimed.message is None, "nothing in the folder is a stranger's"
        assert read_epochs(self.run.path)["train_loss"].notna().all(), "no epoch is known by its F1 alone"
        clear_checkpoints(self.run.checkpoints, keep=self.study.running)
        self.checkpoints = CheckpointStore(self.run.checkpoints, 10**9)
        self.models = ModelStore(self.run.models, KEEP_MODELS)
        self.coordinator = Coordinator(
            self.study,
            recorder,
            limits=Limits(
                workers=len(WORKERS),
                retries=RETRIES,
                epoch_limit=EPOCH_LIMIT,
                time_budget=self.budget,
                checkpoint_bytes=self.checkpoint_bytes,
            ),
            goal=lambda: self.goal,
            draw=lambda trial: sample(trial, self.config),
            forget=self.checkpoints.drop,
            say=self.shown.append,
            clock=self.clock,
            strategy=self.choices if self.pauses else None,
            unsettled=unsettled(self.run.path, self.study),
        )
        self.coordinator.budget_spent()
        self.trainers = {worker: AnalyticTrainer() for worker in WORKERS}
        for trainer in self.trainers.values():
            trainer.spares = self.choices.spares
        self.sessions = {worker: self.start(worker) for worker in WORKERS}
        self.assigned: dict[str, int] = {}
        self.resumed: set[str] = set()
        """Workers that have resumed a paused trial and not yet reported an epoch."""

    def ahead(self, number: int) -> bool:
        """Whether a model of a running trial is kept whose epoch it has not reported."""
        kept = [epoch_number(path.name) for path in self.run.kept_models(number)]
        return max(kept, default=0) > self.study.epochs(number)

    def start(self, worker: str) -> WorkerSession:
        """A worker's process."""
        return WorkerSession(
            self.trainers[worker],
            node=WORKERS[worker],
            pid=1,
            watchdog=PatientWatchdog(),
            models=self.models,
            checkpoints=LocalCheckpoints(self.checkpoints) if self.stores_checkpoints else None,
            ledger=Ledger() if worker == ON_SHARED_GPU else None,
            clock=self.clock,
            sleep=self.clock.sleep,
        )

    @contextmanager
    def driver(self) -> Iterator[None]:
        """What the driver does, which may kill it: all that it and its workers hold in memory is gone then."""
        try:
            with self.bomb.attached():
                yield
        except Killed:
            STEPS["killed with paused trials"] += bool(self.coordinator.paused)
            held = set(self.study.running) | set(self.assigned.values())  # one may have been about to end
            self.kills.update(held - self.coordinator.paused)
            self.driven = False

    @rule(workers=st.lists(st.sampled_from(sorted(WORKERS)), min_size=2, max_size=8))
    @precondition(lambda self: self.driven)
    def work(self, workers: list[str]) -> None:
        """Some workers do a step each, one after the other."""
        for worker in workers:
            if self.driven:
                self.step(worker)
                self.the_folder_is_in_order()

    @rule(
        workers=st.lists(st.sampled_from(sorted(WORKERS)), min_size=3, max_size=8), writes=st.integers(0, 12)
    )
    @precondition(lambda self: self.driven)
    def kill_driver(self, workers: list[str], writes: int) -> None:
        """The driver is killed before one of its next writes."""
        STEPS["kill driver"] += 1
        self.bomb.left = writes
        self.work(workers)
        self.bomb.left = None

    def step(self, worker: str) -> None:
        """A worker asks for a trial, or does a step of the one that it has."""
        STEPS["step"] += 1
        with self.driver():
            if worker not in self.assigned and worker not in self.coordinator.resting:
                paused = self.coordinator.paused
                answer = self.coordinator.next_for(worker)
                if isinstance(answer, Finished):
                    self.finish()
                if isinstance(answer, Assignment):
                    assert answer.trial not in self.assigned.values(), "a trial has one worker"
                    STEPS["resume a trial"] += answer.trial in paused
                    self.resumed = self.resumed - {worker} | ({worker} if answer.trial in paused else set())
                    self.assigned[worker] = answer.trial
                    self.sessions[worker].begin(answer)
                return
            built = len(self.trainers[worker].prepared)
            report = self.sessions[worker].step()
            if worker in self.resumed and isinstance(report, EpochReport):
                self.resumed.discard(worker)
                STEPS["resume from memory"] += len(self.trainers[worker].prepared) == built
            decision = self.coordinator.hear(worker, report)
            STEPS[decision.value] += 1
            if decision is not Decision.CONTINUE or worker in self.coordinator.resting:
                self.assigned.pop(worker, None)

    def finish(self) -> None:
        """The search is over: nothing runs, and what is paused is pruned."""
        assert not self.assigned
        assert set(self.study.running) == self.coordinator.paused
        if not self.pauses:
            assert self.study.ended >= self.goal
        if self.study.ended < self.goal:
            STEPS["finish with paused trials"] += bool(self.study.running)
            assert self.coordinator.end(interrupted=False) == 0
            self.driven = False

    @rule(worker=st.sampled_from(sorted(WORKERS)), preempted=st.booleans(), hung=st.booleans())
    @precondition(lambda self: self.driven)
    def lose_worker(self, worker: str, preempted: bool, hung: bool) -> None:
        """A worker's process dies, perhaps since its epoch hangs, perhaps since its node was taken away."""
        STEPS["lose worker"] += 1
        self.lose(worker, preempted=preempted, hung=hung)

    @rule(node=st.sampled_from(sorted(set(WORKERS.values()))))
    @precondition(lambda self: self.driven and self.assigned)
    def lose_node(self, node: str) -> None:
        """All workers of a node die."""
        STEPS["lose node"] += 1
        for worker in [worker for worker, its in WORKERS.items() if its == node]:
            if self.driven:
                self.lose(worker, preempted=False, hung=False)

    def lose(self, worker: str, *, preempted: bool, hung: bool) -> None:
        """A worker dies; another process takes its place."""
        if hung:
            self.clock.sleep(EPOCH_LIMIT + 1)
        if worker in self.assigned or worker in self.coordinator.resting:
            if worker in self.assigned:
                self.kills[self.assigned[worker]] += 1
            with self.driver():
                self.coordinator.lost(worker, Lost(reason="died", preempted=preempted))
            self.assigned.pop(worker, None)
        self.sessions[worker] = self.start(worker)

    @rule(worker=st.sampled_from(sorted(WORKERS)), times=st.integers(1, 3))
    @precondition(
        lambda self: self.driven and not self.pauses
    )  # a trial with more epochs can pause more often
    def run_out_of_memory(self, worker: str, times: int) -> None:
        """The worker's next epochs find no memory."""
        STEPS["out of memory"] += 1
        self.trainers[worker].failures = [OUT_OF_MEMORY] * times

    @rule(worker=st.sampled_from(sorted(WORKERS)))
    @precondition(lambda self: self.driven and not self.pauses and self.study.ended < 2)
    def diverge(self, worker: str) -> None:
        """The worker's next epoch diverges."""
        STEPS["diverge"] += 1
        self.trainers[worker].failures = [DIVERGED]

    @rule(worker=st.sampled_from(sorted(WORKERS)))
    @precondition(lambda self: self.driven and not self.coordinator.resting)
    def fail_node(self, worker: str) -> None:
        """The worker's node can write no file when the next fine-tune is prepared."""
        STEPS["fail node"] += 1
        self.trainers[worker].unprepared = [OSError(28, "No space left on device")]

    @rule(seconds=st.sampled_from([30.0, 700.0]))
    @precondition(lambda self: self.driven and self.coordinator.resting)
    def wait(self, seconds: float) -> None:
        """Time passes."""
        STEPS["wait"] += 1
        self.clock.sleep(seconds)

    @rule()
    @precondition(lambda self: self.driven and self.assigned)
    def interrupt(self) -> None:
        """Ctrl-C: the driver ends in order."""
        STEPS["interrupt"] += 1
        with self.driver():
            self.coordinator.end(interrupted=True)
            self.kills.update(self.assigned.values())
            self.driven = False

    @rule()
    @precondition(lambda self: self.driven and self.study.ended >= 2)
    @precondition(lambda self: not any(map(self.ahead, self.study.running)))
    def spend_budget(self) -> None:
        """The time is over: the running trials are stopped."""
        STEPS["budget"] += 1
        with self.driver():
            self.models.close()
            paused = self.coordinator.paused
            stopped = self.coordinator.end(interrupted=False)
            assert not any(self.study.stopped(number) for number in paused), "no worker had them"
            assert not self.study.running
            assert stopped <= len(WORKERS) + len(self.kills)
            self.driven = False

    @rule(more=st.integers(0, 2), killed_again=st.sampled_from([None, None, 0, 1, 2, 3]))
    @precondition(lambda self: not self.driven)
    def resume(self, more: int, killed_again: int | None) -> None:
        """The search is resumed, perhaps with more trials; the driver may be killed while it resumes."""
        STEPS["resume"] += 1
        self.goal += more
        self.bomb.left = killed_again
        with self.driver():
            self.open()

    @invariant()
    def the_folder_is_in_order(self) -> None:
        """As far as a search that runs can be: what is wrong is only what running explains."""
        if not hasattr(self, "study") or not self.driven or not self.study.asked:
            return
        found = examine(self.run.path, keep_models=KEEP_MODELS)
        explained = ["left_over: checkpoints/.ended"]
        if self.study.running:
            explained += ["zombies", "left_over: checkpoints/trial", "models_wrong"]
        assert not [line for line in found.words if not line.startswith(tuple(explained))], found.words
        assert found.trials == self.study.asked <= self.goal
        self.enqueued_trials_come_first_and_once()
        for number in self.coordinator.paused:
            kept = [epoch_number(path.name) for path in self.run.checkpoints.glob(f"trial-{number:05d}-*")]
            assert kept == [self.study.epochs(number)], "it continues after its last epoch"
        lost_at_most = 1 if self.stores_checkpoints else EPOCHS - 1
        assert found.epochs_repeated <= lost_at_most * sum(self.kills.values()), (
            "a death costs an epoch at most"
        )

    def enqueued_trials_come_first_and_once(self) -> None:
        """As many of the enqueued configurations as there are trials, in their order; nothing else has their values."""
        rates = [entry.learning_rate for entry in self.config.enqueue]
        begun = [trial.params.get("learning_rate") for trial in self.study.trials]
        assert begun[: len(rates)] == rates[: len(begun)]
        assert not set(rates) & set(begun[len(rates) :])
        assert self.study.waiting == max(0, len(rates) - len(begun))
        STEPS["more enqueued than trials"] += len(rates) > self.goal

    def teardown(self) -> None:
        """Whatever happened, the search comes to its end, and nothing is wrong with its folder then."""
        if not hasattr(self, "home"):
            return
        try:
            self.bomb.left = None
            for turn in range(200 * (self.goal + 1)):
                self.choices.calm = self.pruner.calm = turn >= RESTLESS_TURNS
                if not self.driven:
                    self.open()
                for worker in WORKERS:
                    self.trainers[worker].failures.clear()
                    self.trainers[worker].unprepared.clear()
                    if self.driven:
                        self.step(worker)
                self.clock.sleep(10.0)
                if self.study.ended >= self.goal:
                    break
            assert self.study.ended == self.goal, "a search that nothing happens to ends"
            self.enqueued_trials_come_first_and_once()
            self.coordinator.end(interrupted=True)
            self.checkpoints.end()
            found = examine(self.run.path, keep_models=KEEP_MODELS)
            assert found.clean, found.words
            assert found.trials == self.goal
        finally:
            shutil.rmtree(self.home)


@pytest.mark.parametrize("examples", [40, pytest.param(150, marks=pytest.mark.long)])
def test_a_search_survives_whatever_happens(examples: int) -> None:
    STEPS.clear()
    with patch("search.run.tables.WRITE_SHARE", float("inf")):  # the table follows at once
        run_state_machine_as_test(
            SearchMachine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=40,
                deadline=None,
                derandomize=True,
                phases=[Phase.generate],
            ),
        )
    assert sum(STEPS.values()) >= 60 * examples
    assert all(
        STEPS[name]
        for name in (
            *("kill driver", "lose node", "budget", "resume", "interrupt", "out of memory"),
            *("pause", "resume a trial", "resume from memory"),
            *("finish with paused trials", "killed with paused trials", "more enqueued than trials"),
        )
    ), STEPS
