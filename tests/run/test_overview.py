"""Runs are found by name, pattern or age, and listed with what they have reached."""

import os
from pathlib import Path

import pytest
from made_runs import final_row, make_run
from refusals import refused

from search.errors import SearchErrorCode
from search.run.folder import runs_in
from search.run.lock import driving
from search.run.overview import find_run, find_runs, overview
from search.run.tables import write_finish


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder runs/ in the working directory, with an older and a newer run."""
    monkeypatch.chdir(tmp_path)
    for age, name in enumerate(("newer", "older")):
        make_run(Path("runs") / name)
        os.utime(Path("runs") / name / "config.yaml", (1e9 - age, 1e9 - age))
    return Path("runs")


def test_a_run_is_found_by_its_name(runs: Path) -> None:
    assert find_run(Path("older")) == runs / "older"
    assert find_run(runs / "older") == runs / "older"
    assert find_run(Path("missing")) == Path("missing")


def test_runs_are_found_by_patterns_and_the_newest_without_any(runs: Path) -> None:
    assert find_runs([]) == [runs / "newer"]
    assert find_runs([Path("runs/*er")]) == [runs / "newer", runs / "older"]
    assert find_runs([Path("older"), runs.absolute() / "new*"]) == [runs / "older", runs.absolute() / "newer"]
    twice = [Path("older"), runs.absolute() / "older", Path("runs/*er")]
    assert find_runs(twice) == [runs / "older", runs / "newer"], "each run once"
    with refused(SearchErrorCode.RUN_NOT_FOUND, "runs/x*"):
        find_runs([Path("runs/x*")])


def test_without_a_run_there_is_no_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with refused(SearchErrorCode.RUN_NOT_FOUND, "runs/"):
        find_runs([])


def test_runs_are_listed_the_newest_last(runs: Path) -> None:
    assert runs_in(runs) == [runs / "older", runs / "newer"]
    assert runs_in(runs / "missing") == []


def test_a_run_at_a_glance(tmp_path: Path) -> None:
    ended, unfinished, empty, finished = (
        tmp_path / name for name in ("ended", "unfinished", "empty", "finished")
    )
    make_run(ended)
    make_run(unfinished, running=True)
    make_run(empty, (), settings={"trials": 1})
    write_finish(make_run(finished), [final_row(2, 0)])
    found = [overview(run) for run in (ended, unfinished, empty, finished)]
    assert [run.state for run in found] == ["ended", "interrupted", "ended", "finished"]
    assert found[0].best_f1 == pytest.approx(0.8)
    assert found[2].best_f1 is None
    assert [run.trials for run in found] == [3, 3, 0, 3]
    assert found[0].size_bytes == sum(path.stat().st_size for path in ended.rglob("*") if path.is_file())
    with driving(unfinished):
        assert overview(unfinished).state == "running"
