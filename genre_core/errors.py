"""The one error for a user's mistake, and the codes of all kinds that genre_core raises."""

from enum import StrEnum


class ErrorCode(StrEnum):
    """Kinds of mistakes, for programs and tests: they depend on the code, not on the wording."""

    # audio
    # corpus
    # datasets
    # models
    # recipe
    # synthetic


class InputError(Exception):
    """A mistake in what the user gave: a setting, a path, a file, a data set.

    Its message is one line: the rule, the value given, and what to do.
    """

    def __init__(self, message: str, *, code: StrEnum | None = None) -> None:
        """Args: the message, and what kind of mistake it is."""
        super().__init__(one_line(message))
        self.code = code


def one_line(text: str) -> str:
    """Text without line breaks; spaces within a line stay, for a name may have two."""
    return " ".join(line.strip() for line in text.splitlines() if line.strip())
