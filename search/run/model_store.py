"""The best models of a search: each a folder with model.safetensors and model.json."""

import errno
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save_file

from genre_core.models.artifact import CARD, WEIGHTS, is_complete, read_card
from genre_core.system.atomic import PARTIAL, atomic_folder, make_folder
from search.run.checkpoints import RunFolderFull, is_full
from search.run.folder import RunFolder, model_name


class ModelStore:
    """Keeps the best so many trials' models in a folder, each as of the trial's best epoch.

    Lives in one process beside the run's folder; workers offer their models to it, wherever they run. Of equal
    trials the earlier one is better, as in the leaderboard, so that what is kept does not depend on the order of
    the offers. What an interrupted search, or a process that died, left in the folder counts as kept, and every call
    may be repeated.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        """Args: the run's `models` folder, and how many trials to keep."""
        self._folder = folder
        self._keep = keep
        self._kept: dict[int, tuple[float, Path]] = {}
        self._closed = False
        make_folder(folder)
        for left in folder.glob(f"*{PARTIAL}"):
            shutil.rmtree(left)
        for place in sorted(folder.iterdir()):
            if is_complete(place):
                card = read_card(place)
                self._put(card["trial"], card["validation"]["f1"], place)

    def wants(self, trial: int, f1: float) -> bool:
        """Whether this trial's model would be among the best with this validation F1."""
        if self._closed:
            return False
        better = sum(
            (kept, -number) > (f1, -trial) for number, (kept, _) in self._kept.items() if number != trial
        )
        return better < self._keep

    def close(self) -> None:
        """Take no more: the search has ended, and the driver would not hear of a later epoch's scores."""
        self._closed = True

    def offer(
        self, trial: int, f1: float, tensors: Mapping[str, NDArray[Any]], card: Mapping[str, Any]
    ) -> None:
        """Keep this model in place of the trial's earlier one, and drop the worst if there are too many.

        Raises:
            RunFolderFull: there is no room for it.
        """
        place = self._folder / model_name(trial, card["epoch"])
        if place.exists() or not self.wants(trial, f1):  # an epoch that is repeated makes the same model
            return
        try:
            write_model(place, tensors, card)
        except (OSError, SafetensorError) as error:
            if not is_full(error):
                raise
            raise RunFolderFull(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place)) from error
        self._put(trial, f1, place)

    def _put(self, trial: int, f1: float, place: Path) -> None:
        _, earlier = self._kept.get(trial, (0.0, None))
        self._kept[trial] = (f1, place)
        if earlier:
            _delete(earlier)
        if len(self._kept) > self._keep:
            worst = min(self._kept, key=lambda number: (self._kept[number][0], -number))
            _delete(self._kept.pop(worst)[1])


def _delete(place: Path) -> None:
    """Delete a model's folder; if that is interrupted, what is left of it is known as such."""
    half = place.with_name(f".{place.name}{PARTIAL}")
    place.rename(half)
    shutil.rmtree(half)


def kept_models(run: Path, trial: int | None = None) -> list[Path]:
    """The folders of the models that a search has kept, of all trials or of one."""
    return sorted(folder for folder in RunFolder(run).kept_models(trial) if is_complete(folder))


def kept_card(run: Path, trial: int) -> dict[str, Any] | None:
    """The card of the model that a search has kept of a trial; None where none is kept."""
    kept = kept_models(run, trial)
    return read_card(kept[0]) if kept else None


def write_model(place: Path, tensors: Mapping[str, NDArray[Any]], card: Mapping[str, Any]) -> None:
    """A model's folder; it appears whole or not at all."""
    with atomic_folder(place) as partial:
        save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, partial / WEIGHTS)
        (partial / CARD).write_text(json.dumps(card, indent=1), encoding="utf-8")
