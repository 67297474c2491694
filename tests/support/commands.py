"""Commands as documents and help texts show them."""

import re
import shlex
from collections.abc import Iterator
from typing import Any

import typer.main
from typer.core import TyperCommand

from search.cli.main import app


def shown(text: str) -> list[str]:
    """The commands of a Markdown text's console blocks."""
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    return [line[2:].removeprefix(".venv/bin/") for block in blocks for line in block.splitlines()]


def parsed(command: str) -> dict[str, Any]:
    """The parameters of a genre-search command; raises where it has none of these."""
    group: Any = typer.main.get_command(app)
    arguments = shlex.split(command)[1:]
    while hasattr(group, "commands"):
        group = group.commands[arguments.pop(0)]
    parameters: dict[str, Any] = group.make_context("genre-search", arguments).params
    return parameters


def every() -> Iterator[tuple[str, TyperCommand]]:
    """All commands with what they are called by, groups of commands left out."""
    waiting: list[tuple[str, Any]] = [("genre-search", typer.main.get_command(app))]
    for name, command in waiting:
        if hasattr(command, "commands"):
            waiting += [(f"{name} {below}", command.commands[below]) for below in command.commands]
        else:
            yield name, command
