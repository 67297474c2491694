"""The Dockerfile, as far as it can be checked without Docker: sources exist, pins are used, the user is not root."""

import fnmatch
import re
import shlex
from pathlib import Path

import pytest
from commands import parsed

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text()
LINES = re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", TEXT)).splitlines()
INSTRUCTIONS = [(line.split()[0], line.split(maxsplit=1)[1]) for line in LINES if line]
KNOWN = {"FROM", "ARG", "ENV", "RUN", "WORKDIR", "COPY", "USER", "ENTRYPOINT", "CMD"}
COPIED = [
    source
    for name, rest in INSTRUCTIONS
    if name == "COPY" and not rest.startswith("--from=")
    for source in rest.split()[:-1]
]


def _stages() -> list[list[tuple[str, str]]]:
    starts = [i for i, (name, _) in enumerate(INSTRUCTIONS) if name == "FROM"]
    return [INSTRUCTIONS[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]


def _ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path of the root out of the build: the last pattern that matches decides."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#") and fnmatch.fnmatch(path, line.removeprefix("!")):
            ignored = not line.startswith("!")
    return ignored


def test_it_consists_of_known_instructions_in_stages_of_one_base_image_with_a_version() -> None:
    assert {name for name, _ in INSTRUCTIONS} <= KNOWN
    bases = {stage[0][1].partition(" AS ")[0] for stage in _stages()}
    assert bases == {"python:3.12-slim"}
    named = {stage[0][1].partition(" AS ")[2] for stage in _stages()}
    assert set(re.findall(r"--from=(\S+)", TEXT)) <= named


@pytest.mark.parametrize("source", COPIED)
def test_a_copied_path_exists_and_is_not_ignored(source: str) -> None:
    assert (ROOT / source).exists()
    assert not _ignored(source)


@pytest.mark.parametrize("path", [".git", ".venv", "runs", "tests", "docs", ".env"])
def test_the_build_does_not_see_what_the_image_does_not_need(path: str) -> None:
    assert _ignored(path)


def test_every_installation_uses_the_pins() -> None:
    commands = [command for name, rest in INSTRUCTIONS if name == "RUN" for command in rest.split("&&")]
    installs = [command for command in commands if "pip install" in command]
    assert len(installs) == 2
    assert all("--constraint constraints.txt" in install for install in installs)


def test_the_image_runs_the_command_as_a_user_who_is_not_root() -> None:
    last = _stages()[-1]
    names = [name for name, _ in last]
    assert dict(last)["USER"] == "$UID"
    assert re.fullmatch(r"UID=[1-9]\d+", dict(last)["ARG"])
    assert any(name == "RUN" and re.match(r'useradd .*--uid "\$UID"', rest) for name, rest in last)
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert dict(last)["ENTRYPOINT"] == '["genre-search"]'


def test_every_argument_that_is_used_is_declared_in_its_stage() -> None:
    for stage in _stages():
        declared = {rest.partition("=")[0] for name, rest in stage if name == "ARG"}
        used = {v for _, rest in stage for v in re.findall(r"\$\{?(\w+)", rest)} - {"PATH"}
        assert used == declared


def test_the_commands_in_its_head_parse() -> None:
    head = re.sub(r"\\\n# +", "", TEXT.partition("\nFROM")[0])
    runs = [shlex.split(line.lstrip("# ")) for line in head.splitlines() if "docker run" in line]
    searches = [words[len(words) - 1 - words[::-1].index("genre-search") :] for words in runs]
    assert [words[1] for words in searches] == ["run", "report"]
    assert parsed(shlex.join(searches[0]))["name"] == "music"
    assert parsed(shlex.join(searches[1]))
