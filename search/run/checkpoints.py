"""Where trials that run can go on from: each one's last checkpoint, in a folder, until the trial ends."""

import errno
import json
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from genre_core.system.atomic import atomic_file, make_folder
from search.run.folder import CHECKPOINT_SUFFIX, checkpoint_name, epoch_number, trial_number

Arrays = Mapping[str, NDArray[Any]]

MIB = 1024**2

_ROW = "row"
"""Key of the file's metadata under which the epoch's result is stored."""
_WAY_OUT = {
    "budget": "; a search with more room: --set checkpoint_budget=GIB",
    "disk": "; free some space",
}
_ENDED = ".ended"
"""The file of trials that are over, a number a line, for the process that replaces one that died."""


class Unsaved(NamedTuple):
    """A checkpoint that is not kept, which costs nothing unless the trial's worker dies."""

    trial: int
    cause: str
    """`budget`, `disk`, or the type of the error that kept it from being sent."""
    why: str
    """The cause in words, with its numbers."""
    earlier: int | None = None
    """The epoch of the checkpoint that stays, as far as is known."""

    def __str__(self) -> str:
        """One line for the user."""
        cost = f"go back to epoch {self.earlier}" if self.earlier else "start over"
        return (
            f"a checkpoint of trial {self.trial} is not kept: {self.why}; "
            f"if its worker dies, the trial may {cost}{_WAY_OUT.get(self.cause, '')}"
        )


class CheckpointStore:
    """Keeps the last checkpoint of each running trial, within a budget.

    Lives in one process beside the run's folder; workers send to it and ask it, wherever they run, so that no disk
    has to be shared. A checkpoint is what a fine-tune trains, after an epoch, with that epoch's result: where the
    worker or the driver died before the result was on record, it is told again and not computed again.

    The folder holds all that it knows: when its process dies, another one continues from there, and every call may
    be repeated.
    """

    def __init__(self, folder: Path, budget_bytes: int) -> None:
        """Args: a folder prepared by `clear_checkpoints`, and the bytes that its files may take together."""
        self._folder = folder
        self._budget_bytes = budget_bytes
        self._over = _read_ended(folder)
        for left in folder.glob(".*"):  # what was being written
            if left.name != _ENDED:
                left.unlink()

    def put(self, trial: int, epoch: int, arrays: Arrays, row: Mapping[str, Any]) -> Unsaved | None:
        """Keep this checkpoint in place of the trial's earlier one; where there is no room for it, the earlier stays.

        Returns:
            Why it is not kept, None where it is. Of a trial that is over, none is kept, and none is missed.
        """
        if trial in self._over:
            return None
        earlier = self._of(trial)
        others = sum(path.stat().st_size for path in self._folder.glob("trial-*") if path not in earlier)
        size = sum(array.nbytes for array in arrays.values())
        if others + size > self._budget_bytes:
            left, budget = max(0, self._budget_bytes - others) / MIB, self._budget_bytes / MIB
            why = f"it takes {size / MIB:.3g} MiB, and checkpoint_budget has {left:.3g} MiB of {budget:.3g} left"
            return self._refused(trial, "budget", why)
        place = self._folder / checkpoint_name(trial, epoch)
        try:
            with atomic_file(place, durable=False) as partial:
                save_file(dict(arrays), partial, metadata={_ROW: json.dumps(row)})
        except (OSError, SafetensorError) as error:
            if not is_full(error):
                raise
            return self._refused(trial, "disk", f"no space left on the disk of {self._folder}")
        for path in earlier:
            if path != place:
                path.unlink()
        return None

    def last(self, trial: int) -> tuple[dict[str, NDArray[Any]], dict[str, Any]] | None:
        """The trial's last checkpoint: arrays by name, and the result of the epoch after which it was taken."""
        for path in reversed(self._of(trial)):
            try:
                with safe_open(path, framework="numpy") as file:
                    names = list(file.keys())
                    return {name: file.get_tensor(name) for name in names}, json.loads(file.metadata()[_ROW])
            except SafetensorError:  # cut short when the power failed
                path.unlink()
        return None

    def drop(self, trial: int) -> None:
        """The trial is over: nothing of it is kept, and nothing that still comes from its worker is taken."""
        self._over.add(trial)
        for path in self._of(trial):
            path.unlink()
        with (self._folder / _ENDED).open("a") as file:
            file.write(f"{trial}\n")

    def end(self) -> None:
        """The search is over: the folder goes, and what still comes from a worker finds no place."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _refused(self, trial: int, cause: str, why: str) -> Unsaved:
        kept = self._of(trial)
        earlier = epoch_number(kept[-1].name) if kept else None
        return Unsaved(trial=trial, cause=cause, why=why, earlier=earlier)

    def _of(self, trial: int) -> list[Path]:
        return sorted(self._folder.glob(checkpoint_name(trial, None)))


def clear_checkpoints(folder: Path, *, keep: Collection[int]) -> None:
    """Prepare the folder for a search that begins or resumes: only its running trials have checkpoints.

    Of others one is left where the driver died between a trial's end and the checkpoint's.
    """
    make_folder(folder)
    (folder / _ENDED).unlink(missing_ok=True)
    for path in folder.glob("trial-*"):
        number = trial_number(path.name, CHECKPOINT_SUFFIX)
        if number is not None and number not in keep:
            path.unlink()


class RunFolderFull(OSError):
    """The disk of the run's folder is full, which ends a search; a full disk of a worker does not."""


def is_full(error: BaseException) -> bool:
    """Whether this is the system's word for a disk that is full."""
    if isinstance(error, SafetensorError):  # which carries the system's error as text only
        return "No space left" in str(error) or "quota" in str(error).lower()
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _read_ended(folder: Path) -> set[int]:
    """The trials of which it is on record that they are over; a line that was cut off is none, and goes."""
    file = folder / _ENDED
    if not file.exists():
        return set()
    text = file.read_text()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        os.truncate(file, len(whole))
    return {int(line) for line in whole.split()}
