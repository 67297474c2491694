"""Searches and finishes in this process without Ray: the same coordinator, sessions and stores, called in turn."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from fakes import AnalyticTrainer, LocalCheckpoints, PatientWatchdog
from ray.tune import Callback

from genre_core.system.disk_cache import NodeCache
from genre_core.system.watchdog import Watchdog
from search.config.schema import SearchConfig
from search.data.prepare import Prepared
from search.engine.coordinator import Coordinator
from search.engine.messages import Assignment, Decision, Finished
from search.engine.ports import Trainer
from search.engine.worker import WorkerSession
from search.evaluate import finish
from search.tune import search
from search.tune.adapter import BudgetStopper
from search.tune.torch_trainer import TorchTrainer, WorkingSet
from search.tune.trainable import Actors

MakeTrainer = Callable[[WorkingSet], Trainer]


def analytic(_: WorkingSet) -> AnalyticTrainer:
    """A trainer that trains nothing: scores are known beforehand."""
    return AnalyticTrainer()


def by_torch(working_set: WorkingSet) -> TorchTrainer:
    """The trainer of real searches, for random weights."""
    cache = NodeCache(working_set.cache / "shared", budget_bytes=working_set.cache_bytes)
    return TorchTrainer(working_set, node_cache=cache, weights=None)


@contextmanager
def searches_in_process(
    trainer: MakeTrainer = analytic,
    *,
    reports: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[None]:
    """Run the searches of the context in this process.

    Args:
        trainer: makes the trainer of each worker.
        reports: number of reports after which each search is interrupted; None to let them end.
        clock: of the workers.
    """

    def trainable(
        config: SearchConfig, prepared: Prepared, resources: Any, *, cache: Path, actors: Actors
    ) -> Callable[[str], WorkerSession]:
        given = WorkingSet.of(
            config,
            genres=prepared.genres,
            split=prepared.split,
            cache=cache,
            train=prepared.train,
            validation=prepared.validation,
            weights=prepared.weights,
            device=resources.device,
            gpu_shared=resources.gpu_shared,
        )
        return lambda worker: _session(worker, trainer(given), actors, clock)

    with (
        _threads_restored(),
        patch.object(search, "acquire", _acquire),
        patch.object(search, "require_capacity", _nothing),
        patch.object(search, "_trainable", trainable),
        patch.object(search, "_tune", partial(_drive, reports)),
        patch.object(search, "ask", lambda call, *arguments: call(*arguments)),
    ):
        yield


@contextmanager
def finishes_in_process() -> Iterator[None]:
    """Run the finishes of the context in this process, with real training."""

    def each(
        task: Callable[..., Any],
        items: Sequence[Any],
        arguments: Callable[[Any], Any],
        *,
        shared: Any,
        **_: Any,
    ) -> Iterator[tuple[Any, Any]]:
        for item in items:
            yield item, task(*arguments(item), shared)

    with (
        _threads_restored(),
        patch.object(finish, "acquire", _acquire),
        patch.object(finish, "require_capacity", _nothing),
        patch.object(finish, "each", each),
        patch.object(Watchdog, "guard", lambda _: nullcontext()),  # it would end this process
    ):
        yield


def _drive(
    reports: int | None,
    config: SearchConfig,
    make_session: Callable[[str], WorkerSession],
    resources: "_Resources",
    coordinator: Coordinator,
    stopper: BudgetStopper,
    callbacks: list[Callback],
    say: Callable[[str], None],
) -> None:
    """Let the workers take turns, each with a step, until the search is over."""
    sessions = {f"worker {number}": make_session(f"worker {number}") for number in range(resources.workers)}
    busy: set[str] = set()
    heard = 0
    while not stopper.stop_all():
        for worker, session in sessions.items():
            if worker not in busy:
                match coordinator.next_for(worker):
                    case Assignment() as assignment:
                        session.begin(assignment)
                        busy.add(worker)
                    case Finished():
                        return
                continue
            if heard == reports:
                return
            heard += 1
            decision = coordinator.hear(worker, session.step())
            for notice in session.notices():
                coordinator.notice(notice)
            if decision is not Decision.CONTINUE:
                busy.discard(worker)


def _session(worker: str, trainer: Trainer, actors: Any, clock: Callable[[], float]) -> WorkerSession:
    return WorkerSession(
        trainer,
        node=worker,
        pid=os.getpid(),
        watchdog=PatientWatchdog(),
        models=actors.models.target,
        checkpoints=LocalCheckpoints(actors.checkpoints.target),
        clock=clock,
    )


@dataclass(frozen=True, kw_only=True)
class _Resources:
    """Stands for `search.tune.cluster.Resources`: its actors are objects of this process."""

    workers: int
    gpus: float = 0.0
    device: str = "cpu"
    gpu_shared: bool = False
    has_other_nodes: bool = False

    def actor(self, kind: type[Any], *arguments: Any) -> "_Local":
        return _Local(kind(*arguments))


class _Local:
    """Stands for an actor's handle."""

    def __init__(self, target: Any) -> None:
        self.target = target

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self.target, name))


@contextmanager
def _acquire(config: SearchConfig) -> Iterator[_Resources]:
    yield _Resources(workers=config.workers or 1)


def _nothing(*_: object) -> None:
    """There is nothing to check."""


@contextmanager
def _threads_restored() -> Iterator[None]:
    """Undo what a trainer sets for its whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
