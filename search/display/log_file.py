"""A file with the lines of a search, each with the time at which it was written."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path


class LogFile:
    """Appends lines to a file, which can be read while the search runs."""

    def __init__(self, path: Path, *, now: Callable[[], datetime] = datetime.now) -> None:
        """Create the file and its folder where they do not exist.

        Raises:
            OSError: the file cannot be written to.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._now = now
        self._file = path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)

    def write(self, text: str) -> None:
        """Append lines with the local time."""
        moment = self._now().isoformat(sep=" ", timespec="seconds")
        self._file.writelines(f"{moment} {line}".rstrip() + "\n" for line in text.split("\n"))

    def close(self) -> None:
        """Close the file."""
        self._file.close()
