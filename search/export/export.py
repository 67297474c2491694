"""Export of a run's model: weights, model card, README and optionally ONNX."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from genre_core.errors import InputError
from genre_core.models.artifact import CARD, WEIGHTS, read_card
from genre_core.onnx_export import require_onnx, write_onnx
from genre_core.system.atomic import atomic_folder
from search.errors import SearchErrorCode
from search.export.chosen_model import chosen_model
from search.export.model_card import readme


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
        for name in (WEIGHTS, CARD):
            shutil.copyfile(model / name, partial / name)
        difference = write_onnx(partial) if onnx else None
        text = readme(run.resolve(), model, card=read_card(model), onnx_difference=difference)
        (partial / "README.md").write_text(text, encoding="utf-8")
    return Exported(model=model.name, difference=difference)
