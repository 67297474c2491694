"""Reporters for tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO

from rich.console import Console

from genre_core.system.progress import ProgressCallback
from search.display.progress import Display


def unseen_display() -> Display:
    """The display of a search, on a screen that nobody sees."""
    return Display(Console(file=StringIO()))


class RecordingReporter:
    """Keeps messages and the titles of progress bars."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    @contextmanager
    def progress(self, title: str) -> Iterator[ProgressCallback]:
        self.lines.append(title)
        yield lambda done, total: None
