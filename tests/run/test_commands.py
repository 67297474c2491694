"""Printed commands can be pasted into a shell, whatever a run is called."""

import re
import shlex
from pathlib import Path

import pytest
from commands import parsed

from search.run.commands import command

SEARCH = Path(__file__).parents[2] / "search"
NAMES = ["music", "my runs/first try", "two  spaces", "it's", "$HOME", "a;b&c", "-x", 'q"uote', "Música", "*"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("verb", ["resume", "best", "finish", "report", "export"])
def test_a_shell_and_the_parser_read_a_printed_command_as_intended(verb: str, name: str) -> None:
    printed = command(verb, Path(name))
    assert Path(parsed(printed)["run"]) == Path(name)
    assert shlex.split(printed)[:2] == ["genre-search", verb]


def test_every_command_with_a_value_is_built_by_command() -> None:
    formatted = re.compile(r"genre-search (?:\w+ )+(?:-\S+ )*\{")
    sources = [*SEARCH.rglob("*.py"), *SEARCH.rglob("*.j2")]
    assert len(sources) > 50
    assert not [path for path in sources if formatted.search(path.read_text(encoding="utf-8"))]
