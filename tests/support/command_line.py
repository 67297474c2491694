"""Runs genre-search commands: in this process, which is fast, or in a process of their own."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from search.cli.main import main

PROGRAM = Path(sys.executable).parent / "genre-search"
"""The installed command."""

Done = subprocess.CompletedProcess[str]


def in_process(
    *arguments: object,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    input: str | None = None,
    charset: str = "utf-8",
) -> Done:
    """Run a command in this process; an exception that the command does not handle is raised here.

    Args:
        arguments: of the command, without its name.
        env: environment variables in addition to those of this process.
        cwd: the working directory.
        input: text on standard input.
        charset: the encoding of the three standard streams.
    """
    command = [str(argument) for argument in arguments]
    directory = contextlib.nullcontext() if cwd is None else contextlib.chdir(cwd)
    with directory, CliRunner(charset).isolation(input=input, env=env or {}) as (stdout, stderr, _):
        try:
            main(command)
        except SystemExit as end:
            code = end.code
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
        assert isinstance(code, int)
        return Done(command, code, stdout.getvalue().decode(charset), stderr.getvalue().decode(charset))


def in_own_process(*arguments: object, env: dict[str, str] | None = None, **options: Any) -> Done:
    """Run the installed command in a process of its own; see `in_process` and subprocess.run for the options."""
    return subprocess.run(
        [str(PROGRAM), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | (env or {}),
        timeout=300,
        check=False,
        **options,
    )
