"""Commands that are printed can be given as they are, whatever a run is called."""

import re
import shlex
from pathlib import Path

import pytest
from commands import parsed

from search.run.commands import command

ROOT = Path(__file__).parents[2]
NAMES = ["music", "my runs/first try", "two  spaces", "it's", "$HOME", "a;b&c", "-x", 'q"uote', "Música", "*"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("verb", ["resume", "best", "finish", "report", "export"])
def test_a_shell_and_the_parser_take_a_printed_command_as_it_is_meant(verb: str, name: str) -> None:
    printed = command(verb, Path(name))
    assert Path(parsed(printed)["run"]) == Path(name)
    assert shlex.split(printed)[:2] == ["genre-search", verb]


@pytest.mark.parametrize("file", sorted((ROOT / "search").glob("*.*")), ids=lambda file: file.name)
def test_no_command_is_put_together_otherwise(file: Path) -> None:
    put_together = re.compile(r"genre-search (?:\w+ )+(?:-\S+ )*\{")
    assert not put_together.findall(file.read_text(encoding="utf-8"))
