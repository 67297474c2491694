"""A session with real fine-tunes on small networks: what happens to a worker changes no number."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import Ledger, LocalCheckpoints, PatientWatchdog
from noise import RECIPE
from small_models import models_of
from working_sets import working_set

from genre_core.system.disk_cache import NodeCache
from genre_core.training.fine_tune import EpochResult, FineTune
from search.engine.messages import Assignment, EpochReport, Failure, NodeFailure, Report
from search.engine.ports import Arrays
from search.engine.worker import WorkerSession
from search.run.checkpoints import clear_checkpoints
from search.tune.torch_trainer import TorchTrainer
from search.tune.wire_format import assignment_of, config_of

EPOCHS = 3
ASSIGNMENT = Assignment(trial=0, recipe=RECIPE.__class__(**vars(RECIPE) | {"epochs": EPOCHS}))


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Networks of the families' blocks that train in milliseconds."""
    with models_of("small"):
        yield


OTHER = Assignment(
    trial=1, recipe=replace(ASSIGNMENT.recipe, backbone="alexnet", masking=0.2, mixup=0.3), paused=(0,)
)
"""A trial that a worker trains while the first one is paused."""


class LateCheckpoints(LocalCheckpoints):
    """Copies the arrays as late as it may."""

    def send(self, report: EpochReport, arrays: Callable[[], Arrays]) -> None:
        """Remember them."""
        self._late = report, arrays

    def settle(self) -> None:
        """Copy them now."""
        if late := self.__dict__.pop("_late", None):
            super().send(*late)


def session(
    folder: Path,
    *,
    checkpoints: bool = True,
    ledger: bool = True,
    spares: bool = True,
    kind: type[LocalCheckpoints] = LocalCheckpoints,
) -> WorkerSession:
    """A worker on noise; what it shares with others is in the folder."""
    clear_checkpoints(folder / "checkpoints", keep=[0, 1])
    trainer = TorchTrainer(
        working_set(folder), node_cache=NodeCache(folder / "shared", budget_bytes=0), weights=None
    )
    trainer.has_spare_memory = lambda: spares  # type: ignore[method-assign]
    return WorkerSession(
        trainer,
        node="n",
        pid=1,
        watchdog=PatientWatchdog(),
        checkpoints=kind.in_folder(folder / "checkpoints") if checkpoints else None,
        ledger=Ledger() if ledger else None,
    )


def losses(reports: list[Any]) -> list[tuple[int, float | None, float | None]]:
    """What was computed, by epoch."""
    assert all(isinstance(report, EpochReport) for report in reports), reports
    return [(report.row.epoch, report.row.train_loss, report.row.val_loss) for report in reports]


@pytest.fixture(scope="module")
def undisturbed(
    small: None, tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[int, float | None, float | None]]:
    """The numbers of a trial to which nothing happens."""
    own = session(tmp_path_factory.mktemp("undisturbed"))
    own.begin(ASSIGNMENT)
    return losses([own.step() for _ in range(EPOCHS)])


@pytest.mark.parametrize("checkpoints", [True, False])
@pytest.mark.parametrize("when", range(EPOCHS))
def test_memory_that_runs_out_changes_no_number(
    when: int,
    checkpoints: bool,
    undisturbed: list[tuple[int, float | None, float | None]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = session(tmp_path / "disturbed", checkpoints=checkpoints)
    own.begin(ASSIGNMENT)
    reports = [own.step() for _ in range(when)]
    epoch, failed = FineTune.epoch, list[int]()

    def fail_once(fine_tune: FineTune) -> EpochResult:
        if not failed:
            failed.append(1)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nGPU 0 has …")
        return epoch(fine_tune)

    monkeypatch.setattr(FineTune, "epoch", fail_once)
    reports += [own.step() for _ in range(EPOCHS - when)]
    assert failed
    assert losses(reports) == undisturbed


@pytest.mark.parametrize("done", range(1, EPOCHS))
def test_another_worker_continues_to_the_same_numbers(
    done: int, undisturbed: list[tuple[int, float | None, float | None]], tmp_path: Path
) -> None:
    first = session(tmp_path / "shared")
    first.begin(ASSIGNMENT)
    reports = [first.step() for _ in range(done)]
    second = session(tmp_path / "shared")
    second.begin(Assignment(trial=0, recipe=ASSIGNMENT.recipe, attempt=2))
    replayed = second.step()
    assert isinstance(replayed, EpochReport)
    assert replayed.replayed
    assert losses([replayed]) == losses(reports[-1:])
    assert losses(reports + [second.step() for _ in range(EPOCHS - done)]) == undisturbed


@pytest.mark.parametrize("spares", [True, False], ids=["from memory", "from its checkpoint"])
def test_adamw_continues_to_the_same_numbers_after_a_pause_and_on_another_worker(
    spares: bool, tmp_path: Path
) -> None:
    recipe = replace(ASSIGNMENT.recipe, optimizer="adamw", learning_rate=0.001, weight_decay=0.05)
    own = Assignment(trial=0, recipe=recipe)
    alone = session(tmp_path / "alone")
    alone.begin(own)
    expected = losses([alone.step() for _ in range(EPOCHS)])
    first = session(tmp_path / "shared", ledger=False, spares=spares, kind=LateCheckpoints)
    first.begin(own)
    reports = [first.step()]
    first.begin(OTHER)
    first.step()
    first.begin(replace(own, attempt=2, epochs=1))
    if not spares:
        assert losses([first.step()]) == expected[:1], "its checkpoint has its own epoch"
    reports.append(first.step())
    first.begin(replace(OTHER, attempt=2))
    second = session(tmp_path / "shared")
    second.begin(replace(own, attempt=3, epochs=2))
    assert losses([second.step()]) == expected[1:2]
    assert losses([*reports, second.step()]) == expected


@pytest.mark.parametrize("paused_after", [(1,), (1, 2), (2,)])
@pytest.mark.parametrize("spares", [True, False], ids=["from memory", "from its checkpoint"])
def test_a_trial_that_was_paused_continues_to_the_same_numbers(
    spares: bool,
    paused_after: tuple[int, ...],
    undisturbed: list[tuple[int, float | None, float | None]],
    tmp_path: Path,
) -> None:
    own = session(tmp_path / "own", ledger=False, spares=spares, kind=LateCheckpoints)
    own.begin(ASSIGNMENT)
    reports: list[Report] = []
    for epoch in range(1, EPOCHS + 1):
        reports.append(own.step())
        if epoch in paused_after:
            own.begin(replace(OTHER, attempt=epoch, epochs=epoch - 1))
            own.step()
            own.begin(replace(ASSIGNMENT, attempt=epoch + 1, epochs=epoch, paused=(1,)))
            if not spares:
                replayed = own.step()
                assert losses([replayed]) == losses(reports[-1:]), "its checkpoint has its own epoch"
    assert losses(reports) == undisturbed
    assert [report.replayed for report in reports if isinstance(report, EpochReport)] == [False] * EPOCHS


def test_the_checkpoint_of_a_trial_in_memory_is_copied_before_it_trains_on(
    undisturbed: list[tuple[int, float | None, float | None]], tmp_path: Path
) -> None:
    own = session(tmp_path / "own", ledger=False, kind=LateCheckpoints)
    own.begin(ASSIGNMENT)
    own.step()
    own.begin(OTHER)
    own.begin(replace(ASSIGNMENT, attempt=2, epochs=1))
    own.step()
    own.begin(replace(OTHER, attempt=2))
    other = session(tmp_path / "own")
    other.begin(replace(ASSIGNMENT, attempt=3, epochs=2))
    assert losses([other.step() for _ in range(2)]) == undisturbed[1:]


def test_a_worker_without_the_module_of_a_backbone_reports_it_as_a_failure_of_its_node(
    tmp_path: Path,
) -> None:
    name = "gone_networks:NET"
    given = working_set(tmp_path, weights={name: "random"})
    trainer = TorchTrainer(given, node_cache=NodeCache(tmp_path, budget_bytes=0), weights=None)
    own = WorkerSession(trainer, node="n", pid=1, watchdog=PatientWatchdog())
    sent = config_of(ASSIGNMENT)
    own.begin(assignment_of(sent | {"recipe": sent["recipe"] | {"backbone": name}}))
    report = own.step()
    assert isinstance(report, NodeFailure)
    assert "gone_networks" in report.reason
    assert "PYTHONPATH" in report.reason


def test_memory_that_never_suffices_is_the_trials_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nDetails")

    monkeypatch.setattr(FineTune, "epoch", fail)
    own = session(tmp_path)
    own.begin(ASSIGNMENT)
    report = own.step()
    assert isinstance(report, Failure)
    assert "out of memory" in report.reason
    assert "\n" not in report.reason


def test_a_final_model_is_the_same_however_often_memory_runs_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def final(folder: Path) -> dict[str, Any]:
        own = session(folder, checkpoints=False)
        own.begin(ASSIGNMENT)
        return {name: array.copy() for name, array in own.train_unscored(EPOCHS)[0].items()}

    expected = final(tmp_path / "undisturbed")
    train, calls = FineTune.train, list[int]()

    def fail_second(fine_tune: FineTune) -> float:
        calls.append(1)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return train(fine_tune)

    monkeypatch.setattr(FineTune, "train", fail_second)
    found = final(tmp_path / "disturbed")
    assert len(calls) == EPOCHS + 2
    assert all(np.array_equal(found[name], array) for name, array in expected.items())
