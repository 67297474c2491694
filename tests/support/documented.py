"""The modules and settings that docs/backbones.md shows, as files that a user would write."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from genre_core.models import block_profile, blocks, pretrained, registry

TEXT = (Path(__file__).parents[2] / "docs" / "backbones.md").read_text(encoding="utf-8")
RESNET50 = "my_networks:RESNET50"
EFFICIENTNET_B0 = "my_networks:EFFICIENTNET_B0"
MOBILENET = "my_networks:MOBILENET_V3_SMALL"
CONVNEXT_TINY = "my_networks:CONVNEXT_TINY"
CNN10 = "audio_networks:CNN10"
DEPTHS = {RESNET50: 5, EFFICIENTNET_B0: 7, MOBILENET: 6, CONVNEXT_TINY: 4, CNN10: 4}
"""Backbone of the document -> number of its blocks."""


def files(language: str) -> dict[str, str]:
    """File name -> content of the blocks of code that begin with it, as `# name` or `# name, continued`."""
    contents: dict[str, str] = {}
    for block in re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL):
        name = block.split("\n")[0].removeprefix("# ").removesuffix(", continued")
        contents[name] = contents.get(name, "") + block
    return contents


@contextmanager
def importable(folder: Path, modules: dict[str, str]) -> Iterator[None]:
    """Write modules to a folder from which they can be imported; afterwards, all memory of them is lost."""
    for name, code in modules.items():
        (folder / name).write_text(code, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setattr(sys, "dont_write_bytecode", True)  # .pyc files ignore quick changes
        patch.setattr(registry, "_registered", {})
        _forget(modules)
        yield
    _forget(modules)


def _forget(modules: dict[str, str]) -> None:
    for name in modules:
        sys.modules.pop(name.removesuffix(".py"), None)
    caches: tuple[Any, ...] = (
        registry._imported,
        blocks._pickled_blocks,
        blocks.code_digest,
        block_profile.block_profiles,
        pretrained._head_and_shapes,
    )
    for cache in caches:
        cache.cache_clear()
