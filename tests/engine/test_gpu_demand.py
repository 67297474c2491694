"""The GPU memory that a trial asks for before its kind was measured: never less than measured trials took."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from noise import RECIPE

from genre_core.models.registry import BLOCKS
from genre_core.recipe import Recipe
from search.engine.gpu_demand import CONTEXT_BYTES, DataShape, demand_of, kind_of, prediction_demand
from search.engine.gpu_queue import GpuQueue

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import gpu_packing  # a script, not a package

MUSIC = DataShape(segments=1000, channels=1, mels=128, frames=128, genres=10)
GPU = 80 * 2**30
MEASURED = gpu_packing.read_trials(gpu_packing.RESULTS)


def estimate(recipe: Recipe, data: DataShape = MUSIC, *, resident: bool = True) -> int:
    """The estimated bytes of a trial."""
    found = demand_of(recipe, data, resident=resident, capacity=GPU).estimate
    assert found is not None
    return found


@pytest.mark.parametrize("trial", MEASURED, ids=[trial.demand.kind for trial in MEASURED])
def test_the_estimate_covers_what_an_h100_was_measured_to_need_and_not_much_more(
    trial: gpu_packing.Trial,
) -> None:
    assert trial.demand.estimate is not None
    assert trial.peak <= trial.demand.estimate <= 1.5 * trial.peak


@pytest.mark.parametrize("backbone", BLOCKS)
def test_a_trial_of_every_backbone_and_depth_asks_for_more_than_its_process_and_less_than_an_h100(
    backbone: str,
) -> None:
    depths = range(len(BLOCKS[backbone]) + 1)
    sizes = [estimate(replace(RECIPE, backbone=backbone, frozen_blocks=depth)) for depth in depths]
    assert all(CONTEXT_BYTES < size < GPU / 2 for size in sizes)
    assert sizes[0] > sizes[-1]


@pytest.mark.parametrize(
    ("changes", "data", "resident"),
    [
        ({"batch_size": 64}, {}, True),
        ({"optimizer": "adamw"}, {}, True),
        ({}, {"frames": 256}, True),
        ({}, {"channels": 3}, True),
        ({}, {"segments": 100_000}, True),
    ],
    ids=["larger batches", "AdamW", "longer segments", "three channels", "more segments"],
)
def test_what_takes_more_memory_is_another_kind_that_asks_for_more(
    changes: dict[str, Any], data: dict[str, Any], resident: bool
) -> None:
    base = replace(RECIPE, backbone="resnet34", frozen_blocks=0, batch_size=32)
    usual = demand_of(base, MUSIC, resident=True, capacity=GPU)
    larger = demand_of(replace(base, **changes), replace(MUSIC, **data), resident=resident, capacity=GPU)
    assert larger.kind != usual.kind
    assert larger.estimate is not None
    assert usual.estimate is not None
    assert larger.estimate > usual.estimate


@pytest.mark.parametrize("backbone", BLOCKS)
def test_predictions_are_a_kind_of_their_own_that_asks_for_less_than_training(backbone: str) -> None:
    recipe = replace(RECIPE, backbone=backbone, frozen_blocks=0, batch_size=256)
    predicting = prediction_demand(recipe, MUSIC, resident=True)
    assert predicting.kind != demand_of(recipe, MUSIC, resident=True, capacity=GPU).kind
    assert predicting.kind == prediction_demand(replace(recipe, batch_size=8), MUSIC, resident=True).kind
    assert predicting.estimate is not None
    assert CONTEXT_BYTES + MUSIC.bytes < predicting.estimate < estimate(recipe)
    on_host = prediction_demand(recipe, MUSIC, resident=False)
    assert on_host.kind != predicting.kind
    assert on_host.estimate == predicting.estimate - MUSIC.bytes


def test_data_on_the_host_is_another_kind_that_asks_for_less() -> None:
    on_host, on_gpu = (
        demand_of(RECIPE, MUSIC, resident=resident, capacity=GPU) for resident in (False, True)
    )
    assert on_host.kind != on_gpu.kind
    assert on_host.estimate is not None
    assert on_gpu.estimate == on_host.estimate + MUSIC.bytes


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"learning_rate": 0.5}, True),
        ({"seed": 5}, True),
        ({"epochs": 90}, True),
        ({"optimizer": "adamw"}, False),
        ({"mixup": 0.3}, False),
        ({"masking": 0.3}, False),
        ({"masking": 0.3, "augment_at": "input"}, False),
        ({"precision": "bfloat16"}, False),
        ({"head_init": "probe"}, False),
    ],
    ids=str,
)
def test_kinds_differ_in_what_changes_memory_only(changes: dict[str, Any], same: bool) -> None:
    base = replace(RECIPE, optimizer="sgd", mixup=0.0, masking=0.0, head_init="random")
    assert (kind_of(replace(base, **changes)) == kind_of(base)) is same


@pytest.mark.parametrize("own_kinds", [False, True], ids=["15 kinds", "50 kinds"])
@pytest.mark.parametrize("gib", [80, 16])
def test_in_a_simulated_search_of_50_measured_trials_nearly_all_workers_train_from_the_start(
    gib: int, own_kinds: bool
) -> None:
    trials = gpu_packing.drawn(MEASURED, 50, seed=0, slower=20.0, own_kinds=own_kinds)
    before, now = (
        gpu_packing.simulate(rule, gib, trials, workers=4) for rule in (gpu_packing.InOrder, GpuQueue)
    )
    assert before.at_a_time < 2 < 3.5 < now.at_a_time
    assert now.out_of_memory == 0


def test_the_measured_trials_are_those_of_a_file_that_comes_with_the_project() -> None:
    assert len(json.loads(gpu_packing.RESULTS.read_text())["trials"]) == len(MEASURED) == 15
