"""`list` and `cache` as a user runs them, and runs that are found by name."""

import json
from pathlib import Path

import pytest
from conftest import Command
from made_runs import make_run

from search.cli.output import USER_MISTAKE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with two runs in runs/."""
    for name in ("first", "second"):
        make_run(tmp_path / "runs" / name)
    return tmp_path


def test_runs_are_listed_as_a_table_and_as_json(folder: Path, genre_search: Command) -> None:
    lines = genre_search("list", cwd=folder).stdout.splitlines()
    assert lines[0].split() == ["run", "state", "best", "F1", "trials", "age", "size"]
    assert [line.split()[:4] for line in lines[1:]] == [
        ["runs/first", "ended", "0.800", "3"],
        ["runs/second", "ended", "0.800", "3"],
    ]
    assert max(map(len, lines)) <= 80
    found = [json.loads(line) for line in genre_search("list", "--json", cwd=folder).stdout.splitlines()]
    assert [(run["path"], run["best_f1"]) for run in found] == [("runs/first", 0.8), ("runs/second", 0.8)]


def test_a_folder_without_runs_names_the_command_that_starts_one(
    tmp_path: Path, genre_search: Command
) -> None:
    done = genre_search("list", cwd=tmp_path)
    assert (done.returncode, "genre-search run" in done.stdout) == (0, True)


def test_a_run_is_given_by_name_by_pattern_or_not_at_all(folder: Path, genre_search: Command) -> None:
    newest, named, path = (
        genre_search("results", *given, "--json", cwd=folder).stdout
        for given in ([], ["second"], ["runs/second"])
    )
    assert newest == named == path
    assert json.loads(named.splitlines()[0])["val_f1"] == 0.8
    both = genre_search("results", "runs/*", "--csv", cwd=folder).stdout
    assert len(both.splitlines()) == 1 + 2 * 3
    assert genre_search("best", "first", "--json", cwd=folder).stdout.count("\n") == 1


def test_the_folder_of_the_runs_is_listed_by_results(folder: Path, genre_search: Command) -> None:
    assert genre_search("results", "runs", cwd=folder).stdout == genre_search("list", cwd=folder).stdout


def test_another_folder_of_runs_is_refused_with_the_runs_in_it(folder: Path, genre_search: Command) -> None:
    done = genre_search("best", "runs", cwd=folder)
    assert done.returncode == 2
    assert "first, second" in done.stderr


def test_the_cache_is_shown_and_cleaned(tmp_path: Path, genre_search: Command) -> None:
    (tmp_path / "audit-4.parquet").write_bytes(b"x" * 2500)
    shown = genre_search("cache", "--cache", tmp_path).stdout
    assert "2.5 kB" in shown
    assert "--clean" in shown
    genre_search("cache", "--clean", "--cache", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_versions_are_shown(genre_search: Command) -> None:
    assert genre_search("--version").stdout.startswith("genre-search ")
    assert {"python", "torch", "ray", "gpus"} <= json.loads(genre_search("version", "--json").stdout).keys()


@pytest.mark.parametrize(
    ("option", "suggested"), [("--trails", "--trials"), ("--worker", "--workers"), ("--zzz", None)]
)
def test_an_unknown_option_suggests_near_ones_only(
    option: str, suggested: str | None, genre_search: Command
) -> None:
    done = genre_search("run", option, "5")
    assert done.returncode == 2
    assert option in done.stderr
    assert (suggested or "--help") in done.stderr
    assert done.stderr.count(" --") + done.stderr.count("error") <= 3


def test_settings_are_shown_and_written(tmp_path: Path, genre_search: Command) -> None:
    shown = genre_search("config", "show", "--set", "training.epochs=3").stdout
    assert "epochs: 3" in shown
    assert json.loads(genre_search("config", "schema").stdout)["properties"]["trials"]["default"] == 50
    done = genre_search("init", tmp_path, "--output", tmp_path / "config.yaml")
    assert done.returncode == 2  # no music
    (tmp_path / "taken.yaml").write_text("trials: 1")
    done = genre_search("init", tmp_path, "--output", tmp_path / "taken.yaml")
    assert (done.returncode, "taken.yaml" in done.stderr) == (2, True)


@pytest.mark.parametrize("command", [("make",), ("get", "gtzan")])
def test_a_corpus_is_not_written_to_an_address(
    genre_search: Command, command: tuple[str, ...], tmp_path: Path
) -> None:
    done = genre_search("data", *command, "s3://bucket/my music", cwd=tmp_path)
    assert done.returncode == USER_MISTAKE
    assert "on this machine, but got s3://bucket/my music" in done.stderr
    assert not list(tmp_path.iterdir())
