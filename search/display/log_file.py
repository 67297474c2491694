"""A log file with the output of a search; each line has a timestamp."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from search.errors import not_writable


class LogFile:
    """Appends lines to a file that can be read while the search runs."""

    def __init__(self, path: Path, *, now: Callable[[], datetime] = datetime.now) -> None:
        """Create the file and its folder if they do not exist.

        Raises:
            InputError: the file cannot be written.
        """
        self._now = now
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)
        except OSError as error:
            raise not_writable("--log-file", path, error) from error

    def write(self, text: str) -> None:
        """Append lines with the local time."""
        moment = self._now().isoformat(sep=" ", timespec="seconds")
        self._file.writelines(f"{moment} {line}".rstrip() + "\n" for line in text.split("\n"))

    def close(self) -> None:
        """Close the file."""
        self._file.close()
