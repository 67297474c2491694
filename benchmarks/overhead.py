"""Measure the cost of no-op trials as a search grows: Ray Tune's part, Optuna's, and genre-search's.

python benchmarks/overhead.py --trials 10000 [--sampler tpe] [--epochs 20]
"""

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune

from search.config.schema import SearchConfig, load
from search.engine.coordinator import Coordinator, Limits
from search.engine.messages import EpochReport, Usage
from search.engine.recorder import Recorder
from search.run.schemas import RUNNING, EpochRow, TrialRow
from search.run.tables import ResultsWriter
from search.study import pruners, samplers
from search.study.study import Study
from search.study.suggest import sample
from search.study.without_repeats import goal
from search.tune import search
from search.tune.adapter import BudgetStopper
from search.tune.cluster import Resources, connected
from search.tune.scratch import scratch
from search.tune.wire_format import assignment_of, result_of

MARKS = (100, 1000, 5000, 10_000)
WINDOW = 100
"""Number of trials before each mark over which costs are averaged."""


class Clock:
    """Seconds by part; time in a nested call counts only for the called part."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._inner = [0.0]

    def watch(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function so that its time counts for a part."""

        def watched(*args: Any, **kwargs: Any) -> Any:
            self._inner.append(0.0)
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent = time.perf_counter() - began
                self.seconds[part] += spent - self._inner.pop()
                self._inner[-1] += spent

        return watched


class Nothing(tune.Trainable):
    """A worker whose epochs take no time."""

    def setup(self, config: dict[str, Any], epochs: int = 1) -> None:
        """Take the first assignment."""
        self._epochs = epochs
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next assignment in the same process."""
        self._trial, self._done = assignment_of(new_config).trial, 0
        return True

    def step(self) -> dict[str, Any]:
        """Report an epoch of a ten-genre corpus."""
        self._done += 1
        row = EpochRow(
            trial=self._trial,
            attempt=1,
            epoch=self._done,
            train_loss=1.0,
            val_loss=1.0,
            val_accuracy=0.5,
            val_precision=0.5,
            val_recall=0.5,
            val_f1=0.5,
            f1_per_genre=(0.5,) * 10,
            confusion=((1,) * 10,) * 10,
            learning_rate=0.1,
            seconds=0.0,
            arithmetic_seconds=0.0,
            samples_per_second=1.0,
        )
        usage = Usage(
            trainable_parameters=1,
            features="none",
            features_seconds=0.0,
            resident=True,
            total_seconds=0.0,
            memory_before_bytes=1,
            peak_memory_bytes=1,
            device="cpu",
            node="one",
            pid=1,
        )
        finished = self._done == self._epochs
        return result_of(EpochReport(row=row, usage=usage, best_epoch=1, finished=finished), [])


def main() -> None:
    """Run the no-op trials and print their cost at each mark as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--sampler", default="random")
    parser.add_argument("--pruner", default="none")
    parser.add_argument("--epochs", type=int, default=1)
    arguments = parser.parse_args()
    config = load(
        None,
        {
            "trials": arguments.trials,
            "sampler": arguments.sampler,
            "pruner": arguments.pruner,
            "training.epochs": arguments.epochs,
        },
    )
    with (
        tempfile.TemporaryDirectory(prefix="gsb", dir="/tmp") as folder,
        scratch() as temporary,
        connected(None, folder=temporary),
    ):
        resources = Resources(workers=2, gpus=0.0, scratch=temporary)
        print(
            json.dumps(
                vars(arguments) | {"ms": _measure(config, arguments.epochs, Path(folder), resources)},
                indent=1,
            )
        )


def _measure(config: SearchConfig, epochs: int, folder: Path, resources: Resources) -> list[dict[str, float]]:
    """Milliseconds per trial by part, at each mark."""
    clock = Clock()
    assert config.sampler is not None
    assert config.pruner is not None
    the_study = Study(
        folder / "study.journal",
        name="s",
        sampler=samplers.make_sampler(config.sampler.name, {}, seed=0),
        pruner=pruners.make_pruner(config.pruner.name, {}, epochs=epochs),
    )
    for method in ("ask", "report", "complete", "prune"):
        setattr(the_study, method, clock.watch("optuna", getattr(the_study, method)))
    ended: list[tuple[float, dict[str, float]]] = []

    def show(row: TrialRow) -> None:
        if row.state != RUNNING:
            ended.append((time.perf_counter(), dict(clock.seconds)))

    coordinator = Coordinator(
        the_study,
        Recorder(the_study, ResultsWriter(folder), name="s", show=show),
        limits=Limits(workers=2, retries=0, epoch_limit=3600.0),
        goal=lambda: goal(config, the_study),
        draw=clock.watch("optuna", partial(sample, config=config)),
        forget=lambda number: None,
        say=print,
        clock=time.monotonic,
    )
    for method in ("next_for", "hear"):
        setattr(coordinator, method, clock.watch("ours", getattr(coordinator, method)))
    trainable = tune.with_parameters(Nothing, epochs=epochs)
    stopper = BudgetStopper(coordinator, spent=lambda: None)
    search._tune(config, trainable, resources, coordinator, stopper, [], print)
    rows = []
    for mark in MARKS:
        if mark > len(ended):
            break
        (began, before), (now, after) = ended[mark - WINDOW], ended[mark - 1]
        parts = {name: 1000 * (after[name] - before[name]) / (WINDOW - 1) for name in after}
        whole = 1000 * (now - began) / (WINDOW - 1)
        rows.append({"trials": mark, "all": whole, **parts, "tune": whole - sum(parts.values())})
    return rows


if __name__ == "__main__":
    main()
