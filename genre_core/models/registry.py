"""Names of the backbones and of their blocks, in order; importable without torch."""

import difflib

from genre_core.errors import ErrorCode, InputError

MIN_IMAGE_SIDE = 63
"""Pixels. Smaller images vanish in AlexNet's three poolings; the other families accept any size."""

_ALEXNET = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7")
_DENSENET = ("stem", "block1", "block2", "block3", "block4")
_RESNET = ("stem", "layer1", "layer2", "layer3", "layer4")
_VGG = ("stage1", "stage2", "stage3", "stage4", "stage5", "fc6", "fc7")
_VGG_NAMES = tuple(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn"))

BLOCKS: dict[str, tuple[str, ...]] = {
    "alexnet": _ALEXNET,
    "densenet121": _DENSENET,
    "resnet18": _RESNET,
    "resnet34": _RESNET,
    **dict.fromkeys(_VGG_NAMES, _VGG),
}
"""Backbone name -> names of its blocks. Freeze depth d freezes the first d; the head is not a block."""


def block_names(backbone: str) -> tuple[str, ...]:
    """Names of a backbone's blocks, from the input to the last one before the head.

    Raises:
        InputError: there is no backbone of this name.
    """
    if backbone not in BLOCKS:
        near = difflib.get_close_matches(backbone, BLOCKS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(BLOCKS)}"
        raise InputError(
            f"backbone must be a known name, but got backbone={backbone!r}; {hint}",
            code=ErrorCode.UNKNOWN_BACKBONE,
        )
    return BLOCKS[backbone]
