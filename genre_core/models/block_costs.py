"""Arithmetic, parameters and memory of each block of a backbone; for built-in ones, without importing torch."""

from typing import TYPE_CHECKING

from genre_core.models.registry import BLOCKS, find_backbone, is_own

if TYPE_CHECKING:
    from genre_core.models.block_profile import BlockProfile

CHUNK = {"cpu": 16, "cuda": 256}
"""Segments per pass through the frozen blocks, by device type: the smallest number that keeps the device busy."""
REFERENCE_PIXELS = 224 * 224
"""Size of the image that the numbers of `_MULTIPLY_ADDS` are for."""

_VGG11 = (86.7, 924.8, 2774.5, 2774.5, 924.8, 102.8, 16.8)
_VGG13 = (1936.4, 2774.5, 2774.5, 2774.5, 924.8, 102.8, 16.8)
_VGG16 = (1936.4, 2774.5, 4624.2, 4624.2, 1387.3, 102.8, 16.8)
_VGG19 = (1936.4, 2774.5, 6473.9, 6473.9, 1849.7, 102.8, 16.8)
_MULTIPLY_ADDS: dict[str, tuple[float, ...]] = {
    "alexnet": (70.3, 223.9, 112.1, 149.5, 99.7, 37.7, 16.8),
    "densenet121": (118.0, 1143.2, 815.7, 651.9, 104.4),
    "resnet18": (118.0, 462.4, 411.0, 411.0, 411.0),
    "resnet34": (118.0, 693.6, 873.5, 1335.9, 642.3),
    **dict.fromkeys(("vgg11", "vgg11_bn"), _VGG11),
    **dict.fromkeys(("vgg13", "vgg13_bn"), _VGG13),
    **dict.fromkeys(("vgg16", "vgg16_bn"), _VGG16),
    **dict.fromkeys(("vgg19", "vgg19_bn"), _VGG19),
}
"""Backbone -> millions of multiply-adds of a forward pass through each block."""

_PARAMETERS: dict[str, tuple[int, ...]] = {
    "alexnet": (23296, 307392, 663936, 884992, 590080, 37752832, 16781312),
    "densenet121": (9536, 368320, 1051776, 3364096, 2160128),
    "resnet18": (9536, 147968, 525568, 2099712, 8393728),
    "resnet34": (9536, 221952, 1116416, 6822400, 13114368),
    "vgg11": (1792, 73856, 885248, 3539968, 4719616, 102764544, 16781312),
    "vgg11_bn": (1920, 74112, 886272, 3542016, 4721664, 102764544, 16781312),
    "vgg13": (38720, 221440, 885248, 3539968, 4719616, 102764544, 16781312),
    "vgg13_bn": (38976, 221952, 886272, 3542016, 4721664, 102764544, 16781312),
    "vgg16": (38720, 221440, 1475328, 5899776, 7079424, 102764544, 16781312),
    "vgg16_bn": (38976, 221952, 1476864, 5902848, 7082496, 102764544, 16781312),
    "vgg19": (38720, 221440, 2065408, 8259584, 9439232, 102764544, 16781312),
    "vgg19_bn": (38976, 221952, 2067456, 8263680, 9443328, 102764544, 16781312),
}
"""Backbone -> parameters of each block."""

_VALUES: dict[str, tuple[tuple[float, float, float], ...]] = {
    "alexnet": (
        (390.8, 193.6, 46.7),
        (219.1, 140.0, 32.4),
        (97.3, 64.9, 64.9),
        (108.2, 64.9, 43.3),
        (105.0, 43.3, 9.2),
        (22.5, 9.2, 4.1),
        (12.3, 4.1, 4.1),
    ),
    "densenet121": (
        (1956.9, 802.8, 200.7),
        (12242.9, 802.8, 100.4),
        (9132.0, 401.4, 50.2),
        (7576.6, 200.7, 25.1),
        (1480.2, 50.2, 1.0),
    ),
    "resnet18": (
        (1956.9, 802.8, 200.7),
        (1806.3, 200.7, 200.7),
        (1103.9, 200.7, 100.4),
        (551.9, 100.4, 50.2),
        (276.0, 50.2, 0.5),
    ),
    "resnet34": (
        (1956.9, 802.8, 200.7),
        (2609.2, 200.7, 200.7),
        (1906.7, 200.7, 100.4),
        (1354.8, 100.4, 50.2),
        (376.3, 50.2, 0.5),
    ),
    "vgg11": (
        (4164.6, 3211.3, 802.8),
        (2809.9, 1605.6, 401.4),
        (2207.7, 802.8, 200.7),
        (1103.9, 401.4, 100.4),
        (351.2, 100.4, 25.1),
        (33.3, 25.1, 4.1),
        (12.3, 4.1, 4.1),
    ),
    "vgg11_bn": (
        (7375.9, 3211.3, 802.8),
        (4415.5, 1605.6, 401.4),
        (3813.4, 802.8, 200.7),
        (1906.7, 401.4, 100.4),
        (551.9, 100.4, 25.1),
        (33.3, 25.1, 4.1),
        (12.3, 4.1, 4.1),
    ),
    "vgg13": (
        (7375.9, 3211.3, 802.8),
        (4415.5, 1605.6, 401.4),
        (2207.7, 802.8, 200.7),
        (1103.9, 401.4, 100.4),
        (351.2, 100.4, 25.1),
        (33.3, 25.1, 4.1),
        (12.3, 4.1, 4.1),
    ),
    "vgg13_bn": (
        (13798.4, 3211.3, 802.8),
        (7626.8, 1605.6, 401.4),
        (3813.4, 802.8, 200.7),
        (1906.7, 401.4, 100.4),
        (551.9, 100.4, 25.1),
        (33.3, 25.1, 4.1),
        (12.3, 4.1, 4.1),
    ),
    "vgg16": (
        (7375.9, 3211.3, 802.8),
        (4415.5, 1605.6, 401.4),
        (3010.6, 802.8, 200.7),
        (1505.3, 401.4, 100.4),
        (451.6, 100.4, 25.1),
        (33.3, 25.1, 4.1),
        (12.3, 4.1, 4.1),
    ),
    "vgg16_bn": (
        (13798.4, 3211.3, 802.8),
        (7626.8, 1605.6, 401.4),
        (5419.0, 802.8, 200.7),
        (2709.5, 401.4, 100.4),
        (752.6, 100.4, 25.1),
        (33.3, 25.1, 4.1),
        (12.3, 4.1, 4.1),
    ),
    "vgg19": (
        (7375.9, 3211.3, 802.8),
        (4415.5, 1605.6, 401.4),
        (3813.4, 802.8, 200.7),
        (1906.7, 401.4, 100.4),
        (551.9, 100.4, 25.1),
        (33.3, 25.1, 4.1),
        (12.3, 4.1, 4.1),
    ),
    "vgg19_bn": (
        (13798.4, 3211.3, 802.8),
        (7626.8, 1605.6, 401.4),
        (7024.6, 802.8, 200.7),
        (3512.3, 401.4, 100.4),
        (953.3, 100.4, 25.1),
        (33.3, 25.1, 4.1),
        (12.3, 4.1, 4.1),
    ),
}
"""Backbone -> thousands of values of each block for a segment of REFERENCE_PIXELS: see `BlockValues`."""


def multiply_adds(backbone: str, *, pixels: int = REFERENCE_PIXELS) -> tuple[float, ...]:
    """Multiply-adds of a forward pass of one image through each block, in order.

    Those of convolutions are proportional to the image's pixels, which neglects rounding; those of the linear layers
    do not depend on them. Both parts of a user's backbone are measured.
    """
    if is_own(backbone):
        return tuple(block.fixed + block.per_pixel * pixels for block in _measured(backbone))
    names = BLOCKS[backbone]
    scale = pixels / REFERENCE_PIXELS
    return tuple(
        millions * 1e6 * (1.0 if name.startswith("fc") else scale)
        for name, millions in zip(names, _MULTIPLY_ADDS[backbone], strict=True)
    )


def trainable_parameters(backbone: str, frozen_blocks: int, *, n_genres: int = 10) -> int:
    """Number of parameters of the blocks that are not frozen, and of the head."""
    blocks = [b.parameters for b in _measured(backbone)] if is_own(backbone) else _PARAMETERS[backbone]
    return sum(blocks[frozen_blocks:]) + (find_backbone(backbone).features + 1) * n_genres


def block_values(backbone: str, *, pixels: int) -> "tuple[tuple[float, float, float], ...]":
    """Values of each block for one segment: saved for the backward pass, in the largest tensor, and in the output.

    Those of feature maps are proportional to the segment's pixels, which neglects rounding. Those of a user's backbone
    are measured, and all taken to be proportional.
    """
    if is_own(backbone):
        from genre_core.models.block_values import measured_values  # loads torch, as the user's module does

        measured_pixels, blocks = measured_values(backbone)
        scales, factor = [pixels / measured_pixels] * len(blocks), 1.0
        values: tuple[tuple[float, float, float], ...] = blocks
    else:
        values, factor = _VALUES[backbone], 1e3
        shrunk = pixels / REFERENCE_PIXELS
        scales = [1.0 if name.startswith("fc") else shrunk for name in BLOCKS[backbone]]
    return tuple(
        (factor * scale * saved, factor * scale * largest, factor * scale * output)
        for scale, (saved, largest, output) in zip(scales, values, strict=True)
    )


def _measured(backbone: str) -> "tuple[BlockProfile, ...]":
    from genre_core.models.block_profile import block_profiles  # loads torch, as the user's module does

    return block_profiles(backbone)
