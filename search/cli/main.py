"""The genre-search command; heavy packages are imported by the commands that use them."""

import difflib
import errno
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from genre_core.errors import InputError
from search.cli import config, data, folders, model, search, simulate
from search.cli.options import App, Json
from search.cli.output import FAILED, USER_MISTAKE, complain, echo, replace_unencodable
from search.run.commands import PROGRAM

_IN_ORDER_OF_USE = (
    *("init", "run", "resume", "list", "results", "best", "finish", "report", "export", "predict"),
    *("simulate", "data", "config", "cache", "cluster", "version"),
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

_NEAR = 0.75
"""Similarity from which an option counts as a misspelling of another one, from 0 to 1."""


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
app.add_typer(config.app)
app.add_typer(search.app)
app.add_typer(folders.app)
app.add_typer(model.app)
app.add_typer(simulate.app)
app.add_typer(data.app, name="data")
app.add_typer(config.config_app, name="config")
app.add_typer(cluster_app, name="cluster")


@cluster_app.command("check")
def check_cluster(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A `ray up` file, or a manifest with a RayJob or RayCluster."),
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


def _print_version(asked: bool) -> None:
    """Print the version and exit, if asked."""
    if asked:
        from importlib.metadata import version

        echo(f"{PROGRAM} {version(PROGRAM)}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Options of the program itself."""


@app.command()
def version(as_json: Json = False) -> None:
    """Show package versions and the available devices."""
    import torch

    from search.run.provenance import versions

    gpus = [torch.cuda.get_device_name(gpu) for gpu in range(torch.cuda.device_count())]
    if as_json:
        found = {
            "python": sys.version.split()[0],
            **versions(),
            "gpus": gpus,
            "threads": torch.get_num_threads(),
        }
        echo(json.dumps(found))
        return
    echo(f"python {sys.version.split()[0]}")
    for package, installed in versions().items():
        echo(f"{package} {installed}")
    for index, gpu in enumerate(gpus):
        echo(f"cuda:{index} {gpu}")
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
        code = _parser_message(error)
    except OSError as error:
        if error.errno not in _USER_ERRNOS:
            raise
        code = complain(f"cannot use {error.filename or 'a file'}: {error.strerror}", USER_MISTAKE)
    sys.exit(code if isinstance(code, int) else 0)


def _parser_message(error: TyperException) -> int:
    """Print a message of Typer's parser: help for a command without arguments, or a user's mistake."""
    message = error.format_message()
    if message.startswith("Usage:"):
        echo(message)
        return 0
    text = _broken_rule(message, error.__cause__) or _without_far_options(message)
    if "must " not in text and "?" not in text:
        program = getattr(getattr(error, "ctx", None), "command_path", PROGRAM)
        text = f"{text.rstrip('.')}; see {program} --help"
    return complain(text, USER_MISTAKE)


def _broken_rule(message: str, cause: BaseException | None) -> str | None:
    """The rule and the value for an option that pydantic rejects; None for other mistakes."""
    option = re.match(r"Invalid value for '?([^':]+)'?:", message)
    if not (option and cause):
        return None
    from pydantic import ValidationError

    from search.config.mistakes import rule

    if not isinstance(cause, ValidationError):
        return None
    mistake = cause.errors()[0]
    return f"{option[1]} {rule(mistake)}, but got {mistake['input']}"


def _without_far_options(message: str) -> str:
    """A message about an unknown option that suggests near ones only."""
    pattern = r"(No such option: (\S+))(?: \((?:Possible options: |Did you mean )([^)?]+)\??\))?"
    match = re.fullmatch(pattern, message)
    if not match:
        return message
    unknown, given, suggested = match.groups()
    near = difflib.get_close_matches(given, re.split(r",\s*", suggested or ""), cutoff=_NEAR)
    return f"{unknown}; did you mean {' or '.join(near)}?" if near else unknown
