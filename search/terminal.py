"""What commands share: their common arguments, exit codes, and how they print."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

USER_MISTAKE, FAILED, INTERRUPTED = 2, 1, 130
"""Exit codes."""

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


def cache_folder(given: Path | None) -> Path:
    """Where things are cached: as given, or in the user's own cache."""
    from platformdirs import user_cache_path

    return given or user_cache_path("genre-search")


def console() -> "Console":
    """The screen, or the file or pipe in its place."""
    from rich.console import Console

    # A pipe or a file has no width of its own: rows stay whole there.
    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def show(*parts: Any) -> None:
    """Print rich's things."""
    for part in parts:
        console().print(part, soft_wrap=True)


def disk_full(go_on: str) -> typer.Exit:
    """The end of a command on a full disk: one line that names the command to go on with."""
    return typer.Exit(complain(f"the disk is full; make room, then go on with: {go_on}", USER_MISTAKE))


def complain(error: object, code: int) -> int:
    """An error as one line on standard error; gives back the exit code."""
    typer.echo(f"error: {' '.join(str(error).split())}", err=True)
    return code
