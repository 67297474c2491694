"""CONTRIBUTING.md and SECURITY.md are correct: commands, targets, files and settings that they name exist."""

import re
import sys
from pathlib import Path

import pytest
from commands import parsed, shown

ROOT = Path(__file__).parents[2]
PAGES = {name: (ROOT / name).read_text() for name in ("CONTRIBUTING.md", "SECURITY.md")}
CODE = [code for text in PAGES.values() for code in re.findall(r"`([^`\n]+)`", text)]
COMMANDS = [command for text in PAGES.values() for command in shown(text)]
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("command", [text for text in (*COMMANDS, *CODE) if text.startswith("make ")])
def test_a_target_of_make_exists(command: str) -> None:
    assert command.split()[1] in TARGETS


@pytest.mark.parametrize("command", [command for command in COMMANDS if not command.startswith("make ")])
def test_a_tool_is_installed_and_the_files_given_to_it_exist(command: str) -> None:
    tool, *arguments = command.split()
    assert (Path(sys.executable).parent / tool).exists()
    assert all((ROOT / argument).exists() for argument in arguments if "/" in argument)


@pytest.mark.parametrize("command", [code for code in CODE if re.match("genre-search [a-z]", code)])
def test_a_command_parses(command: str) -> None:
    parsed(command)


def test_a_file_or_folder_in_code_exists() -> None:
    paths = [code for code in CODE if re.fullmatch(r"[\w.-]+(/[\w.-]+)+/?|\w+\.(txt|toml|md)", code)]
    outside = {"model.safetensors", "model.json"}
    assert len(paths) > 5
    assert not [path for path in paths if path not in outside and not (ROOT / path).exists()]
