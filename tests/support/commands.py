"""Commands in documents and help texts: found and parsed."""

import re
import shlex
from collections.abc import Iterator
from typing import Any

import typer.main
from typer.core import TyperCommand

from search.cli.main import app


def shown(text: str) -> list[str]:
    """The commands in the console blocks of a Markdown text."""
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    return [line[2:].removeprefix(".venv/bin/") for block in blocks for line in block.splitlines()]


def parsed(command: str) -> dict[str, Any]:
    """The parameters of a genre-search command; raises for an unknown command or option."""
    group: Any = typer.main.get_command(app)
    arguments = shlex.split(command)[1:]
    while hasattr(group, "commands"):
        group = group.commands[arguments.pop(0)]
    parameters: dict[str, Any] = group.make_context("genre-search", arguments).params
    return parameters


def every() -> Iterator[tuple[str, TyperCommand]]:
    """All commands with their full names, without groups."""
    waiting: list[tuple[str, Any]] = [("genre-search", typer.main.get_command(app))]
    for name, command in waiting:
        if hasattr(command, "commands"):
            waiting += [(f"{name} {below}", command.commands[below]) for below in command.commands]
        else:
            yield name, command
