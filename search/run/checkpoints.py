"""The latest checkpoint of each running or paused trial."""

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
"""Metadata key of a checkpoint: the report of its epoch, as JSON."""
_WAY_OUT = {
    "budget": "; start a search with a larger budget: --set checkpoint_budget=GIB",
    "disk": "; free some space",
}
_ENDED = ".ended"
"""File with the numbers of ended trials, one per line, for the process that replaces one that died."""


class Unsaved(NamedTuple):
    """The reason why a checkpoint was not stored, which matters only if the trial's worker dies."""

    trial: int
    cause: str
    """`budget`, `disk`, or the type of the error that prevented sending it."""
    why: str
    """The cause in words, with its values."""
    earlier: int | None = None
    """Epoch of the previous checkpoint, which is kept; None if there is none or it is unknown."""

    def __str__(self) -> str:
        """The message for the user, one line."""
        cost = f"restart from epoch {self.earlier}" if self.earlier else "start over"
        return (
            f"a checkpoint of trial {self.trial} was not stored: {self.why}; "
            f"if its worker dies, the trial may {cost}{_WAY_OUT.get(self.cause, '')}"
        )


class CheckpointStore:
    """Stores the latest checkpoint of each running or paused trial, within a budget.

    It runs in one process on the machine with the run's folder. Workers on any machine send checkpoints to it and
    fetch them from it, so no shared disk is needed. A checkpoint is the state of a fine-tune after an epoch and the
    report of that epoch: if the worker or the driver died before the report was recorded, it is replayed instead of
    being computed again.

    The whole state is in the folder: if the process dies, another one continues from there, and every call may be
    repeated.
    """

    def __init__(self, folder: Path, budget_bytes: int) -> None:
        """Args: a folder prepared by `clear_checkpoints`, and the bytes that all its files may take."""
        self._folder = folder
        self._budget_bytes = budget_bytes
        self._ended = _read_ended(folder)
        for left in folder.glob(".*"):  # incomplete files
            if left.name != _ENDED:
                left.unlink()

    def put(self, trial: int, epoch: int, arrays: Arrays, row: Mapping[str, Any]) -> Unsaved | None:
        """Replace the trial's checkpoint by this one; if there is no space for it, the previous one is kept.

        One of a later epoch is kept too: if a trial was paused and resumed at once, its former worker may still be
        sending when its next worker already does.

        Returns:
            Why it was not stored; None if it was, or if it is not needed.
        """
        earlier = self._of(trial)
        if trial in self._ended or (earlier and epoch_number(earlier[-1].name) > epoch):
            return None
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
            return self._refused(trial, "disk", f"no space left on device for {self._folder}")
        for path in earlier:
            if path != place:
                path.unlink()
        return None

    def last(self, trial: int) -> tuple[dict[str, NDArray[Any]], dict[str, Any]] | None:
        """Load the trial's latest checkpoint: arrays by name, and the report of its epoch."""
        for path in reversed(self._of(trial)):
            try:
                with safe_open(path, framework="numpy") as file:
                    names = list(file.keys())
                    return {name: file.get_tensor(name) for name in names}, json.loads(file.metadata()[_ROW])
            except SafetensorError:  # truncated by a power failure
                path.unlink()
        return None

    def drop(self, trial: int) -> None:
        """Delete the checkpoint of a trial that has ended, and ignore those that its worker still sends."""
        self._ended.add(trial)
        for path in self._of(trial):
            path.unlink()
        with (self._folder / _ENDED).open("a") as file:
            file.write(f"{trial}\n")

    def end(self) -> None:
        """Delete the folder at the end of the search; checkpoints that arrive later are not stored."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _refused(self, trial: int, cause: str, why: str) -> Unsaved:
        kept = self._of(trial)
        earlier = epoch_number(kept[-1].name) if kept else None
        return Unsaved(trial=trial, cause=cause, why=why, earlier=earlier)

    def _of(self, trial: int) -> list[Path]:
        return sorted(self._folder.glob(checkpoint_name(trial, None)))


def clear_checkpoints(folder: Path, *, keep: Collection[int]) -> None:
    """Prepare the folder for a search that starts or resumes: delete the checkpoints of trials that are not running.

    A checkpoint of an ended trial remains if the driver died before it could be deleted.
    """
    make_folder(folder)
    (folder / _ENDED).unlink(missing_ok=True)
    for path in folder.glob("trial-*"):
        number = trial_number(path.name, CHECKPOINT_SUFFIX)
        if number is not None and number not in keep:
            path.unlink()


class RunFolderFull(OSError):
    """The disk of the run's folder is full. This ends a search; a full disk of a worker does not."""


def is_full(error: BaseException) -> bool:
    """Whether the error is that of a full disk."""
    if isinstance(error, SafetensorError):  # has the error of the system only as text
        return "No space left" in str(error) or "quota" in str(error).lower()
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _read_ended(folder: Path) -> set[int]:
    """Read the numbers of the ended trials; an incomplete last line is removed."""
    file = folder / _ENDED
    if not file.exists():
        return set()
    text = file.read_text()
    complete = text[: text.rfind("\n") + 1]
    if complete != text:
        os.truncate(file, len(complete))
    return {int(line) for line in complete.split()}
