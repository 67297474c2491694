"""How many values the blocks of a backbone hold for a segment, which the estimate of GPU memory is made of."""

import pytest
import torch
from torch import nn

from genre_core.models.block_costs import REFERENCE_PIXELS, block_values
from genre_core.models.block_values import _SEGMENTS, _measure, measured_values
from genre_core.models.registry import BLOCKS

SIDE = 8


@pytest.mark.parametrize("backbone", BLOCKS)
def test_the_table_is_that_of_the_networks(backbone: str) -> None:
    pixels, measured = measured_values(backbone)
    assert pixels == REFERENCE_PIXELS
    for row, values in zip(block_values(backbone, pixels=pixels), measured, strict=True):
        assert row == pytest.approx(values, abs=51)


@pytest.mark.parametrize(
    ("block", "saved", "largest", "output"),
    [
        pytest.param(nn.Conv2d(3, 8, 3, padding=1), 3, 8, 8, id="a convolution saves its input"),
        pytest.param(nn.BatchNorm2d(3), 3, 3, 3, id="batch norm saves its input"),
        pytest.param(nn.ReLU(), 3, 3, 3, id="an activation saves its output"),
        pytest.param(
            nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1)),
            3 + 8 + 8,
            8,
            2,
            id="what two layers save counts once",
        ),
    ],
)
def test_values_of_known_layers_per_pixel(block: nn.Module, saved: int, largest: int, output: int) -> None:
    values, _ = _measure(block.to("meta"), torch.empty(_SEGMENTS, 3, SIDE, SIDE, device="meta"))
    assert values == tuple(SIDE**2 * number for number in (saved, largest, output))


def test_only_feature_maps_depend_on_the_size_of_the_segment() -> None:
    whole, quarter = (block_values("vgg11", pixels=REFERENCE_PIXELS // part) for part in (1, 4))
    for block in whole[:5]:
        assert quarter[whole.index(block)] == pytest.approx([value / 4 for value in block])
    assert quarter[5:] == whole[5:]
