"""--help teaches by examples that are right, and the shell completes what can be known."""

import os
import re
import subprocess
import sys
from pathlib import Path

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
    """Of a pipeline the last part."""
    return re.findall(r"^ +(?:.* \| )?(genre-search .*)$", text, re.MULTILINE)


@pytest.mark.parametrize("name", HELP)
def test_every_command_shows_examples_that_can_be_given(name: str) -> None:
    examples = _examples(HELP[name])
    assert examples or name in NEEDS_NO_EXAMPLE
    for example in examples:
        assert example.startswith(name)
        parsed(example)


@pytest.mark.parametrize("group", ["", "data", "cluster"])
def test_on_80_columns_the_list_of_commands_cuts_nothing_off(group: str, genre_search: Command) -> None:
    shown = genre_search(*group.split(), "--help").stdout
    assert "Commands:" in shown
    assert "..." not in shown.split("Commands:")[1]


# what stands on the line -> what is offered
COMPLETED = [
    ("re", ["resume", "results", "report"]),
    ("finish --se", ["--seeds"]),
    ("data get fma_s", ["fma_small"]),
    ("data get gtzan gtzan --split s", ["stratified"]),
    ("results runs/music --state p", ["pruned"]),
    ("results runs/music --backbone dense", ["densenet121"]),
]


@pytest.mark.parametrize(("line", "offered"), COMPLETED)
def test_the_shell_completes(line: str, offered: list[str]) -> None:
    words = f"genre-search {line}"
    environment = os.environ | {
        "_GENRE_SEARCH_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    program = Path(sys.executable).parent / "genre-search"
    done = subprocess.run([program], capture_output=True, text=True, env=environment, check=True, timeout=150)
    assert sorted(done.stdout.split()) == sorted(offered)
