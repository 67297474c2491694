"""Frozen blocks that the models in a folder share: each is stored once, and deleted with the last model that has it."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from genre_core.models.artifact import CARD, SHARED, SHARED_BLOCKS, block_digest, shared_file, shared_files
from genre_core.models.registry import block_of
from genre_core.system.atomic import PARTIAL, atomic_file, make_folder, sync_folder

Arrays = Mapping[str, NDArray[Any]]
Card = Mapping[str, Any]

_BLOCK = re.compile(r"[0-9a-f]{64}\.safetensors")


def is_stored(models: Path, digest: str) -> bool:
    """Whether the block with this digest is stored next to the models in a folder."""
    return shared_file(models, digest).is_file()


def lacking(models: Path, tensors: Arrays, card: Card) -> tuple[str, ...]:
    """The shared blocks of a model that are neither stored nor among its tensors."""
    given = {block_of(name) for name in tensors}
    return tuple(
        block
        for block, digest in card.get(SHARED_BLOCKS, {}).items()
        if block not in given and not is_stored(models, digest)
    )


def store(models: Path, tensors: Arrays, card: Card) -> dict[str, NDArray[Any]]:
    """Store the shared blocks among a model's tensors that are not stored yet; return its own tensors.

    On return, the blocks survive a power failure, so the model may refer to them.

    Raises:
        ValueError: the tensors of a block are not those of its digest.
    """
    shared = card.get(SHARED_BLOCKS, {})
    for block, digest in shared.items():
        content = {name: np.ascontiguousarray(v) for name, v in tensors.items() if block_of(name) == block}
        if not content or is_stored(models, digest):
            continue
        if (found := block_digest(content)) != digest:
            raise ValueError(f"frozen block {block} must have the digest {digest}, but has {found}")
        make_folder(models / SHARED)
        with atomic_file(shared_file(models, digest)) as partial:
            save_file(content, partial)
    return {
        name: np.ascontiguousarray(value) for name, value in tensors.items() if block_of(name) not in shared
    }


def delete_unused(models: Path) -> None:
    """Delete the shared blocks that no model in the folder has, and incomplete files of a process that died."""
    folder = models / SHARED
    if not folder.is_dir() or (used := _used(models)) is None:
        return
    unused = [
        path
        for path in folder.iterdir()
        if path.suffix == PARTIAL or (is_block(path) and path.stem not in used)
    ]
    if unused:
        sync_folder(models)  # after a power failure, no model may be back whose blocks are gone
    for path in unused:
        path.unlink()
    if unused and not any(folder.iterdir()):
        folder.rmdir()


def blocks_of(model: Path) -> list[Path]:
    """Files of the shared blocks of a model, which may be incomplete; none if its card cannot be read."""
    try:
        card = json.loads((model / CARD).read_text(encoding="utf-8"))
        return [path for path in shared_files(model, card).values() if path.is_file()]
    except (OSError, ValueError, TypeError, AttributeError):
        return []


def is_block(path: Path) -> bool:
    """Whether a path has the name of a shared block."""
    return bool(_BLOCK.fullmatch(path.name))


def _used(models: Path) -> set[str] | None:
    """Digests of the blocks that models have; None if a card cannot be read, so that this is unknown."""
    try:
        cards = [json.loads(path.read_text(encoding="utf-8")) for path in models.glob(f"[!.]*/{CARD}")]
        return {digest for card in cards for digest in card.get(SHARED_BLOCKS, {}).values()}
    except (ValueError, AttributeError):
        return None
