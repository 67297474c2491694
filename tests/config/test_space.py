"""The frozen depth as a share: every depth of every backbone is equally likely, and a bounded depth stays in blocks."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genre_core.models.registry import BLOCKS
from search.config.schema import load
from search.config.space import (
    FROZEN_SHARE,
    blocks_of,
    depth_in,
    depth_parameter,
    is_conditional,
    is_share,
    share_of,
)

BLOCK_COUNTS = sorted({len(blocks) for blocks in BLOCKS.values()})


@pytest.mark.parametrize(
    ("share", "n_blocks", "blocks"),
    [
        (0.0, 5, 0),
        (0.1666, 5, 0),
        (1 / 6, 5, 1),
        (0.1667, 5, 1),
        (0.49, 5, 2),
        (0.5, 5, 3),
        (0.8333, 5, 4),
        (5 / 6, 5, 5),
        (0.999999, 5, 5),
        (1.0, 5, 5),
        (0.0, 7, 0),
        (0.1249, 7, 0),
        (0.125, 7, 1),
        (0.5, 7, 4),
        (0.8749, 7, 6),
        (0.875, 7, 7),
        (1.0, 7, 7),
        (0.49, 1, 0),
        (0.5, 1, 1),
        (0.0, 0, 0),
        (1.0, 0, 0),
    ],
)
def test_a_share_means_a_depth(share: float, n_blocks: int, blocks: int) -> None:
    assert blocks_of(share, n_blocks) == blocks


@pytest.mark.parametrize("backbone", BLOCKS)
def test_every_depth_of_every_backbone_has_a_share_that_means_it(backbone: str) -> None:
    n_blocks = len(BLOCKS[backbone])
    shares = [share_of(blocks, n_blocks) for blocks in range(n_blocks + 1)]
    assert [blocks_of(share, n_blocks) for share in shares] == list(range(n_blocks + 1))
    assert 0 < shares[0] < shares[-1] < 1
    assert shares == pytest.approx([1 - share for share in reversed(shares)]), (
        "they lie in the middle of their parts"
    )


@given(n_blocks=st.integers(0, 500), data=st.data())
def test_shares_and_depths_agree_for_any_number_of_blocks(n_blocks: int, data: st.DataObject) -> None:
    blocks = data.draw(st.integers(0, n_blocks))
    assert blocks_of(share_of(blocks, n_blocks), n_blocks) == blocks
    low, high = sorted(data.draw(st.tuples(st.floats(0, 1), st.floats(0, 1))))
    assert 0 <= blocks_of(low, n_blocks) <= blocks_of(high, n_blocks) <= n_blocks


@pytest.mark.parametrize("n_blocks", BLOCK_COUNTS)
def test_every_depth_is_equally_likely(n_blocks: int) -> None:
    per_depth = 97
    points = per_depth * (n_blocks + 1)
    counts = Counter(blocks_of((point + 0.5) / points, n_blocks) for point in range(points))
    assert counts == dict.fromkeys(range(n_blocks + 1), per_depth)


@pytest.mark.parametrize(
    ("params", "depth"),
    [
        ({FROZEN_SHARE: 0.5}, 3),
        ({FROZEN_SHARE: 1.0, "momentum": 0.9}, 5),
        ({depth_parameter("resnet18"): 2, depth_parameter("alexnet"): 7}, 2),
        ({depth_parameter("alexnet"): 7}, None),
        ({}, None),
    ],
)
def test_a_depth_is_read_from_either_parameter(params: dict[str, Any], depth: int | None) -> None:
    assert depth_in(params, "resnet18") == depth


TWO = ["resnet18", "alexnet"]


@pytest.mark.parametrize(
    ("backbone", "frozen_blocks", "share", "conditional"),
    [
        (TWO, {"low": 0, "high": "all"}, True, False),
        (TWO, {}, True, False),
        ("resnet18", {"low": 0, "high": "all"}, True, False),
        (TWO, {"low": 0, "high": "all", "as_share": False}, False, True),
        (TWO, {"low": 1, "high": "all"}, False, True),
        (TWO, {"low": 0, "high": 5}, False, True),
        ("resnet18", {"low": 0, "high": 5}, False, False),
        (["resnet18"], {"low": 1, "high": "all"}, False, False),
        (TWO, [0, 3], False, True),
        (TWO, 3, False, False),
    ],
    ids=str,
)
def test_only_the_whole_depth_is_a_share_and_other_depths_make_the_space_conditional(
    backbone: str | list[str], frozen_blocks: Any, share: bool, conditional: bool
) -> None:
    space = load(None, {"space.backbone": backbone, "space.frozen_blocks": frozen_blocks}).space
    assert (is_share(space.frozen_blocks), is_conditional(space)) == (share, conditional)
