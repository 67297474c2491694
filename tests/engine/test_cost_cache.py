"""Measured costs outlive their search in a file of the cache, and are scaled to other data."""

from dataclasses import replace
from pathlib import Path

import pytest

from search.engine.cost_cache import FILE, Conditions, read, update
from search.engine.costs import CellCost

CONDITIONS = Conditions(
    place="here", mels=64, frames=68, batch_size=8, threads=1, precision="float32", sharing=True
)
COST = CellCost(backbone="resnet18", frozen_blocks=2, epoch_seconds=3.0, pass_seconds=1.5)


def test_costs_are_proportional_to_the_number_of_segments(tmp_path: Path) -> None:
    update(tmp_path / "new", CONDITIONS, {"cpu": [COST]}, segments=100)
    found = read(tmp_path / "new", CONDITIONS, segments=300)
    assert found == {"cpu": [replace(COST, epoch_seconds=9.0, pass_seconds=4.5)]}


@pytest.mark.parametrize(
    "other",
    [
        {"place": "there"},
        {"frames": 32},
        {"batch_size": 16},
        {"threads": 2},
        {"precision": "bfloat16"},
        {"sharing": False},
    ],
)
def test_costs_under_other_conditions_are_not_used(other: dict[str, object], tmp_path: Path) -> None:
    update(tmp_path, CONDITIONS, {"cpu": [COST]}, segments=100)
    assert read(tmp_path, replace(CONDITIONS, **other), segments=100) == {}  # type: ignore[arg-type]


def test_a_newer_measurement_replaces_that_of_the_same_kind_only(tmp_path: Path) -> None:
    deeper = replace(COST, frozen_blocks=5)
    update(tmp_path, CONDITIONS, {"cpu": [COST, deeper], "NVIDIA H100": [COST]}, segments=100)
    newer = replace(COST, epoch_seconds=1.0)
    update(tmp_path, CONDITIONS, {"cpu": [newer]}, segments=100)
    assert read(tmp_path, CONDITIONS, segments=100) == {"cpu": [newer, deeper], "NVIDIA H100": [COST]}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"version": 0, "costs": [1]}',
        '{"version": 1, "costs": [{"device": "cpu"}]}',
        '{"version": 1, "costs": 3}',
    ],
)
def test_a_file_that_cannot_be_read_counts_as_empty_and_is_replaced(content: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(content)
    assert read(tmp_path, CONDITIONS, segments=100) == {}
    update(tmp_path, CONDITIONS, {"cpu": [COST]}, segments=100)
    assert read(tmp_path, CONDITIONS, segments=100) == {"cpu": [COST]}


def test_a_search_without_epochs_writes_nothing(tmp_path: Path) -> None:
    update(tmp_path, CONDITIONS, {}, segments=100)
    assert not (tmp_path / FILE).exists()
