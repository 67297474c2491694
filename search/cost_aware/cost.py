"""The cost of computing more of a trial."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Seconds that a worker needs for a configuration, measured or estimated."""

    start: float
    """Once before its first epoch; 0 if what it prepares is stored already."""
    epoch: float
    """For each epoch."""
    switch: float
    """Each time that a worker takes it up again after it was paused."""


CostOf = Callable[[Mapping[str, Any]], Cost]
"""The cost of a configuration, given as the parameters of an Optuna trial."""
