"""The best models of a search, each in a folder with model.safetensors and model.json; frozen blocks are shared."""

import errno
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save_file

from genre_core.models.artifact import CARD, WEIGHTS, is_complete, read_card
from genre_core.system.atomic import PARTIAL, atomic_folder, make_folder
from search.run import shared_blocks
from search.run.checkpoints import RunFolderFull, is_full
from search.run.folder import RunFolder, model_name


class ModelStore:
    """Stores the models of the N best trials, each from the trial's best epoch.

    It runs in one process on the machine with the run's folder; workers on any machine offer models to it. If scores
    are equal, the earlier trial ranks first, as in the leaderboard, so the result does not depend on the order of
    offers. Models of an interrupted search, or of a process that died, count as kept, and every call may be repeated.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        """Args: the `models` folder of the run, and the number of trials whose models are kept."""
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
        shared_blocks.delete_unused(folder)  # of a process that died

    def wants(self, trial: int, f1: float) -> bool:
        """Whether a model of this trial with this validation F1 would be among the best."""
        if self._closed or (trial in self._kept and f1 < self._kept[trial][0]):
            return False  # a trial that starts over repeats its first epochs
        better = sum(
            (kept, -number) > (f1, -trial) for number, (kept, _) in self._kept.items() if number != trial
        )
        return better < self._keep

    def lacks(self, blocks: Mapping[str, str]) -> tuple[str, ...]:
        """Those of these frozen blocks (block -> digest) that are not stored."""
        return tuple(
            block for block, digest in blocks.items() if not shared_blocks.is_stored(self._folder, digest)
        )

    def close(self) -> None:
        """Reject all further models: after the end of a search, the scores of later epochs are not recorded."""
        self._closed = True

    def offer(
        self, trial: int, f1: float, tensors: Mapping[str, NDArray[Any]], card: Mapping[str, Any]
    ) -> tuple[str, ...]:
        """Replace the trial's model by this one, and delete the worst model if there are too many.

        Args:
            trial: its number.
            f1: its validation F1.
            tensors: by name; those of shared blocks that are stored already are not needed.
            card: the content of model.json.

        Returns:
            The shared blocks that are neither stored nor given. If there are any, the model is not stored: offer it
            again with them.

        Raises:
            RunFolderFull: the disk is full.
        """
        place = self._folder / model_name(trial, card["epoch"])
        if place.exists() or not self.wants(trial, f1):  # a repeated epoch yields the same model
            return ()
        if blocks := shared_blocks.lacking(self._folder, tensors, card):
            return blocks
        try:
            write_model(place, tensors, card)
        except (OSError, SafetensorError) as error:
            if not is_full(error):
                raise
            raise RunFolderFull(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place)) from error
        if self._put(trial, f1, place):
            shared_blocks.delete_unused(self._folder)
        return ()

    def _put(self, trial: int, f1: float, place: Path) -> bool:
        """Keep a model; whether another one was deleted for it."""
        _, earlier = self._kept.get(trial, (0.0, None))
        self._kept[trial] = (f1, place)
        if earlier:
            _delete(earlier)
        if len(self._kept) > self._keep:
            worst = min(self._kept, key=lambda number: (self._kept[number][0], -number))
            _delete(self._kept.pop(worst)[1])
            return True
        return earlier is not None


def _delete(place: Path) -> None:
    """Delete a model's folder, which is first renamed: if interrupted, it cannot be taken for a model."""
    partial = place.with_name(f".{place.name}{PARTIAL}")
    place.rename(partial)
    shutil.rmtree(partial)


def kept_models(run: Path, trial: int | None = None) -> list[Path]:
    """List the folders of the models that a search has kept, of all trials or of one."""
    return sorted(folder for folder in RunFolder(run).kept_models(trial) if is_complete(folder))


def kept_card(run: Path, trial: int) -> dict[str, Any] | None:
    """Read the card of the kept model of a trial; None if none is kept."""
    kept = kept_models(run, trial)
    return read_card(kept[-1]) if kept else None  # a running search is about to delete the earlier of two


def write_model(place: Path, tensors: Mapping[str, NDArray[Any]], card: Mapping[str, Any]) -> None:
    """Write a model's folder atomically, after those of its shared blocks that are not stored yet."""
    own = shared_blocks.store(place.parent, tensors, card)
    with atomic_folder(place) as partial:
        save_file(own, partial / WEIGHTS)
        (partial / CARD).write_text(json.dumps(card, indent=1), encoding="utf-8")
