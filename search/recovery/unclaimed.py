"""Files in a run's folder that belong to none of its trials: moved aside and reported, never deleted."""

import shutil
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from search.run.folder import RunFolder

_LISTED = 3
"""Number of files that a message lists."""


class Unclaimed:
    """Moves files of a run to `unclaimed/TIME/`, where each keeps its path relative to the run."""

    def __init__(self, run: Path) -> None:
        """Args: the folder of the run."""
        self._run = run
        self._moved: list[str] = []
        self._target: Path | None = None

    def take(self, path: Path) -> None:
        """Move a file or folder of the run aside."""
        self._target = self._target or self._new_target()
        name = path.relative_to(self._run)
        target = self._target / name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
        self._moved.append(str(name))

    def keep_copy(self, path: Path) -> None:
        """Copy a file of the run, which others in it need, next to what is moved aside."""
        self._target = self._target or self._new_target()
        target = self._target / path.relative_to(self._run)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            target.hardlink_to(path)
        except FileExistsError:
            pass  # copied for another model
        except OSError:  # of a file system without links
            shutil.copyfile(path, target)

    @property
    def message(self) -> str | None:
        """What was moved and where; None if nothing was."""
        if not self._target:
            return None
        listed = ", ".join(self._moved[:_LISTED])
        more = len(self._moved) - _LISTED
        return (
            f"moved to {self._target}, because they are damaged or belong to no trial of this run: {listed}"
            + (f" and {more} more" if more > 0 else "")
        )

    def _new_target(self) -> Path:
        """Create a folder named after the present time."""
        name = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        unclaimed = RunFolder(self._run).unclaimed
        folders = (unclaimed / (name if n == 1 else f"{name}-{n}") for n in count(1))
        target = next(folder for folder in folders if not folder.exists())
        target.mkdir(parents=True)
        return target
