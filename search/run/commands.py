"""Commands that are printed for the user to give next: whatever is in a path, a shell takes them as they are meant."""

import shlex
from pathlib import Path


def command(*words: str | Path) -> str:
    """A genre-search command, quoted for a POSIX shell; a path is never taken for an option."""
    return " ".join(("genre-search", *(shlex.quote(_plain(word)) for word in words)))


def _plain(word: str | Path) -> str:
    text = str(word)
    return f"./{text}" if isinstance(word, Path) and text.startswith("-") else text
