"""A search is killed, its workers die, its nodes go: nothing is lost, doubled, or left over. The short form."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faults import DRIVER, NODE, WORKER, Rhythm, machines
from invariants import check
from scenarios import endure
from searches import Search

MakeSearch = Callable[..., Search]

LONG = {"space.frozen_blocks": 3, "training.epochs": 6}
"""On a fast machine too, many epochs are to come when the first one is written: there is time to strike."""
AT_ONCE = (0.0, 0.05)
"""Seconds from the first epoch to a strike, and from one strike to the next."""
SOON = 37
"""A seed by which the driver is killed 0.2 s after its first epoch."""


@pytest.fixture
def search(music: Path, cache: Path, tmp_path: Path) -> MakeSearch:
    """Makes a tiny search in a folder of its own."""

    def make(**changes: Any) -> Search:
        usual: dict[str, Any] = {"folder": tmp_path, "music": music, "cache": cache, "trials": 8}
        return Search(**(usual | {"settings": LONG} | changes))

    return make


def test_a_killed_search_goes_on_under_another_name_and_its_workers_may_die(search: MakeSearch) -> None:
    tiny = search()
    dying = Rhythm(every=AT_ONCE, at_most=2)
    outcome = endure("driver and workers", tiny, seed=SOON, driver_kills=1, renamed=True, workers_die=dying)
    found = check(tiny.run, trials=tiny.trials, keep_models=tiny.keep_models)
    assert outcome.times(DRIVER) >= 1
    assert outcome.times(WORKER) >= 1
    assert found.failed == 0
    assert found.epochs_repeated <= outcome.most_repeated


def test_a_search_outlives_its_nodes(search: MakeSearch) -> None:
    with machines(nodes=2) as cluster:
        tiny = search(address=cluster.address)
        going = Rhythm(every=AT_ONCE, at_most=1)
        outcome = endure("nodes", tiny, seed=2, nodes_go=going, machines=cluster)
    found = check(tiny.run, trials=tiny.trials, keep_models=tiny.keep_models)
    assert outcome.times(NODE) >= 1
    assert found.failed == 0
    assert found.epochs_repeated <= outcome.most_repeated


@pytest.fixture(scope="module")
def over(music: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Search:
    """A search that nothing happened to."""
    folder, settings = tmp_path_factory.mktemp("over"), {"training.epochs": 1}
    tiny = Search(folder=folder, music=music, cache=cache, trials=3, settings=settings)
    assert endure("undisturbed", tiny, seed=0).found.clean
    return tiny


def _resumed(over: Search, folder: Path, change: Callable[[Path], object]) -> tuple[Search, str]:
    """A copy of a search that is over, changed and gone on with, and what the command said."""
    shutil.copytree(over.folder, folder, dirs_exist_ok=True)
    again = replace(over, folder=folder, drivers=[])
    change(again.run)
    driver = again.start()
    code = driver.wait(150)
    again.end()
    assert code == 0, driver.last_words()
    return again, driver.last_words(99)


def test_a_search_that_is_over_stays_as_it_is(over: Search, tmp_path: Path) -> None:
    again, said = _resumed(over, tmp_path, lambda run: None)
    assert "is at its end; to go on, give --trials more than 3" in said
    assert "two runs" in said, "it is a copy"
    assert _contents(again.run) == _contents(over.run)


def test_a_search_that_was_killed_after_its_last_trial_is_put_in_order(over: Search, tmp_path: Path) -> None:
    def unfinished(run: Path) -> None:
        file = run / "results" / "trials.parquet"
        table = pq.ParquetFile(file).read()
        *rows, last = table.to_pylist()
        last.update(state="RUNNING", finished=None)
        pq.write_table(pa.Table.from_pylist([*rows, last], schema=table.schema), file)
        (run / "checkpoints").mkdir()
        (run / "checkpoints" / "trial-00002-epoch-001.safetensors").touch()

    again, _ = _resumed(over, tmp_path, unfinished)
    check(again.run, trials=again.trials, keep_models=again.keep_models)


def _contents(run: Path) -> dict[Path, bytes]:
    """Of all files but the journal, in which Optuna notes that it was opened, and what says which run it is."""
    others = ("study.journal", "config.yaml", ".driver")
    files = (path for path in run.rglob("*") if path.is_file() and path.name not in others)
    return {path.relative_to(run): path.read_bytes() for path in files}
