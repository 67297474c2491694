"""CHANGELOG.md keeps the structure of Keep a Changelog, and its newest version is that of the project."""

import re
import tomllib
from datetime import date
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CHANGELOG.md").read_text()
KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
VERSIONS = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d{2}-\d{2})$", TEXT, re.MULTILINE)


def test_the_unreleased_changes_come_first_then_the_versions_from_new_to_old() -> None:
    assert len(re.findall(r"^## ", TEXT, re.MULTILINE)) == 1 + len(VERSIONS)
    assert TEXT.index("## [Unreleased]") < TEXT.index(f"## [{VERSIONS[0][0]}]")
    dates = [date.fromisoformat(day) for _, day in VERSIONS]
    assert dates == sorted(dates, reverse=True)


def test_the_newest_version_is_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert VERSIONS[0][0] == project["version"]


def test_a_version_has_each_kind_of_change_once_in_their_order_and_each_line_belongs_to_one() -> None:
    for section in re.split(r"^## .*$", TEXT, flags=re.MULTILINE)[1:]:
        before, *kinds = re.split(r"^### ", section, flags=re.MULTILINE)
        names = [kind.splitlines()[0] for kind in kinds]
        assert names == sorted(names, key=KINDS.index)
        assert len(set(names)) == len(names)
        assert not before.strip()
        lines = [line for kind in kinds for line in kind.splitlines()[1:]]
        assert all(not line or line.startswith(("- ", "  ")) for line in lines)
