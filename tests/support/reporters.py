"""A reporter for tests."""

from collections.abc import Iterator
from contextlib import contextmanager

from genre_core.system.progress import ProgressCallback


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
