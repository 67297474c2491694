"""Plans of searches without data."""

from typing import Any

from search.config.schema import SearchConfig
from search.engine.costs import Costs, Workload
from search.engine.forecast import CostSource, Forecast, Plan, cells


def make_plan_of(
    config: SearchConfig | None = None,
    *,
    forecast: Forecast | None,
    source: CostSource = CostSource.PROBED,
    costs: Costs | None = None,
    **values: Any,
) -> Plan:
    """A plan on two CPU workers; by default of the default configuration."""
    config = config or SearchConfig()
    kinds = tuple(cells(config.space))
    known: dict[str, Any] = {
        "workload": Workload(),
        "image": (128, 130),
        "configurations": None,
        "workers": 2,
        "device": "cpu",
        "measured": 0,
        "budget": None,
    }
    return Plan(
        config=config,
        source=source,
        costs=costs or Costs(),
        kinds=kinds,
        forecast=forecast,
        **(known | values),
    )
