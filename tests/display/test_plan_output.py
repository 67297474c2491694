"""The plan of a search in lines of 80 columns: space, costs, forecast, and its price."""

from pathlib import Path

import pytest
from documented import EFFICIENTNET_B0, files, importable
from plans import make_plan_of

from genre_core.models.registry import BLOCKS
from search.config.schema import load
from search.display.plan_output import COLUMNS, plan_lines
from search.engine.costs import CellCost, Costs
from search.engine.forecast import CostSource, Forecast

HOURS = Forecast(trials=50, low=3600.0, high=36_000.0, most=72_000.0)


def test_the_plan_shows_the_searched_settings_and_not_the_fixed_ones() -> None:
    config = load(
        None, {"space.backbone": ["vgg16", "resnet18"], "space.batch_size": [16, 32], "space.momentum": 0.9}
    )
    text = "\n".join(plan_lines(make_plan_of(config, forecast=HOURS)))
    assert "vgg16, resnet18" in text
    assert "16, 32" in text
    assert "0.0001 to 0.1, logarithmic" in text
    assert "momentum" not in text
    assert "0 to all" in text


def test_the_forecast_is_in_worker_time_in_time_and_in_money() -> None:
    lines = plan_lines(make_plan_of(forecast=HOURS), price=2.5)
    assert lines[-4:] == [
        "Forecast of 50 trials: 1 h 0 min to 10 h 0 min of worker time",
        "  at most 20 h 0 min, with every trial trained to its last epoch",
        "  with 2 workers: 30 min 0 s to 5 h 0 min",
        "  price 2.50 to 25.00, at 2.5 for an hour of a worker",
    ]
    assert not any("price" in line for line in plan_lines(make_plan_of(forecast=HOURS)))


def test_the_trials_that_fit_into_the_budget_are_counted() -> None:
    forecast = Forecast(trials=50, low=3600.0, high=3600.0, most=3600.0, fit=(5, 40))
    assert "5 to 40 of 50 trials" in plan_lines(make_plan_of(forecast=forecast, budget=3600.0))[-1]


def test_the_table_has_the_measured_costs_of_the_deepest_and_the_shallowest_trials() -> None:
    costs = Costs()
    for depth, seconds in ((0, 50.0), (5, 2.0)):
        costs.prime(CellCost(backbone="resnet18", frozen_blocks=depth, epoch_seconds=seconds), device="cpu")
    config = load(None, {"space.backbone": "resnet18", "training.epochs": 3})
    plan = make_plan_of(config, forecast=HOURS, costs=costs, source=CostSource.MEASURED, measured=2)
    lines = [line.split() for line in plan_lines(plan)]
    assert ["resnet18", "5", "2", "s"] in [[*line[:2], *line[4:6]] for line in lines]
    assert ["resnet18", "0", "50", "s"] in [[*line[:2], *line[4:6]] for line in lines]


def test_the_table_of_costs_is_aligned_with_long_names_of_backbones(tmp_path: Path) -> None:
    with importable(tmp_path, files("python")):
        config = load(None, {"space.backbone": ["resnet18", EFFICIENTNET_B0]})
        lines = plan_lines(make_plan_of(config, forecast=None))
    title = next(number for number, line in enumerate(lines) if line.startswith("Costs on"))
    table = lines[title + 1 : title + 6]
    assert {len(line) for line in table} == {len(table[0])}
    assert len(table[0]) <= COLUMNS


def test_a_cluster_of_unknown_costs_gets_no_numbers() -> None:
    lines = plan_lines(make_plan_of(forecast=None, source=CostSource.UNKNOWN, workers=None), price=1.0)
    assert "cluster" in lines[-2]
    assert not any(character.isdigit() for line in lines[-2:] for character in line)


@pytest.mark.parametrize("epochs", [1, 2**32 - 1])
def test_every_line_fits_80_columns(epochs: int) -> None:
    config = load(None, {"space.backbone": sorted(BLOCKS), "training.epochs": epochs, "trials": 2**32 - 1})
    forecast = Forecast(trials=config.trials, low=3.6e7, high=3.6e8, most=3.7e8, fit=(123_456, 4_123_456))
    for source in CostSource:
        plan = make_plan_of(config, forecast=forecast, source=source, workers=1000)
        assert max(map(len, plan_lines(plan, price=9999.0))) <= 80
