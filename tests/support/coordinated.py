"""A search that tests drive by hand: its coordinator, study and tables, without Ray, training or waiting."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from search.config.schema import SearchConfig, load, to_yaml
from search.engine.coordinator import Coordinator, Limits
from search.engine.costs import Costs
from search.engine.messages import Assignment
from search.engine.ports import Strategy
from search.engine.recorder import Recorder
from search.recovery.reconcile import reconcile
from search.recovery.unclaimed import Unclaimed
from search.run.schemas import TrialRow
from search.run.tables import ResultsWriter
from search.study.pruners import make_pruner
from search.study.samplers import make_sampler
from search.study.study import Study
from search.study.suggest import sample
from search.study.without_repeats import goal

CONFIG = load(
    None,
    {
        "space.backbone": "resnet18",
        "space.frozen_blocks": 3,
        "weights": "random",
        "provenance": {"weights": {}},
    },
)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Coordinated:
    """A search in a folder, and what its coordinator did to others."""

    def __init__(
        self,
        folder: Path,
        config: SearchConfig = CONFIG,
        *,
        show: Callable[[TrialRow], None] = lambda row: None,
        study: Study | None = None,
        strategy: Strategy | None = None,
        **limits: Any,
    ) -> None:
        """Begin a search.

        Args:
            folder: of the run.
            config: its settings.
            show: called with each changed row.
            study: where it is not one of random trials that are not pruned.
            strategy: where it does not always start new trials.
            limits: see `Limits`; by default two workers, no retries and a minute for an epoch.
        """
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
        self.folder = folder
        self.clock = Clock()
        self.said: list[str] = []
        self.forgotten: list[int] = []
        self.study = study or open_study(folder)
        writer = ResultsWriter(folder)
        self.costs = Costs()
        recorder = Recorder(self.study, writer, name=folder.name, show=show, costs=self.costs)
        if self.study.asked:
            recorder.take_up(reconcile(folder, config, self.study, writer, Unclaimed(folder)))
        self.coordinator = Coordinator(
            self.study,
            recorder,
            limits=Limits(**{"workers": 2, "retries": 0, "epoch_limit": 60.0} | limits),
            goal=lambda: goal(config, self.study),
            draw=lambda trial: sample(trial, config),
            forget=self.forgotten.append,
            say=self.said.append,
            clock=self.clock,
            strategy=strategy,
        )

    def assign(self, worker: str) -> Assignment:
        """The next trial, which there has to be."""
        answer = self.coordinator.next_for(worker)
        assert isinstance(answer, Assignment), answer
        return answer

    def state(self, trial: int) -> tuple[str, str | None]:
        """A trial's state, and why it failed."""
        return self.study.state(trial), self.study.error(trial)


def open_study(folder: Path, sampler: str = "random", **parameters: Any) -> Study:
    """A study in a run's folder, whose trials are not pruned."""
    return Study(
        folder / "study.journal",
        name=folder.name,
        sampler=make_sampler(sampler, parameters, seed=0),
        pruner=make_pruner("none", {}, epochs=9),
    )
