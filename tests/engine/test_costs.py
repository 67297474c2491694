"""The expected time of an epoch follows from the epochs so far."""

import pytest
from made_runs import trial_row

from search.engine.costs import Costs
from search.run.schemas import TrialRow


def _row(
    trial: int, backbone: str, frozen: int, seconds: float | None, epochs: int, state: str = "RUNNING"
) -> TrialRow:
    return trial_row(
        trial, backbone=backbone, frozen_blocks=frozen, training_seconds=seconds, epochs=epochs, state=state
    )


@pytest.fixture
def costs() -> Costs:
    """ResNet-18 at 1: 10 s in 5 epochs of two trials; at 4: 2 s in 4; AlexNet at 2: 9 s in 3."""
    costs = Costs()
    for row in [
        _row(0, "resnet18", 1, None, 0),
        _row(0, "resnet18", 1, 1.0, 1),
        _row(1, "resnet18", 4, 2.0, 4),
        _row(0, "resnet18", 1, 4.0, 2, "PRUNED"),
        _row(2, "resnet18", 1, 6.0, 3),
        _row(3, "alexnet", 2, 9.0, 3, "FAIL"),
    ]:
        costs.observe(row)
    return costs


@pytest.mark.parametrize(
    ("backbone", "frozen", "seconds"),
    [
        ("resnet18", 1, 2.0),
        ("resnet18", 4, 0.5),
        ("resnet18", 0, 2.0),
        ("resnet18", 5, 0.5),
        ("alexnet", 7, 3.0),
        ("densenet121", 2, pytest.approx((2.0 + 0.5 + 3.0) / 3)),
    ],
)
def test_the_expected_time_is_the_mean_at_the_nearest_depth(
    backbone: str, frozen: int, seconds: float, costs: Costs
) -> None:
    assert costs.epoch_seconds(backbone, frozen) == seconds


def test_before_the_first_epoch_nothing_is_expected() -> None:
    costs = Costs()
    costs.observe(_row(0, "resnet18", 1, None, 0))
    assert costs.epoch_seconds("resnet18", 1) is None
