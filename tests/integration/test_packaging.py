"""The source distribution and the wheel are complete: a search runs from the installed wheel alone."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import sets
from tiny import MUSIC

ROOT = Path(__file__).parents[2]
PACKAGES = ("genre_core", "search")
BUILD_INPUTS = (*PACKAGES, "pyproject.toml", "README.md", "LICENSE")
BUILD_SDIST = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"


def _package_files() -> set[str]:
    """Every module and data file of the packages, as paths in the repository."""
    files = (path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file())
    return {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, built in a copy of the sources so that the checkout stays clean."""
    source, dist = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("sdist")
    for name in BUILD_INPUTS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    subprocess.run([sys.executable, "-c", BUILD_SDIST, dist], cwd=source, check=True, capture_output=True)
    [archive] = dist.iterdir()
    return archive


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution alone."""
    dist = tmp_path_factory.mktemp("wheel")
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", dist, sdist)
    [archive] = dist.iterdir()
    return archive


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a virtual environment with the wheel; only its dependencies come from this environment."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder)
    programs = folder / "bin"
    _pip("--python", programs / "python", "install", "--no-deps", "--no-index", wheel)
    inner = sysconfig.get_path("purelib", vars={"base": str(folder)})
    # Python ignores the .pth files of a folder added this way, the one of an editable install among them.
    Path(inner, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return programs


def _pip(*arguments: object) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
    assert done.returncode == 0, done.stderr


def _environment() -> dict[str, str]:
    """This process's environment without the checkout on Python's path."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def test_the_source_distribution_holds_every_file_of_the_packages(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert _package_files() <= names
    assert {"pyproject.toml", "README.md", "LICENSE"} <= names


def test_the_wheel_holds_every_file_of_the_packages_and_no_other_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == _package_files()
    assert {"genre_core/py.typed", "search/py.typed", "genre_core/datasets/mirrors.yaml"} <= names
    assert {f"search/report/report.{suffix}" for suffix in ("css", "js", "html.j2")} <= names


@pytest.mark.long
def test_a_search_and_its_report_run_from_the_wheel_in_an_empty_folder(
    installed: Path, tmp_path: Path
) -> None:
    environment = _environment() | {"GENRE_SEARCH_CACHE": str(tmp_path / "cache")}
    empty = tmp_path / "empty"
    empty.mkdir()

    def call(program: str, *arguments: object) -> str:
        done = subprocess.run(
            [installed / program, *map(str, arguments)],
            cwd=empty,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    script = "import genre_core, search; print(genre_core.__file__); print(search.__file__)"
    for module in call("python", "-c", script).splitlines():
        assert Path(module).is_relative_to(installed.parent), "the wheel is imported, not the checkout"
    call("genre-search", "run", "--name", "small", *sets(trials=1, **_builtin_corpus()))
    call("genre-search", "report", "runs/small")
    page = (empty / "runs" / "small" / "report.html").read_text(encoding="utf-8")
    assert re.search(r"<style>.+</style>", page, re.DOTALL)
    assert "resnet18" in page


def _builtin_corpus() -> dict[str, object]:
    """Settings of a small built-in corpus; `data` stays at its default."""
    fields = ("tracks_per_genre", "seconds", "difficulty")
    return {f"synthetic__{name}": getattr(MUSIC, name) for name in fields}
