"""The forecast of a search brackets what its trials cost, and counts those that fit into a budget."""

import pytest

from genre_core.models.registry import BLOCKS
from search.config.schema import Optuna, Training
from search.config.space import DepthRange, Space
from search.engine.costs import CellCost, Costs, build_seconds
from search.engine.forecast import Cell, Looks, cells, forecast, looks


def _known(**epoch_seconds: float) -> Costs:
    """Costs of trials with nothing frozen."""
    costs = Costs()
    for backbone, seconds in epoch_seconds.items():
        costs.prime(CellCost(backbone=backbone, frozen_blocks=0, epoch_seconds=seconds), device="cpu")
    return costs


RESNET = (Cell(backbone="resnet18", frozen_blocks=0, share=1.0),)
BOTH = tuple(Cell(backbone=name, frozen_blocks=0, share=0.5) for name in ("resnet18", "alexnet"))


def test_the_kinds_of_trials_are_those_of_the_space_by_their_share() -> None:
    space = Space(backbone=("alexnet", "resnet18"), frozen_blocks=DepthRange())
    found = cells(space)
    assert {(cell.backbone, cell.frozen_blocks) for cell in found} == {
        (name, depth) for name in ("alexnet", "resnet18") for depth in range(len(BLOCKS[name]) + 1)
    }
    assert sum(cell.share for cell in found if cell.backbone == "alexnet") == pytest.approx(0.5)
    assert [cell.frozen_blocks for cell in cells(Space(backbone="vgg16", frozen_blocks=(0, 7)))] == [0, 7]
    assert [cell.frozen_blocks for cell in cells(Space(backbone="vgg16", frozen_blocks=2))] == [2]
    bounded = Space(backbone="vgg16", frozen_blocks=DepthRange(low=1, high=3))
    assert [cell.frozen_blocks for cell in cells(bounded)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("pruner", "first", "complete"),
    [
        (None, 1, 0),
        (Optuna(name="none"), 4, 0),
        (Optuna(name="median"), 1, 5),
        (Optuna.model_validate({"name": "median", "n_warmup_steps": 2, "n_startup_trials": 3}), 3, 3),
        (Optuna.model_validate({"name": "hyperband", "min_resource": 2}), 2, 0),
        (Optuna.model_validate({"name": "successive_halving", "min_resource": "auto"}), 1, 0),
        (Optuna.model_validate({"name": "median", "n_warmup_steps": 50}), 4, 5),
    ],
)
def test_a_trial_is_pruned_at_its_first_look_at_the_earliest(
    pruner: Optuna | None, first: int, complete: int
) -> None:
    training = Training(epochs=10, patience=3)
    prunes = pruner is None or pruner.name != "none"
    assert looks(training, pruner) == Looks(first=first, complete=complete, all=10, prunes=prunes)


def test_trials_of_one_kind_cost_their_epochs_and_their_networks() -> None:
    found = forecast(_known(resnet18=2.0), RESNET, Looks(first=1, complete=3, all=5), trials=40)
    networks = 40 * build_seconds("resnet18", 0)
    assert found.low == pytest.approx(2.0 * (3 * 5 + 37) + networks)
    assert found.high == pytest.approx(2.0 * 0.75 * 200 + networks)
    assert found.most == pytest.approx(2.0 * 200 + networks)
    assert found.fit is None


def test_without_a_pruner_every_trial_may_be_trained_to_its_end() -> None:
    kinds, never = RESNET, Looks(first=4, complete=0, all=5, prunes=False)
    found = forecast(_known(resnet18=2.0), kinds, never, trials=40)
    assert found.high == found.most == pytest.approx(2.0 * 200 + 40 * build_seconds("resnet18", 0))


def test_activations_are_computed_once_for_each_kind() -> None:
    costs = Costs()
    known = CellCost(backbone="resnet18", frozen_blocks=5, epoch_seconds=1.0, pass_seconds=100.0)
    costs.prime(known, device="cpu")
    kinds = (Cell(backbone="resnet18", frozen_blocks=5, share=1.0),)
    found = forecast(costs, kinds, Looks(first=1, complete=0, all=1), trials=4)
    assert found.low == found.high == pytest.approx(4 + 100 + 4 * build_seconds("resnet18", 5))


def test_kinds_that_are_drawn_by_chance_widen_the_range() -> None:
    costs, once = _known(resnet18=1.0, alexnet=9.0), Looks(first=1, complete=0, all=1)
    few, many = (forecast(costs, BOTH, once, trials=trials) for trials in (4, 400))
    assert few.low < 4 * 5 < few.high
    assert many.low < 400 * 5 + 400 * build_seconds("alexnet", 0) < many.high * 1.1
    assert few.high / few.low > 1.5 > 1.2 > many.high / many.low


def test_a_budget_caps_the_range_and_counts_the_trials_that_fit() -> None:
    costs, looks = _known(resnet18=2.0), Looks(first=1, complete=0, all=5)
    build = build_seconds("resnet18", 0)
    found = forecast(costs, RESNET, looks, trials=100, budget=10 * (10 + build) + 1)
    assert found.high == found.low == 10 * (10 + build) + 1
    assert found.fit == (10, int((10 * (10 + build) + 1) / (2 + build)))
    assert forecast(costs, RESNET, looks, trials=100, budget=1e6).fit is None


def test_nothing_left_costs_nothing() -> None:
    found = forecast(Costs(), RESNET, Looks(first=1, complete=0, all=5), trials=0)
    assert (found.low, found.high, found.most) == (0.0, 0.0, 0.0)


def test_a_search_of_any_length_is_forecast_at_once() -> None:
    costs, once = _known(resnet18=1.0, alexnet=3.0), Looks(first=1, complete=0, all=1)
    short, long = (forecast(costs, BOTH, once, trials=trials) for trials in (1000, 4_000_000_000))
    assert long.high == pytest.approx(short.high * 4_000_000)
    fewest, most = forecast(costs, BOTH, once, trials=4_000_000_000, budget=short.high * 1000).fit or (0, 0)
    assert 900_000 < fewest <= most < 1_100_000
