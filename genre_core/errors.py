"""The one error for a user's mistake, and the codes of all kinds that genre_core raises."""

from enum import StrEnum


class ErrorCode(StrEnum):
    """Kinds of mistakes, for programs and tests: they depend on the code, not on the wording."""

    # audio
    # corpus
    # datasets
    ARCHIVE_DAMAGED = "archive-damaged"
    ARCHIVE_SPECIAL_FILE = "archive-special-file"
    ARCHIVE_TOO_LARGE = "archive-too-large"
    ARCHIVE_UNSAFE_PATH = "archive-unsafe-path"
    DOWNLOAD_FAILED = "download-failed"
    FMA_TABLE_UNREADABLE = "fma-table-unreadable"
    FOLDER_IN_USE = "folder-in-use"
    FOLDER_IS_A_FILE = "folder-is-a-file"
    FOLDER_NOT_WRITABLE = "folder-not-writable"
    INVALID_ARCHIVE_ENTRY = "invalid-archive-entry"
    MIRRORS_UNREADABLE = "mirrors-unreadable"
    MIRRORS_WITHOUT_DATA_SET = "mirrors-without-data-set"
    NO_SPACE = "no-space"
    NO_TRACKS = "no-tracks"
    SPLIT_NOT_SELECTABLE = "split-not-selectable"
    UNKNOWN_DATA_SET = "unknown-data-set"
    UNKNOWN_SPLIT = "unknown-split"
    # models
    # recipe
    # synthetic
    SYNTHETIC_OUT_OF_RANGE = "synthetic-out-of-range"


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
