"""constraints.txt pins every package of the development environment at the version that is installed."""

import tomllib
from importlib.metadata import requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines()]


def _direct(extra: str) -> list[Requirement]:
    """The requirements of one of our extras, with those of the extras that it includes."""
    found = [Requirement(text) for text in PROJECT["optional-dependencies"][extra]]
    included = [
        name for requirement in found if requirement.name == PROJECT["name"] for name in requirement.extras
    ]
    return [r for r in found if r.name != PROJECT["name"]] + [r for name in included for r in _direct(name)]


def _installed() -> dict[NormalizedName, Version]:
    """Name -> installed version of everything that the project with its extra `dev` needs here."""
    waiting = [Requirement(text) for text in PROJECT["dependencies"]] + _direct("dev")
    seen: set[tuple[str, str]] = set()
    for requirement in waiting:
        for extra in {"", *requirement.extras} - {e for name, e in seen if name == requirement.name}:
            seen.add((requirement.name, extra))
            needed = map(Requirement, requires(requirement.name) or [])
            waiting += [r for r in needed if r.marker is None or r.marker.evaluate({"extra": extra})]
    return {canonicalize_name(name): Version(version(name)) for name, _ in seen}


def test_every_package_of_the_development_environment_is_pinned_at_its_installed_version() -> None:
    pinned = {canonicalize_name(pin.name): pin.specifier for pin in PINS}
    installed = _installed()
    assert {"torch", "mypy", "mkdocs", "ipython", "jinja2"} <= set(installed)
    assert not set(installed) - set(pinned)
    assert not {name: at for name, at in installed.items() if at not in pinned[name]}


def test_a_pin_is_one_version_without_an_address_and_the_lines_are_sorted() -> None:
    lines = [str(pin) for pin in PINS]
    assert all(pin.url is None and [s.operator for s in pin.specifier] == ["=="] for pin in PINS)
    assert lines == sorted(lines, key=str.lower)
    assert len({canonicalize_name(pin.name) for pin in PINS}) == len(PINS)
