"""A finished model as a folder: its tensors in model.safetensors, all else in model.json, its card."""

import json
from pathlib import Path
from typing import Any

from genre_core.errors import InputError

WEIGHTS, CARD = "model.safetensors", "model.json"


def is_complete(folder: Path) -> bool:
    """Whether a model is there with all its files: a copy of one may have been cut short."""
    return not _missing(folder)


def read_card(folder: Path) -> dict[str, Any]:
    """The card of the model in this folder.

    Raises:
        InputError: there is none, or it is damaged.
    """
    if missing := _missing(folder):
        raise InputError(
            f"a model is a folder with {WEIGHTS} and {CARD}, but {folder} lacks {' and '.join(missing)}; "
            "give one of RUN/models, or what genre-search export makes"
        )
    try:
        card: dict[str, Any] = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{folder / CARD} must be JSON, but is damaged: {error}; export it anew") from error
    return card


def _missing(folder: Path) -> list[str]:
    return [name for name in (WEIGHTS, CARD) if not (folder / name).is_file()]
