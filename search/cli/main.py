"""The genre-search command; heavy packages are imported by the commands that use them."""

import errno
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from genre_core.errors import InputError
from search.cli import data, model, search, simulate
from search.cli.options import App
from search.cli.output import FAILED, USER_MISTAKE, complain, echo, replace_unencodable
from search.run.commands import PROGRAM

_IN_ORDER_OF_USE = (
    *("run", "resume", "results", "best", "finish", "report", "export", "predict"),
    *("simulate", "data", "cluster", "version"),
)

_USER_ERRNOS = (
    errno.EACCES,
    errno.EDQUOT,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
)
"""System errors about a path that the user gave: no space, no permission, or the wrong type of file."""


class _Commands(TyperGroup):
    """Commands in the order of their use."""

    def list_commands(self, ctx: object) -> list[str]:
        return sorted(self.commands, key=_IN_ORDER_OF_USE.index)


app = App(
    cls=_Commands,
    help="""Find the best way to fine-tune an ImageNet CNN on mel spectrograms for music genre classification.

    Examples, from a folder with one subfolder per genre to a model:

      genre-search run --data ~/music --trials 200 --name music

      genre-search report runs/music

      genre-search finish runs/music

      genre-search export runs/music music-model

      genre-search predict music-model song.mp3
    """,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
cluster_app = App(help="Check a cluster file before launching it.", no_args_is_help=True)
app.add_typer(search.app)
app.add_typer(model.app)
app.add_typer(simulate.app)
app.add_typer(data.app, name="data")
app.add_typer(cluster_app, name="cluster")


@cluster_app.command("check")
def check_cluster(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A file for `ray up`, or one with a RayJob or RayCluster."),
    ],
) -> None:
    """Check a cluster file for unsafe or inconsistent settings.

    Exits with 1 if there are any.

    Examples:

      genre-search cluster check cluster.yaml

      genre-search cluster check kubernetes/rayjob.yaml
    """
    from search.cluster_lint.ray_up import check

    problems = check(file)
    for problem in problems:
        echo(str(problem))
    if problems:
        raise typer.Exit(FAILED)
    echo(f"{file}: no problems found")


@app.command()
def version() -> None:
    """Show package versions and the available devices."""
    import torch

    from search.run.provenance import versions

    echo(f"python {sys.version.split()[0]}")
    for package, installed in versions().items():
        echo(f"{package} {installed}")
    for gpu in range(torch.cuda.device_count()):
        echo(f"cuda:{gpu} {torch.cuda.get_device_name(gpu)}")
    echo(f"cpu, {torch.get_num_threads()} threads")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit; a user's mistake is one line on stderr and exit code 2.

    Args:
        arguments: arguments of the command; None for those of this process.
    """
    replace_unencodable()
    try:
        code = app(arguments, prog_name=PROGRAM, standalone_mode=False)
    except InputError as error:
        code = complain(error, USER_MISTAKE)
    except TyperException as error:
        code = _parser_message(error.format_message())
    except OSError as error:
        if error.errno not in _USER_ERRNOS:
            raise
        code = complain(f"cannot use {error.filename or 'a file'}: {error.strerror}", USER_MISTAKE)
    sys.exit(code if isinstance(code, int) else 0)


def _parser_message(message: str) -> int:
    """Print a message of Typer's parser: help for a command without arguments, or a user's mistake."""
    if message.startswith("Usage:"):
        echo(message)
        return 0
    return complain(message, USER_MISTAKE)
