"""A saved model: a folder with its tensors in model.safetensors and everything else in model.json, its card.

Models of one search share frozen blocks, which training does not change: a card may list blocks whose tensors are
stored in separate files, each named after a hash of its content, in the folder `shared` next to the model's folder.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genre_core.errors import ErrorCode, InputError

WEIGHTS, CARD = "model.safetensors", "model.json"
SHARED = "shared"
"""Folder of the shared blocks, next to the folders of the models."""
SHARED_BLOCKS = "shared_blocks"
"""Key of a card: frozen block -> digest of its tensors, which are not in the model's own file."""

Card = Mapping[str, Any]


def is_complete(folder: Path) -> bool:
    """Whether all files of a model exist, with its shared blocks; copying them may have been interrupted."""
    return not _missing(folder)


def read_card(folder: Path) -> dict[str, Any]:
    """Read the card of the model in this folder.

    Raises:
        InputError: a file is missing, or model.json is not JSON.
    """
    if missing := _missing(folder):
        copied = f" with the folder {SHARED} next to it" if any(SHARED in name for name in missing) else ""
        raise InputError(
            f"a model is a folder with {WEIGHTS} and {CARD}, but {folder} lacks {' and '.join(missing)}; "
            f"give a folder in RUN/models{copied} or one written by genre-search export",
            code=ErrorCode.MODEL_INCOMPLETE,
        )
    try:
        card: dict[str, Any] = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"{folder / CARD} must be JSON, but cannot be parsed: {error}; export the model again",
            code=ErrorCode.MODEL_CARD_NOT_JSON,
        ) from error
    return card


def read_tensors(folder: Path, card: Card) -> dict[str, NDArray[Any]]:
    """All tensors of the model in this folder, including those of its shared blocks, by `block.layer...` name.

    Raises:
        InputError: a file is damaged.
    """
    return _load(folder / WEIGHTS) | shared_tensors(folder, card)


def shared_tensors(folder: Path, card: Card) -> dict[str, NDArray[Any]]:
    """The tensors of a model's shared blocks, checked against their digests.

    Raises:
        InputError: a file is damaged.
    """
    found: dict[str, NDArray[Any]] = {}
    for block, path in shared_files(folder, card).items():
        tensors = _load(path)
        if block_digest(tensors) != path.stem:
            raise InputError(
                f"{path} must match the hash in its name, but its content does not, so block {block} of {folder} is "
                "damaged; restore the file from a backup",
                code=ErrorCode.MODEL_INCONSISTENT,
            )
        found |= tensors
    return found


def shared_files(folder: Path, card: Card) -> dict[str, Path]:
    """Block -> the file of its tensors, for the shared blocks of the model in this folder."""
    digests = card.get(SHARED_BLOCKS, {})
    return {block: shared_file(folder.parent, digest) for block, digest in digests.items()}


def shared_file(models: Path, digest: str) -> Path:
    """The file of a shared block, in the folder that contains the models' folders."""
    return models / SHARED / f"{digest}.safetensors"


def block_digest(tensors: Mapping[str, NDArray[Any]]) -> str:
    """Hash of a block's tensors with their names, types and shapes."""
    hashed = hashlib.sha256()
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])  # a scalar gets the shape [1], as when it is saved
        hashed.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        hashed.update(array.reshape(-1).view(np.uint8).data)
    return hashed.hexdigest()


def _load(path: Path) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError  # lazily: commands that only show results do not need it
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(
            f"{path} is damaged and cannot be read: {error}; restore the file from a backup",
            code=ErrorCode.MODEL_INCONSISTENT,
        ) from error


def _missing(folder: Path) -> list[str]:
    if missing := [name for name in (WEIGHTS, CARD) if not (folder / name).is_file()]:
        return missing
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        shared = shared_files(folder, card)
    except (ValueError, TypeError, AttributeError):  # not JSON, or not a card: reported when it is used
        return []
    return [f"../{SHARED}/{path.name}" for path in shared.values() if not path.is_file()]
