"""A dry run plans a search without Ray and without a run folder, from measured costs where there are any."""

import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
import ray
from conftest import Command, sets
from made_runs import trial_row
from reporters import RecordingReporter
from rich.console import Console
from without_ray import searches_in_process

from search.config.schema import SearchConfig
from search.data import prepare
from search.data.prepare import Prepared
from search.display.progress import Display
from search.engine import cost_cache
from search.engine.costs import CellCost
from search.engine.forecast import CostSource
from search.run.tables import read_trials
from search.tune import plan, search
from search.tune.plan import conditions, make_plan, remember

Make = Callable[..., SearchConfig]


@pytest.fixture
def prepared(tiny: Make, cache: Path) -> Prepared:
    """The data of the tiny search."""
    _, prepared = prepare.prepare(tiny(), cache=cache, reporter=RecordingReporter())
    return prepared


@pytest.fixture
def no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    def probe(*_: object, **__: object) -> None:
        raise AssertionError("nothing is to be probed")

    monkeypatch.setattr(plan, "probe", probe)


def test_a_dry_run_shows_the_plan_and_leaves_nothing_behind(
    genre_search: Command, music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(*_: object, **__: object) -> None:
        raise AssertionError("Ray is not to be started")

    monkeypatch.setattr(ray, "init", init)
    done = genre_search(
        *("run", "--data", music, "--runs", tmp_path / "runs", "--dry-run", "--price", "3"), *sets()
    )
    assert done.returncode == 0, done.stderr
    assert "Forecast of 4 trials: " in done.stdout
    assert "price " in done.stdout
    assert "10 genres" in done.stdout
    assert not (tmp_path / "runs").exists()


def test_a_mistake_is_one_line_and_nothing_is_planned(genre_search: Command, tmp_path: Path) -> None:
    done = genre_search("run", "--data", tmp_path / "nowhere", "--runs", tmp_path / "runs", "--dry-run")
    assert (done.returncode, done.stdout.count("\n")) == (2, 1), "the title"
    assert done.stderr.count("\n") == 1
    assert "nowhere" in done.stderr


def test_without_measured_costs_one_batch_of_each_backbone_is_timed(
    tiny: Make, prepared: Prepared, tmp_path: Path
) -> None:
    made = make_plan(tiny(), prepared, cache=tmp_path)
    assert made.source is CostSource.PROBED
    assert made.forecast is not None
    assert 0 < made.forecast.low < made.forecast.high
    assert not list(tmp_path.iterdir()), "a probe is not a measurement of trials"


@pytest.mark.usefixtures("no_probe")
def test_the_costs_of_an_earlier_search_are_used(tiny: Make, prepared: Prepared, tmp_path: Path) -> None:
    config = tiny(space__frozen_blocks=[3, 5])
    segments = plan.workload(config, prepared).segments
    for depth, seconds in ((3, 8.0), (5, 2.0)):
        cost = CellCost(backbone="resnet18", frozen_blocks=depth, epoch_seconds=seconds)
        cost_cache.update(
            tmp_path, conditions(config, prepared, "cpu"), {"cpu": [cost]}, segments=2 * segments
        )
    made = make_plan(config, prepared, cache=tmp_path)
    assert (made.source, made.measured, len(made.kinds)) == (CostSource.MEASURED, 2, 2)
    assert made.costs.of("resnet18", 3).epoch == pytest.approx(4.0)
    assert made.costs.of("resnet18", 5).epoch == pytest.approx(1.0)


@pytest.mark.usefixtures("no_probe")
def test_what_a_search_measured_is_known_to_the_next(tiny: Make, prepared: Prepared, tmp_path: Path) -> None:
    config = tiny()
    rows = [trial_row(0, backbone="resnet18", frozen_blocks=4, epochs=2, training_seconds=6.0, device="cpu")]
    cost = CellCost(backbone="resnet18", frozen_blocks=3, epoch_seconds=50.0)
    where = conditions(config, prepared, "cpu"), {"cpu": [cost]}
    cost_cache.update(tmp_path, *where, segments=plan.workload(config, prepared).segments)
    first = make_plan(config, prepared, cache=tmp_path, rows=rows, trials=3)
    assert (first.source, first.measured) == (CostSource.MEASURED, 2)
    assert first.forecast is not None
    assert first.forecast.trials == 3
    remember(tmp_path, config, prepared, first.costs)
    second = make_plan(config, prepared, cache=tmp_path)
    assert [second.costs.of("resnet18", depth).epoch for depth in (3, 4)] == [50.0, 3.0]


def test_a_search_begins_with_its_plan_and_stores_what_it_measured(
    tiny: Make, prepared: Prepared, tmp_path: Path
) -> None:
    screen = StringIO()
    display = Display(Console(file=screen, width=200), trials=4, price=1.0)
    with searches_in_process():
        search.run(tiny(), folder=tmp_path / "r", cache=tmp_path, reporter=display)
    assert "Forecast of 4 trials: " in screen.getvalue()
    seconds = read_trials(tmp_path / "r")["seconds"].sum()
    spent = re.match(r"spent (\d+) s of worker time", display.spent() or "")
    assert spent is not None
    assert int(spent[1]) >= int(seconds), "workers also held trials between their epochs"
    ran = {(row.backbone, row.frozen_blocks) for row in read_trials(tmp_path / "r").itertuples()}
    stored = cost_cache.read(tmp_path, conditions(tiny(), prepared, "cpu"), segments=1)
    assert {(cost.backbone, cost.frozen_blocks) for costs in stored.values() for cost in costs} == ran


@pytest.mark.usefixtures("no_probe")
def test_a_cluster_is_not_probed(tiny: Make, prepared: Prepared, tmp_path: Path) -> None:
    made = make_plan(tiny(address="10.0.0.1:6379", workers=None), prepared, cache=tmp_path)
    assert (made.source, made.forecast, made.workers) == (CostSource.UNKNOWN, None, None)


def test_the_budget_in_worker_time_follows_from_the_workers(tiny: Make) -> None:
    assert plan.worker_seconds(tiny(time_budget="60s"), 3) == 180.0
    assert plan.worker_seconds(tiny(time_budget="60s", worker_budget="100s"), 3) == 100.0
    assert plan.worker_seconds(tiny(time_budget="60s", worker_budget="100s"), 3, spent=80.0) == 20.0
    assert plan.worker_seconds(tiny(time_budget="60s"), 3, spent=80.0) == 180.0
    assert plan.worker_seconds(tiny(), 3) is None


@pytest.mark.usefixtures("no_probe")
def test_costs_of_another_kind_of_device_are_not_used(tiny: Make, prepared: Prepared, tmp_path: Path) -> None:
    on_cluster = tiny(address="10.0.0.1:6379", precision="float32")
    segments = plan.workload(on_cluster, prepared).segments
    cost = CellCost(backbone="resnet18", frozen_blocks=3, epoch_seconds=1.0)
    for config, device in ((on_cluster, "NVIDIA H100"), (tiny(), "cpu")):
        cost_cache.update(tmp_path, conditions(config, prepared, device), {device: [cost]}, segments=segments)
    assert make_plan(on_cluster, prepared, cache=tmp_path).device == "NVIDIA H100"
    assert make_plan(tiny(), prepared, cache=tmp_path).device == "cpu"
