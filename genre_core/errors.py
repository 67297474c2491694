"""The one error that is the user's to mend: it names the rule, the value given and the way out."""


class InputError(Exception):
    """A mistake in what the user gave: a setting, a path, a file, a data set. Its text is one line."""

    def __init__(self, text: str) -> None:
        super().__init__(one_line(text))


def one_line(text: str) -> str:
    """Text without line breaks; spaces within a line stay, for a name may have two."""
    return " ".join(line.strip() for line in text.splitlines() if line.strip())
