"""Where trials that run can go on from: each one's last checkpoint, in a folder, until the trial ends."""

import errno
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from genre_core.whole_file import whole_file

Arrays = Mapping[str, NDArray[Any]]

_ROW = "row"
"""Key of the file's metadata under which the epoch's result stands."""


class CheckpointShelf:
    """Keeps the last checkpoint of each running trial, within a budget.

    Lives in one process beside the run's folder; workers send to it and ask it, wherever they run, so that no disk
    has to be shared. A checkpoint is what a fine-tune trains, after an epoch, with that epoch's result: where the
    worker or the driver died before the result was on record, it is told again and not computed again.
    """

    def __init__(self, folder: Path, budget_bytes: int) -> None:
        """Args: the run's `checkpoints` folder, and the bytes that its files may take together."""
        self._folder = folder
        self._budget_bytes = budget_bytes
        self._over: set[int] = set()
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".*"):  # what was being written
            left.unlink()

    def put(self, trial: int, epoch: int, arrays: Arrays, row: Mapping[str, Any]) -> bool:
        """Keep this checkpoint in place of the trial's earlier one; False where there is no room for it.

        The earlier one then stays, and the trial would go on from there.
        """
        earlier = self._of(trial)
        others = sum(path.stat().st_size for path in self._folder.iterdir() if path not in earlier)
        if trial in self._over or others + sum(a.nbytes for a in arrays.values()) > self._budget_bytes:
            return False
        place = self._folder / f"{_stem(trial)}{epoch:03d}.safetensors"
        try:
            with whole_file(place, durable=False) as partial:
                save_file(dict(arrays), partial, metadata={_ROW: json.dumps(row)})
        except (OSError, SafetensorError) as error:
            if not is_full(error):
                raise
            return False
        for path in earlier:
            if path != place:
                path.unlink()
        return True

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

    def _of(self, trial: int) -> list[Path]:
        return sorted(self._folder.glob(f"{_stem(trial)}*.safetensors"))


def is_full(error: BaseException) -> bool:
    """Whether this is the system's word for a disk that is full."""
    if isinstance(error, SafetensorError):  # which carries the system's error as text only
        return "No space left" in str(error) or "quota" in str(error).lower()
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _stem(trial: int) -> str:
    return f"trial-{trial:05d}-epoch-"
