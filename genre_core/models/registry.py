"""Backbones by name: built-in ones and users' own, which are imported. This module does not import torch."""

import difflib
import importlib
import re
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING

from genre_core.errors import ErrorCode, InputError
from genre_core.models.backbone import Backbone

if TYPE_CHECKING:
    from torch import nn

_DENSENET = ("stem", "block1", "block2", "block3", "block4")
_RESNET = ("stem", "layer1", "layer2", "layer3", "layer4")
_VGG = ("stage1", "stage2", "stage3", "stage4", "stage5", "fc6", "fc7")
_VGG_FILES = {
    "vgg11": "vgg11-8a719046.pth",
    "vgg11_bn": "vgg11_bn-6002323d.pth",
    "vgg13": "vgg13-19584684.pth",
    "vgg13_bn": "vgg13_bn-abd245e5.pth",
    "vgg16": "vgg16-397923af.pth",
    "vgg16_bn": "vgg16_bn-6c64b313.pth",
    "vgg19": "vgg19-dcbb9e9d.pth",
    "vgg19_bn": "vgg19_bn-c79401a0.pth",
}
_IDENTIFIERS = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
_IMPORT_PATH = re.compile(rf"({_IDENTIFIERS}):({_IDENTIFIERS})", re.ASCII)


def _torchvision(name: str) -> "nn.Module":
    from genre_core.models.torchvision_families import torchvision_model  # loads torch

    return torchvision_model(name)


def _torchvision_block(name: str, block: str, model: "nn.Module") -> "nn.Module":
    from genre_core.models.torchvision_families import blocks_and_head  # loads torch

    return blocks_and_head(name, model)[0][block]


def _family(
    name: str,
    blocks: Sequence[str],
    *,
    features: int,
    file: str,
    min_side: int = 32,
    channels_last_on_cpu: bool = False,
) -> Backbone:
    """A backbone of torchvision's with its ImageNet weights."""
    take: dict[str, Callable[[nn.Module], nn.Module]] = {
        block: partial(_torchvision_block, name, block) for block in blocks
    }
    return Backbone(
        model=partial(_torchvision, name),
        blocks=take,
        features=features,
        weights=f"https://download.pytorch.org/models/{file}",
        min_side=min_side,
        channels_last_on_cpu=channels_last_on_cpu,
    )


BUILTIN: dict[str, Backbone] = {
    "alexnet": _family(
        "alexnet",
        ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"),
        features=4096,
        file="alexnet-owt-7be5be79.pth",
        min_side=63,  # smaller images vanish in its three poolings
    ),
    "densenet121": _family(
        "densenet121",
        _DENSENET,
        features=1024,
        file="densenet121-a639ec97.pth",
        channels_last_on_cpu=True,  # as measured, like that of VGG
    ),
    "resnet18": _family("resnet18", _RESNET, features=512, file="resnet18-f37072fd.pth"),
    "resnet34": _family("resnet34", _RESNET, features=512, file="resnet34-b627a593.pth"),
    **{
        name: _family(name, _VGG, features=4096, file=file, channels_last_on_cpu=True)
        for name, file in _VGG_FILES.items()
    },
}
"""The built-in backbones by name."""
BLOCKS: dict[str, tuple[str, ...]] = {name: backbone.names for name, backbone in BUILTIN.items()}
"""Name of a built-in backbone -> names of its blocks."""
_registered: dict[str, str] = {}
"""Short name -> `package.module:NAME`."""


def register_backbone(name: str, path: str) -> Backbone:
    """Give a backbone a short name in this process. Searches and models still store its path.

    Args:
        name: the short name; it must not be that of a built-in backbone.
        path: `package.module:NAME`; other processes import it from there.

    Raises:
        InputError: the name is taken, or there is no backbone at the path.
    """
    if name in BUILTIN or ":" in name:
        raise InputError(
            f"a backbone's short name must not be a built-in name or contain a colon, but got name={name!r}; "
            "choose another name",
            code=ErrorCode.BACKBONE_NAME_TAKEN,
        )
    backbone = _imported(path)
    _registered[name] = path
    return backbone


def full_name(name: str) -> str:
    """The name of a backbone that is valid in every process: `package.module:NAME`, or a built-in name."""
    return _registered.get(name, name)


def is_own(name: str) -> bool:
    """Whether a backbone is not built in."""
    return name not in BUILTIN


def find_backbone(name: str) -> Backbone:
    """The backbone with this name.

    Args:
        name: of a built-in or a registered backbone, or `package.module:NAME`, which is imported.

    Raises:
        InputError: there is no such backbone.
    """
    if name in BUILTIN:
        return BUILTIN[name]
    if (path := full_name(name)) != name or ":" in name:
        return _imported(path)
    known = [*BUILTIN, *_registered]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(known)}"
    raise InputError(
        f"backbone must be a known name or package.module:NAME, but got backbone={name!r}; {hint}",
        code=ErrorCode.UNKNOWN_BACKBONE,
    )


def block_of(tensor: str) -> str:
    """The block of a tensor, from its `block.layer...` name."""
    return tensor.partition(".")[0]


def block_names(name: str) -> tuple[str, ...]:
    """Names of a backbone's blocks, from the input to the last one before the head.

    Raises:
        InputError: there is no backbone of this name.
    """
    return find_backbone(name).names


@cache
def _imported(path: str) -> Backbone:
    """Import a backbone."""
    match = _IMPORT_PATH.fullmatch(path)
    if match is None or match[1].endswith(".py"):
        raise InputError(
            f"a backbone's path must be package.module:NAME, but got backbone={path!r}; "
            "for example my_networks:CNN10 for CNN10 in my_networks.py",
            code=ErrorCode.UNKNOWN_BACKBONE,
        )
    found: object = _module(match[1], path)
    for attribute in match[2].split("."):
        if not hasattr(found, attribute):
            names = [
                name for name, value in getattr(found, "__dict__", {}).items() if isinstance(value, Backbone)
            ]
            raise InputError(
                f"backbone must exist in its module, but {match[1]} has no {match[2]} (backbone={path!r}); "
                f"its backbones are: {', '.join(names) or 'none'}",
                code=ErrorCode.NOT_A_BACKBONE,
            )
        found = getattr(found, attribute)
    if not isinstance(found, Backbone):
        raise InputError(
            f"backbone must name a genre_core.models.backbone.Backbone, but backbone={path!r} is a "
            f"{type(found).__name__}; docs/backbones.md shows how to define one",
            code=ErrorCode.NOT_A_BACKBONE,
        )
    return found


def _module(module: str, path: str) -> object:
    try:
        return importlib.import_module(module)
    except Exception as error:  # its code can raise anything
        missing = (
            isinstance(error, ModuleNotFoundError)
            and error.name
            and f"{module}.".startswith(f"{error.name}.")
        )
        way_out = (
            f"install its package on every node, or set PYTHONPATH to the folder that contains "
            f"{module.replace('.', '/')}.py"
            if missing
            else f"python -c 'import {module}' shows where"
        )
        raise InputError(
            f"a backbone's module must be importable, but importing {module} for backbone={path!r} raised "
            f"{type(error).__name__}: {error}; {way_out}",
            code=ErrorCode.BACKBONE_NOT_IMPORTABLE,
        ) from error
