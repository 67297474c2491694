"""Commands printed for the user to run next, quoted for a shell."""

import shlex
from pathlib import Path

PROGRAM = "genre-search"
"""Name of the installed command."""


def command(*words: str | Path) -> str:
    """A genre-search command quoted for a POSIX shell, in which no path can be taken for an option."""
    return " ".join((PROGRAM, *(shlex.quote(_argument(word)) for word in words)))


def _argument(word: str | Path) -> str:
    text = str(word)
    return f"./{text}" if isinstance(word, Path) and text.startswith("-") else text
