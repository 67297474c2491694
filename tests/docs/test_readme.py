"""The README and docs are correct: commands parse, settings load, files exist, and the first commands work."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from commands import parsed, shown
from conftest import sets
from ray.dashboard.modules.job.cli import job_cli_group as job_commands
from ray.scripts.scripts import cli as ray_commands

from search.config.schema import load

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
LINES = 150
"""The most lines of the README."""
PAGES = {path.name: path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
PYTHON = "\n".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL))
COMMANDS = [command for text in PAGES.values() for command in shown(text)]


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("genre-search")])
def test_a_command_in_the_docs_parses(command: str) -> None:
    parameters = parsed(command)
    overrides = dict(text.split("=", 1) for text in parameters.get("set_") or [])
    config = parameters.get("config")
    written_by_init = config is not None and str(config) == "search.yaml"
    load(
        ROOT / config if config and not written_by_init else None,
        {k: yaml.safe_load(v) for k, v in overrides.items()},
    )


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make")])
def test_a_make_target_exists(command: str) -> None:
    assert re.search(rf"^{command.split()[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_commands_from_a_folder_of_music_to_a_report_work(
    music: Path, cache: Path, tmp_path: Path
) -> None:
    """Except `make install`, which created the environment of this test."""
    [block] = re.findall(r"```console\n\$ make install\n(.*?)```", README, re.DOTALL)
    search, report = re.findall(r"^\$ (.*)$", block, re.MULTILINE)
    (tmp_path / "clone").mkdir()
    (tmp_path / "clone" / ".venv").symlink_to(sys.prefix)
    (tmp_path / "music").symlink_to(music)
    environment = os.environ | {"HOME": str(tmp_path), "GENRE_SEARCH_CACHE": str(cache)}
    for command in (f"{search} {shlex.join(sets(trials=1))}", report):
        subprocess.run(command, shell=True, cwd=tmp_path / "clone", env=environment, check=True, timeout=200)
    assert (tmp_path / "clone/runs/music/report.html").stat().st_size > 0


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("ray ")])
def test_a_ray_command_in_the_docs_parses(command: str) -> None:
    name, *arguments = shlex.split(command)[1:]
    ray_commands.commands[name].make_context(name, arguments)
    for inner in (argument for argument in arguments if argument.startswith("ray job submit")):
        submitted, _, search = inner.partition(" -- ")
        job_commands.commands["submit"].make_context("submit", [*shlex.split(submitted)[3:], "--", "it"])
        assert parsed(search)["address"] == "auto"


def test_every_command_is_covered_by_these_tests() -> None:
    assert COMMANDS
    known = ("genre-search ", "make ", "ray ")
    assert all(command.startswith(known) for command in shown(README))


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_exist(page: str) -> None:
    text = re.sub(r"```.*?```", "", PAGES[page], flags=re.DOTALL)
    folder = ROOT if page == "README.md" else ROOT / "docs"
    links = {target for target in re.findall(r"\]\(([^)#]+)", text) if "://" not in target}
    names = set(re.findall(r"`((?:benchmarks|configs|docs|genre_core|kubernetes)/[\w./-]+)`", text))
    assert not [target for target in links if not (folder / target).exists()]
    assert not [name for name in names if not (ROOT / name).exists()]


def test_every_page_can_be_reached_from_the_readme() -> None:
    linked = set(re.findall(r"\]\(docs/([\w-]+\.md)\)", README))
    assert linked == set(PAGES) - {"README.md", "index.md"}
    assert len(README.splitlines()) <= LINES


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page != "backbones.md"]
)  # whose test needs its modules
def test_settings_load(page: str, tmp_path: Path) -> None:
    for block in re.findall(r"```yaml\n(.*?)```", PAGES[page], re.DOTALL):
        (tmp_path / "c.yaml").write_text(block)
        load(tmp_path / "c.yaml", {})


def test_python_code_compiles() -> None:
    compile(PYTHON, "README.md", "exec")


ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()


def test_names_in_the_architecture_exist_in_the_code() -> None:
    modules = [path for package in ("search", "genre_core") for path in (ROOT / package).rglob("*.py")]
    words = {word for path in modules for word in re.findall(r"\w+", path.read_text())}
    named = set(re.findall(r"`(\w+)(?:\([\w, ]*\))?`", ARCHITECTURE))
    assert len(named) > 30
    assert not named - words


def test_files_that_the_architecture_names_exist() -> None:
    named = set(re.findall(r"`((?:search|genre_core)/[\w./-]+)`", ARCHITECTURE))
    in_search = re.findall(r"`((?:engine|tune|cli|config|data|study|run)/\w+\.py)`", ARCHITECTURE)
    in_core = re.findall(r"`((?:models|training)/\w+\.py)`", ARCHITECTURE)
    named |= {f"search/{path}" for path in in_search} | {f"genre_core/{path}" for path in in_core}
    assert len(named) > 20
    assert not [path for path in named if not (ROOT / path).exists()]
