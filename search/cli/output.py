"""Output of commands: printing in any encoding, exit codes, errors and interrupts."""

import codecs
import io
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from genre_core.errors import one_line
from genre_core.system.interruption import termination_as_interrupt

if TYPE_CHECKING:
    from rich.console import RenderableType

FAILED, USER_MISTAKE, INTERRUPTED = 1, 2, 130
"""Exit codes."""

_REPLACE, _REPLACE_OR_BYTES = "genre_search_replace", "genre_search_replace_or_bytes"
"""Names of codec error handlers."""

_SIMILAR = {"\N{MULTIPLICATION SIGN}": "x", "\N{EN DASH}": "-", "\N{EM DASH}": "-", "±": "+-", "·": "-"}
_SIMILAR |= {"…": "...", "→": "->", "━": "=", "╸": "=", "─": "-"}
_SIMILAR |= dict.fromkeys("▁▂▃▄▅▆▇", ".") | dict.fromkeys("▏▎▍", "|") | dict.fromkeys("▌▋▊▉█", "#")
"""Replacements for characters that an encoding lacks; other characters become Python escapes."""


def replace_unencodable() -> None:
    """Replace characters that the encoding of stdout or stderr lacks by similar ones."""
    codecs.register_error(_REPLACE, _replace)
    codecs.register_error(_REPLACE_OR_BYTES, _replace_or_bytes)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Python's setting in the C locale, where file names are printed with their bytes on disk
            keeps_bytes = stream.errors == "surrogateescape"
            stream.reconfigure(errors=_REPLACE_OR_BYTES if keeps_bytes else _REPLACE)


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    return _SIMILAR.get(character) or _escape(character), error.start + 1


def _replace_or_bytes(error: UnicodeError) -> tuple[str | bytes, int]:
    text, after = _replace(error)
    surrogate = re.fullmatch(r"\\udc([89a-f][0-9a-f])", text)
    return bytes.fromhex(surrogate[1]) if surrogate else text, after


def _escape(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode()


def show(*parts: "RenderableType") -> None:
    """Print rich renderables; on a terminal, text is wrapped at words and commands are kept on one line."""
    from search.display.area import console
    from search.report.fitting import fitted

    screen = console()
    for part in parts:
        screen.print(fitted(part, screen), soft_wrap=True)


def echo(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print text in the encoding of the stream; without `file`, Typer takes ASCII for a mistake and writes UTF-8."""
    typer.echo(text, file=sys.stderr if err else sys.stdout, nl=nl)


@contextmanager
def interruptible(next_step: Callable[[], str]) -> Iterator[None]:
    """On Ctrl-C or SIGTERM inside the context, print the next step and exit with INTERRUPTED."""
    try:
        with termination_as_interrupt():
            yield
    except KeyboardInterrupt as error:
        echo(f"interrupted; {next_step()}")
        raise typer.Exit(INTERRUPTED) from error


def disk_full(error: BaseException, retry: str) -> typer.Exit:
    """Report a full disk in one line, with the file that could not be written and the command to resume with."""
    file = getattr(getattr(error, "cause", None) or error, "filename", None)
    place = f"the disk of {file}" if file else "the disk"
    return typer.Exit(complain(f"no space left on {place}; free some and run: {retry}", USER_MISTAKE))


def complain(error: object, code: int) -> int:
    """Print an error as one line on stderr and return the exit code."""
    echo(f"error: {one_line(str(error))}", err=True)
    return code
