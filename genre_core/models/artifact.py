"""A saved model: a folder with its tensors in model.safetensors and everything else in model.json, its card."""

import json
from pathlib import Path
from typing import Any

from genre_core.errors import ErrorCode, InputError

WEIGHTS, CARD = "model.safetensors", "model.json"


def is_complete(folder: Path) -> bool:
    """Whether the folder holds both files of a model; copying one may have been interrupted."""
    return not _missing(folder)


def read_card(folder: Path) -> dict[str, Any]:
    """Read the card of the model in this folder.

    Raises:
        InputError: a file is missing, or model.json is not JSON.
    """
    if missing := _missing(folder):
        raise InputError(
            f"a model is a folder with {WEIGHTS} and {CARD}, but {folder} lacks {' and '.join(missing)}; "
            "give a folder in RUN/models or one written by genre-search export",
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


def _missing(folder: Path) -> list[str]:
    return [name for name in (WEIGHTS, CARD) if not (folder / name).is_file()]
