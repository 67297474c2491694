"""Arithmetic and parameters of each block of the backbones; for the built-in ones, without torch."""

from typing import TYPE_CHECKING

from genre_core.models.registry import BLOCKS, find_backbone, is_own

if TYPE_CHECKING:
    from genre_core.models.block_profile import BlockProfile

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


def _measured(backbone: str) -> "tuple[BlockProfile, ...]":
    from genre_core.models.block_profile import block_profiles  # loads torch, as the user's module does

    return block_profiles(backbone)
