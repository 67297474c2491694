"""Export of a run's model: weights, model card, README and optionally ONNX."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from safetensors.numpy import save_file

from genre_core.errors import InputError
from genre_core.models.artifact import CARD, SHARED_BLOCKS, WEIGHTS, read_card, read_tensors
from genre_core.onnx_export import require_onnx, write_onnx
from genre_core.system.atomic import atomic_folder
from search.errors import SearchErrorCode
from search.export.chosen_model import chosen_model
from search.export.model_card import readme
from search.run.folder import RunFolder
from search.run.split_record import write_split


@dataclass(frozen=True, kw_only=True)
class Exported:
    """The result of an export."""

    model: str
    """Name of the model's folder in the run."""
    difference: float | None
    """Largest difference in a probability between ONNX Runtime and PyTorch; None without ONNX."""


def export(run: Path, folder: Path, *, trial: int | None, onnx: bool) -> Exported:
    """Export the run's best model, or the model of a trial; the folder is created atomically.

    Raises:
        InputError: `run` is not a run or has no such model, `folder` is not empty, or a package for ONNX is missing.
    """
    model = chosen_model(run, trial=trial)
    if folder.exists() and any(folder.iterdir()):
        raise InputError(
            f"DIR must be new or empty, but got {folder}; choose another folder",
            code=SearchErrorCode.EXPORT_FOLDER_NOT_EMPTY,
        )
    if onnx:
        require_onnx()
    with atomic_folder(folder.resolve()) as partial:
        _write_whole(model, partial)
        card = read_card(partial)
        write_split(card["split"], RunFolder(run).corpus, partial)
        difference = write_onnx(partial) if onnx else None
        text = readme(run.resolve(), model, card=card, onnx_difference=difference)
        (partial / "README.md").write_text(text, encoding="utf-8")
    return Exported(model=model.name, difference=difference)


def _write_whole(model: Path, folder: Path) -> None:
    """Write a model with all its tensors into a folder: an exported model shares nothing.

    Raises:
        InputError: a shared block is damaged.
    """
    card = read_card(model)
    if SHARED_BLOCKS not in card:
        for name in (WEIGHTS, CARD):
            shutil.copyfile(model / name, folder / name)
        return
    save_file(read_tensors(model, card), folder / WEIGHTS)
    del card[SHARED_BLOCKS]
    (folder / CARD).write_text(json.dumps(card, indent=1), encoding="utf-8")
