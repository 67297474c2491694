"""The interface through which the preparation of a search reports to the user."""

from contextlib import AbstractContextManager
from typing import Protocol

from genre_core.system.progress import ProgressCallback


class Reporter(Protocol):
    """Shows messages and progress."""

    def say(self, text: str) -> None:
        """Show one line."""

    def progress(self, title: str) -> AbstractContextManager[ProgressCallback]:
        """Show a progress bar until the context exits."""
