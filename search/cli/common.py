"""What commands share: their common arguments, exit codes, and how they print."""

import codecs
import io
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperOption
from typer.models import CommandFunctionType

from genre_core.errors import InputError, one_line
from search.tune.interruption import termination_as_interrupt

if TYPE_CHECKING:
    from rich.console import Console

USER_MISTAKE, FAILED, INTERRUPTED = 2, 1, 130
"""Exit codes."""

_PLAIN_CHARACTERS, _PLAIN_OR_BYTES = "genre_search_plain", "genre_search_plain_or_bytes"
_SIMILAR = {"\N{MULTIPLICATION SIGN}": "x", "\N{EN DASH}": "-", "\N{EM DASH}": "-", "±": "+-", "·": "-"}
_SIMILAR |= {"…": "...", "→": "->", "█": "#"} | dict.fromkeys("▁▂▃▄▅▆▇", ".")
"""What is written where an encoding lacks a character; others become Python's escapes."""

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a search, runs/NAME.")]
MovedData = Annotated[
    Path | None,
    typer.Option("--data", metavar="PATH", help="Where the music is now, if it has moved."),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder for spectrograms, audits and the built-in corpus.",
        envvar="GENRE_SEARCH_CACHE",
    ),
]


TrialsPerGpu = Annotated[
    str | None, typer.Option(metavar="N", help="Trials that share a GPU, or `auto`; without it, as before.")
]


def cache_folder(given: Path | None) -> Path:
    """Where things are cached: as given, or in the user's own cache."""
    from platformdirs import user_cache_path

    return given or user_cache_path("genre-search")


class App(typer.Typer):
    """Commands that refuse an option given twice, of which the parser would silently take the last."""

    def command(
        self, name: str | None = None, *, cls: type[TyperCommand] | None = None, **options: Any
    ) -> Callable[[CommandFunctionType], CommandFunctionType]:
        """See typer.Typer."""
        return super().command(name, cls=cls or _Command, **options)


class _Command(TyperCommand):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse as ever, after the names of options have been counted."""
        if args and not ctx.resilient_parsing:
            _, _, given = self.make_parser(ctx).parse_args(args=list(args))
            for option, times in Counter(given).items():
                if isinstance(option, TyperOption) and times > 1 and not (option.multiple or option.is_flag):
                    raise InputError(
                        f"{option.opts[-1]} must be given once, but is given {times} times; keep the one that is meant"
                    )
        return super().parse_args(ctx, args)


def use_plain_characters() -> None:
    """Where the screen or file that is written to cannot show a character, something similar is written."""
    codecs.register_error(_PLAIN_CHARACTERS, _in_plain_characters)
    codecs.register_error(_PLAIN_OR_BYTES, _in_plain_characters_or_bytes)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # as Python has it in the C locale, where names of files are printed as they are on the disk
            keeps_bytes = stream.errors == "surrogateescape"
            stream.reconfigure(errors=_PLAIN_OR_BYTES if keeps_bytes else _PLAIN_CHARACTERS)


def _in_plain_characters(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    return _SIMILAR.get(character) or _escape(character), error.start + 1


def _in_plain_characters_or_bytes(error: UnicodeError) -> tuple[str | bytes, int]:
    plain, after = _in_plain_characters(error)
    original = re.fullmatch(r"\\udc([89a-f][0-9a-f])", plain)
    return bytes.fromhex(original[1]) if original else plain, after


def _escape(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode()


def console() -> "Console":
    """The screen, or the file or pipe in its place."""
    from rich.console import Console

    # A pipe or a file has no width of its own: rows stay whole there.
    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def show(*parts: Any) -> None:
    """Print rich's things."""
    for part in parts:
        console().print(part, soft_wrap=True)


def echo(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print text in the encoding that was asked for: by itself typer takes ASCII for a mistake and writes UTF-8."""
    typer.echo(text, file=sys.stderr if err else sys.stdout, nl=nl)


@contextmanager
def interruptible(what_next: Callable[[], str]) -> Iterator[None]:
    """Ctrl-C or SIGTERM, at any time, ends the command with what to do next."""
    try:
        with termination_as_interrupt():
            yield
    except KeyboardInterrupt as error:
        echo(f"interrupted; {what_next()}")
        raise typer.Exit(INTERRUPTED) from error


def disk_full(error: BaseException, go_on: str) -> typer.Exit:
    """The end of a command on a full disk: one line that names the file that had no room, and how to continue."""
    file = getattr(getattr(error, "cause", None) or error, "filename", None)
    disk = f"the disk of {file}" if file else "the disk"
    return typer.Exit(complain(f"{disk} is full; make room, then go on with: {go_on}", USER_MISTAKE))


def complain(error: object, code: int) -> int:
    """An error as one line on standard error; gives back the exit code."""
    echo(f"error: {one_line(str(error))}", err=True)
    return code
