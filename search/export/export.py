"""A run's winner as a folder to use and to share: tensors, card, README and, if asked for, ONNX."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from genre_core.errors import InputError
from genre_core.models.artifact import CARD, WEIGHTS, read_card
from genre_core.onnx_export import require_onnx, write_onnx
from genre_core.system.atomic import atomic_folder
from search.export.chosen_model import chosen
from search.export.model_card import readme


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was exported."""

    model: str
    """The name of the model's folder in the run."""
    difference: float | None
    """The largest of a probability between ONNX Runtime and PyTorch; None without ONNX."""


def export(run: Path, folder: Path, *, trial: int | None, onnx: bool) -> Exported:
    """Export the run's winner, or the model of a trial; the folder appears whole or not at all.

    Raises:
        InputError: no run, no such model, a folder that holds something, or ONNX without its packages.
    """
    model = chosen(run, trial=trial)
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"DIR must be new or empty, but got {folder}; name another folder")
    if onnx:
        require_onnx()
    with atomic_folder(folder.resolve()) as partial:
        for name in (WEIGHTS, CARD):
            shutil.copyfile(model / name, partial / name)
        difference = write_onnx(partial) if onnx else None
        text = readme(run.resolve(), model, card=read_card(model), onnx_difference=difference)
        (partial / "README.md").write_text(text, encoding="utf-8")
    return Exported(model=model.name, difference=difference)
