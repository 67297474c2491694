"""How many trials share a GPU at a time, simulated from trials that a GPU was measured to train; needs no GPU.

    python benchmarks/gpu_packing.py [--measured results/gpu-….json] [--trials 50] [--workers 4] [--slower 20]

draws trials from the measured kinds and lets workers request memory for them, by

- *in order*, the rule of earlier versions: a kind that was not measured takes the whole GPU, requests are granted
  strictly in order, and a waiting worker looks once a second;
- *estimated*, the rule of `search/engine/gpu_queue.py`.

Trials take the measured time and memory, whichever others run; `--slower` multiplies the time, as a larger corpus does.
A trial that finds less memory than it takes is repeated alone, and counted.
"""

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genre_core.recipe import Recipe
from search.engine.gpu_demand import CONTEXT_BYTES, DataShape, Demand, demand_of
from search.engine.gpu_queue import GpuQueue, Worker

GIB = 2**30
MEMORY_SHARE = 0.9
"""See `search.tune.trainable.GPU_MEMORY_SHARE`."""
TICK = 0.02
"""Seconds of a step of the simulation, and between two looks of a worker that waits."""
SLOW_LOOK = 50
"""Ticks between two looks in earlier versions: a second."""
EPOCHS = 5
"""Of the measured trials."""
RESULTS = Path(__file__).parent / "results" / "gpu-nvidia-h100-80gb-hbm3.json"
SIZES = (80, 16, 8)
"""GiB of the simulated GPUs."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A trial as it was measured."""

    demand: Demand
    seconds: float
    peak: int
    """Bytes, with those of its process."""


class InOrder(GpuQueue):
    """The rule of earlier versions."""

    def request(self, by: Worker, demand: Demand, *, alone: bool) -> bool:
        """Without an estimate."""
        return super().request(by, Demand(kind=demand.kind, estimate=None), alone=alone)

    def _grant(self) -> None:
        before = 0
        for request in self.requests:
            if not request.granted and before and before + request.bytes > self.capacity:
                return
            request.granted = True
            before += request.bytes


@dataclass(kw_only=True)
class Slot:
    """A worker of the simulation."""

    me: Worker
    trial: Trial
    left: float
    """Seconds of the trial."""
    began: int
    """Tick of its request."""
    running: bool = False
    failed: bool = False


@dataclass(kw_only=True)
class Outcome:
    """What a simulated search took."""

    at_a_time: float
    seconds: float
    out_of_memory: int
    longest_wait: float


@dataclass(kw_only=True)
class Simulation:
    """A search whose trials share one GPU."""

    queue: GpuQueue
    total: int
    """Bytes of the GPU."""
    look: int
    """Ticks between two looks of a worker that waits."""
    workers: int
    tick: int = 0
    errors: int = 0
    waits: list[int] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)

    def run(self, trials: Sequence[Trial]) -> Outcome:
        """Train all trials, each given to the next worker that is free."""
        waiting, busy = list(trials), 0
        free = [Worker(number, 0.0) for number in range(self.workers)]
        while waiting or self.slots:
            while waiting and free:
                self._begin(free.pop(), waiting.pop(0))
            free += [slot.me for slot in list(self.slots) if self._step(slot)]
            busy += sum(slot.running for slot in self.slots)
            self.tick += 1
        return Outcome(
            at_a_time=busy / self.tick,
            seconds=self.tick * TICK,
            out_of_memory=self.errors,
            longest_wait=max(self.waits) * TICK,
        )

    def _begin(self, me: Worker, trial: Trial) -> None:
        slot = Slot(me=me, trial=trial, left=trial.seconds, began=self.tick)
        self.slots.append(slot)
        if self.queue.request(me, trial.demand, alone=False):
            self._start(slot)

    def _start(self, slot: Slot) -> None:
        """Start a trial if there is as much memory as it takes, else request the whole GPU."""
        others = [other for other in self.slots if other.running]
        used = sum(other.trial.peak for other in others)
        contexts = CONTEXT_BYTES * (len(self.slots) - 1 - len(others))
        if others and used + slot.trial.peak + contexts > self.total:
            self.errors += 1
            slot.failed = True
            if not self.queue.request(slot.me, slot.trial.demand, alone=True):
                return
        self.waits.append(self.tick - slot.began)
        slot.running = True

    def _step(self, slot: Slot) -> bool:
        """Let a worker wait or train for a tick; whether its trial has ended."""
        if not slot.running:
            looks = (self.tick - slot.began) % self.look == 0
            if looks and self.queue.is_granted(slot.me):
                self._start(slot)
            return False
        first_epoch = slot.trial.seconds * (1 - 1 / EPOCHS)
        if slot.left > first_epoch >= slot.left - TICK:
            self.queue.measured(slot.me, slot.trial.peak)
        slot.left -= TICK
        if slot.left > 0:
            return False
        self.queue.release(slot.me)
        self.slots.remove(slot)
        return True


def read_trials(file: Path) -> list[Trial]:
    """The measured trials."""
    content = json.loads(file.read_text())
    return [_trial(row, content["asked"]["segments"]) for row in content["trials"]]


def _trial(row: dict[str, Any], segments: int) -> Trial:
    side = row["side"]
    data = DataShape(segments=segments + segments // 4, channels=1, mels=side, frames=side, genres=10)
    recipe = Recipe(
        backbone=row["backbone"],
        weights="random",
        frozen_blocks=row["depth"],
        learning_rate=0.01,
        momentum=0.9,
        batch_size=row["batch_size"],
        precision=row["precision"],
    )
    return Trial(
        demand=demand_of(recipe, data, resident=True, capacity=80 * GIB),
        seconds=row["first"]["total"],
        peak=round(row["first"]["peak_gib"] * GIB) + CONTEXT_BYTES,
    )


def drawn(measured: Sequence[Trial], count: int, *, seed: int, slower: float, own_kinds: bool) -> list[Trial]:
    """Trials in random order.

    Args:
        measured: to draw from.
        count: number of trials.
        seed: of the draw.
        slower: factor of their time.
        own_kinds: whether each is of another kind, as with a range of batch sizes.
    """

    def made(number: int, trial: Trial) -> Trial:
        kind = f"{trial.demand.kind}/{number}" if own_kinds else trial.demand.kind
        demand = Demand(kind=kind, estimate=trial.demand.estimate)
        return Trial(demand=demand, seconds=slower * trial.seconds, peak=trial.peak)

    return [
        made(number, trial) for number, trial in enumerate(random.Random(seed).choices(measured, k=count))
    ]


def simulate(rule: type[GpuQueue], gib: int, trials: Sequence[Trial], workers: int) -> Outcome:
    """Simulate a search on a GPU of some GiB."""
    queue = rule(capacity=int(MEMORY_SHARE * gib * GIB))
    look = SLOW_LOOK if rule is InOrder else 1
    return Simulation(queue=queue, total=gib * GIB, look=look, workers=workers).run(trials)


def rows(measured: Sequence[Trial], arguments: argparse.Namespace) -> Iterator[str]:
    """The lines of the table."""
    yield "| GPU | kinds | rule | trials at a time | seconds | out of memory | longest wait, s |"
    yield "|---|---|---|---|---|---|---|"
    for gib in SIZES:
        for own_kinds in (False, True):
            trials = drawn(
                measured, arguments.trials, seed=arguments.seed, slower=arguments.slower, own_kinds=own_kinds
            )
            for name, rule in (("in order", InOrder), ("estimated", GpuQueue)):
                got = simulate(rule, gib, trials, arguments.workers)
                kinds = len({trial.demand.kind for trial in trials})
                yield (
                    f"| {gib} GiB | {kinds} | {name} | {got.at_a_time:.2f} | {got.seconds:.0f} | "
                    f"{got.out_of_memory} | {got.longest_wait:.1f} |"
                )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--measured", type=Path, default=RESULTS)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--slower", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print("\n".join(rows(read_trials(arguments.measured), arguments)))


if __name__ == "__main__":
    main()
