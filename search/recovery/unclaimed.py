"""Files in a run's folder that belong to none of its trials: moved aside and named, never deleted."""

from datetime import UTC, datetime
from pathlib import Path

FOLDER = "unclaimed"
_NAMED = 3
"""Files that a message names."""


class Unclaimed:
    """Moves files of one run to `unclaimed/TIME/`, where each keeps its path in the run."""

    def __init__(self, run: Path) -> None:
        """Args: the run's folder."""
        self._run = run
        self._moved: list[str] = []
        self._home: Path | None = None

    def take(self, path: Path) -> None:
        """Move this file or folder of the run aside."""
        self._home = self._home or self._new_home()
        name = path.relative_to(self._run)
        target = self._home / name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
        self._moved.append(str(name))

    @property
    def message(self) -> str | None:
        """What was moved and where to; None where nothing was."""
        if not self._home:
            return None
        shown = ", ".join(self._moved[:_NAMED])
        more = len(self._moved) - _NAMED
        return f"moved to {self._home}, since they belong to no trial of this run or are damaged: {shown}" + (
            f" and {more} more" if more > 0 else ""
        )

    def _new_home(self) -> Path:
        """A folder of this moment, which nothing was moved to before."""
        name = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        homes = (
            self._run / FOLDER / f"{name}{suffix}" for suffix in ("", *(f"-{n}" for n in range(2, 1000)))
        )
        home = next(home for home in homes if not home.exists())
        home.mkdir(parents=True)
        return home
