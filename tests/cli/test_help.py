"""--help shows examples that can be run, and the shell completes commands, options and values."""

import re

import pytest
import typer.main
from commands import every, parsed
from conftest import Command

from search.cli.main import app

NEEDS_NO_EXAMPLE = {"genre-search version"}
HELP = {name: command.help or "" for name, command in every()} | {
    "genre-search": typer.main.get_command(app).help or ""
}


def _examples(text: str) -> list[str]:
    """The genre-search commands of a help text, of a pipeline the last."""
    return re.findall(r"^ +(?:.* \| )?(genre-search .*)$", text, re.MULTILINE)


@pytest.mark.parametrize("name", HELP)
def test_every_command_shows_examples_that_parse(name: str) -> None:
    examples = _examples(HELP[name])
    assert examples or name in NEEDS_NO_EXAMPLE
    for example in examples:
        assert example.startswith(name)
        parsed(example)


@pytest.mark.parametrize("group", ["", "data", "config", "cluster"])
def test_the_list_of_commands_fits_80_columns(group: str, genre_search_process: Command) -> None:
    shown = genre_search_process(*group.split(), "--help").stdout  # in process, Typer sets the width itself
    assert "Commands:" in shown
    assert "..." not in shown.split("Commands:")[1]


# typed so far -> completions
COMPLETED = [
    ("re", ["resume", "results", "report"]),
    ("finish --se", ["--seeds"]),
    ("data get fma_s", ["fma_small"]),
    ("data get gtzan gtzan --split s", ["stratified"]),
    ("results runs/music --state p", ["pruned"]),
    ("results runs/music --backbone dense", ["densenet121"]),
]


@pytest.mark.parametrize(("line", "offered"), COMPLETED)
def test_the_shell_completes(line: str, offered: list[str], genre_search: Command) -> None:
    words = f"genre-search {line}"
    request = {
        "_GENRE_SEARCH_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    done = genre_search(env=request)
    assert done.returncode == 0
    assert sorted(done.stdout.split()) == sorted(offered)
