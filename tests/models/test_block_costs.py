"""The table of the blocks' arithmetic and parameters agrees with the networks."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from genre_core.models.block_costs import multiply_adds, trainable_parameters
from genre_core.models.registry import BLOCKS
from genre_core.models.torchvision_families import blocks_and_head, torchvision_model


@pytest.mark.parametrize("backbone", BLOCKS)
def test_the_table_is_that_of_the_networks(backbone: str) -> None:
    with torch.device("meta"):
        blocks, head = blocks_and_head(backbone, torchvision_model(backbone).eval())
        activations = torch.empty(1, 3, 224, 224)
    counted = []
    for block in blocks.values():
        with FlopCounterMode(display=False) as counter:
            activations = block(activations)
        counted.append(counter.get_total_flops() / 2)
    assert multiply_adds(backbone) == pytest.approx(counted, abs=0.06e6)
    parameters = [sum(p.numel() for p in block.parameters()) for block in blocks.values()]
    for depth in range(len(blocks) + 1):
        expected = sum(parameters[depth:]) + 7 * (head.in_features + 1)
        assert trainable_parameters(backbone, depth, n_genres=7) == expected


def test_only_convolutions_depend_on_the_size_of_the_image() -> None:
    whole, quarter = multiply_adds("vgg11"), multiply_adds("vgg11", pixels=112 * 112)
    assert quarter == pytest.approx([value / 4 for value in whole[:5]] + list(whole[5:]))
