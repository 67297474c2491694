"""Simulator: replays recorded learning curves with the coordinator of a real search, in virtual time."""

import heapq
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from math import inf

import numpy as np
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import Trial

from genre_core.recipe import Recipe
from search.engine.contenders import Contender, Situation
from search.engine.coordinator import Coordinator, Limits
from search.engine.costs import Costs
from search.engine.messages import Assignment, Decision, EpochReport, Failure, Usage
from search.engine.pool_sampler import Deck, PoolSampler, PoolSpace
from search.engine.recorded import Cell, Curve, Pool
from search.engine.recorder import Recorder
from search.run.schemas import EpochRow, TrialRow
from search.study.study import Study

_EPOCH_OF_TIME = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Reached:
    """The cost of a search at an improvement of its best validation F1."""

    f1: float
    seconds: float
    """Wall-clock time since the start."""
    worker_seconds: float
    """Working time of all workers; waiting is excluded."""
    epochs: int


@dataclass(frozen=True, kw_only=True)
class Trace:
    """A replayed search."""

    improvements: tuple[Reached, ...]
    seconds: float
    worker_seconds: float
    epochs: int
    trials: int

    def reach(self, f1: float) -> Reached | None:
        """The first improvement to this F1 or more; None if the search did not reach it."""
        return next((step for step in self.improvements if step.f1 >= f1), None)


class NoTables:
    """Tables that are not stored."""

    def put_trial(self, row: TrialRow) -> None:
        """Nothing is stored."""

    def add_epoch(self, row: EpochRow, trial: TrialRow) -> None:
        """Nothing is stored."""

    def flush(self) -> None:
        """Nothing is stored."""


def simulate(pool: Pool, contender: Contender, *, workers: int, seed: int, target: float = inf) -> Trace:
    """Replay a search over the pool until it reaches an F1 or has no more trials.

    Args:
        pool: the recorded curves.
        contender: decides what runs and what stops.
        workers: number of virtual workers.
        seed: of the samplers.
        target: validation F1 at which the replay ends.
    """
    logging.getLogger("optuna").setLevel(logging.WARNING)  # Optuna reports each new study
    replay = Replay(pool, contender, workers=workers, seed=seed)
    for _ in replay.steps():
        if replay.best_f1 >= target:
            break
    return replay.trace()


@dataclass
class _Turn:
    """A trial on a worker."""

    trial: int
    curve: Curve
    attempt: int
    epoch: int
    """The last finished epoch."""
    replays: bool
    """Whether the next report replays the checkpoint."""
    begins: float = 0.0
    """Time at which the work for the next report began or begins, in seconds."""


@dataclass
class _Progress:
    """Epochs and time of a trial over all of its attempts."""

    epoch: int = 0
    seconds: float = 0.0
    features_seconds: float = 0.0


@dataclass
class _Totals:
    worker_seconds: float = 0.0
    epochs: int = 0
    improvements: list[Reached] = field(default_factory=list)


class Replay:
    """A search with virtual workers, driven by events in the order of their virtual time."""

    def __init__(self, pool: Pool, contender: Contender, *, workers: int, seed: int) -> None:
        """Set up; see `simulate`."""
        self._pool = pool
        self._space = PoolSpace.of(pool)
        deck, costs = Deck(self._space), Costs()
        parts = contender.parts(Situation(deck=deck, costs=costs, max_epochs=pool.max_epochs, seed=seed))
        random = np.random.default_rng([seed, len(pool.curves)])
        self._sampler = PoolSampler(parts.sampler, deck, random=random)
        self.study = Study(None, name="replay", sampler=self._sampler, pruner=parts.pruner)
        self.now = 0.0
        """Virtual time in seconds."""
        self._coordinator = Coordinator(
            self.study,
            Recorder(
                self.study,
                NoTables(),
                name="replay",
                show=lambda row: None,
                costs=costs,
                now=lambda: _EPOCH_OF_TIME,
            ),
            limits=Limits(workers=workers, retries=0, epoch_limit=inf),
            goal=lambda: len(pool.curves),
            draw=self._draw,
            forget=lambda number: None,
            say=lambda line: None,
            clock=lambda: self.now,
            strategy=parts.strategy(self.study),
        )
        self._idle = [f"worker-{number}" for number in range(workers)]
        self._turns: dict[str, _Turn] = {}
        self._progress: dict[int, _Progress] = {}
        self._events: list[tuple[float, int, str]] = []
        self._order = count()
        self._passes: dict[str, tuple[int, float]] = {}
        """Backbone -> the deepest stored activations, and the time at which they are stored, in seconds."""
        self._totals = _Totals()

    @property
    def best_f1(self) -> float:
        """The best validation F1 so far."""
        return self._totals.improvements[-1].f1 if self._totals.improvements else -inf

    @property
    def paused(self) -> frozenset[int]:
        """Numbers of the trials that are paused."""
        return self._coordinator.paused

    def steps(self) -> Iterator[float]:
        """Replay the search; yields the virtual time after each report."""
        self._assign()
        while self._events:
            self.now, _, worker = heapq.heappop(self._events)
            if worker in self._turns:
                self._report(worker, self._turns[worker])
            else:
                self._idle.append(worker)
            self._assign()
            yield self.now

    def trace(self) -> Trace:
        """The cost of the search so far."""
        return Trace(
            improvements=tuple(self._totals.improvements),
            seconds=self.now,
            worker_seconds=self._worker_seconds(),
            epochs=self._totals.epochs,
            trials=self.study.asked,
        )

    def curve_of(self, trial: int) -> Curve:
        """The curve that a trial replays."""
        return self._pool.curves[self._sampler.member(trial)]

    def _draw(self, trial: Trial) -> Recipe:
        for name, distribution in self._space.distributions.items():
            if isinstance(distribution, CategoricalDistribution):
                trial.suggest_categorical(name, distribution.choices)
            else:
                assert isinstance(distribution, FloatDistribution), distribution
                trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)
        return self.curve_of(trial.number).recipe

    def _assign(self) -> None:
        """Give idle workers the coordinator's assignments."""
        while self._idle:
            answer = self._coordinator.next_for(self._idle[0])
            if not isinstance(answer, Assignment):
                return
            self._start(self._idle.pop(0), answer)

    def _start(self, worker: str, assignment: Assignment) -> None:
        curve = self.curve_of(assignment.trial)
        progress = self._progress.setdefault(assignment.trial, _Progress())
        resumes = progress.epoch > 0
        turn = _Turn(assignment.trial, curve, assignment.attempt, progress.epoch, resumes)
        self._turns[worker] = turn
        cost = self._pool.cells[curve.cell]
        features, turn.begins = self._pass(curve.cell)
        progress.features_seconds += features
        first = cost.restore if resumes else self._next_epoch_seconds(turn)
        self._after(worker, turn, features + curve.build_seconds + first)

    def _pass(self, cell: Cell) -> tuple[float, float]:
        """Seconds to compute the activations of a cell, and the time from which a worker can do so.

        A pass begins at the deepest activations that are stored, and stores those of all blocks on its way.
        """
        backbone, depth = cell
        stored, ready = self._passes.get(backbone, (0, self.now))
        begins = max(self.now, ready) if depth else self.now
        if depth <= stored:
            return 0.0, begins
        begun = self._pool.cells[backbone, stored].features if stored else 0.0
        seconds = max(0.0, self._pool.cells[cell].features - begun)
        self._passes[backbone] = depth, begins + seconds
        return seconds, begins

    def _next_epoch_seconds(self, turn: _Turn) -> float:
        curve = turn.curve
        return curve.seconds[turn.epoch] if turn.epoch < len(curve.seconds) else curve.failing_seconds

    def _after(self, worker: str, turn: _Turn, work: float) -> None:
        """Schedule the worker's next report after this much work, in seconds."""
        progress = self._progress[turn.trial]
        progress.seconds += work
        heapq.heappush(self._events, (turn.begins + work, next(self._order), worker))

    def _report(self, worker: str, turn: _Turn) -> None:
        self._totals.worker_seconds += self.now - turn.begins
        turn.begins = self.now
        if turn.replays:
            report = self._epoch_report(worker, turn)
            turn.replays = False
            self._obey(self._coordinator.hear(worker, report), worker, turn)
        elif turn.epoch == len(turn.curve.scores):
            failure = Failure(reason=str(turn.curve.error))
            self._obey(self._coordinator.hear(worker, failure), worker, turn)
        else:
            turn.epoch += 1
            self._progress[turn.trial].epoch = turn.epoch
            self._totals.epochs += 1
            self._note(turn.curve.scores[turn.epoch - 1])
            self._obey(self._coordinator.hear(worker, self._epoch_report(worker, turn)), worker, turn)

    def _obey(self, decision: Decision, worker: str, turn: _Turn) -> None:
        """Carry out the coordinator's decision; a worker that pauses a trial stores its checkpoint first."""
        if decision is Decision.CONTINUE:
            self._after(worker, turn, self._next_epoch_seconds(turn))
            return
        del self._turns[worker]
        save = self._pool.cells[turn.curve.cell].save if decision is Decision.PAUSE else 0.0
        self._totals.worker_seconds += save
        if save:
            heapq.heappush(self._events, (self.now + save, next(self._order), worker))
        else:
            self._idle.append(worker)

    def _note(self, f1: float) -> None:
        if f1 > self.best_f1:
            self._totals.improvements.append(
                Reached(
                    f1=f1,
                    seconds=self.now,
                    worker_seconds=self._worker_seconds(),
                    epochs=self._totals.epochs,
                )
            )

    def _worker_seconds(self) -> float:
        """Working time so far, including unfinished work."""
        return self._totals.worker_seconds + sum(
            max(0.0, self.now - turn.begins) for turn in self._turns.values()
        )

    def _epoch_report(self, worker: str, turn: _Turn) -> EpochReport:
        curve, progress = turn.curve, self._progress[turn.trial]
        scores = curve.scores[: turn.epoch]
        return EpochReport(
            row=EpochRow(
                trial=turn.trial,
                attempt=turn.attempt,
                epoch=turn.epoch,
                val_f1=scores[-1],
                seconds=curve.seconds[turn.epoch - 1],
            ),
            usage=_usage(curve, progress, node=worker),
            best_epoch=scores.index(max(scores)) + 1,
            finished=turn.epoch == len(curve.scores) and curve.error is None,
            replayed=turn.replays,
        )


def _usage(curve: Curve, progress: _Progress, *, node: str) -> Usage:
    return Usage(
        trainable_parameters=curve.trainable_parameters,
        features="shared" if curve.recipe.frozen_blocks else "none",
        features_seconds=progress.features_seconds,
        resident=True,
        total_seconds=progress.seconds,
        memory_before_bytes=0,
        peak_memory_bytes=0,
        device="cpu",
        node=node,
        pid=0,
    )
