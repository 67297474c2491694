"""Resuming a search that has ended: nothing changes, or what its driver left undone is completed."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import TRIALS
from invariants import check
from made_runs import resume
from refusals import refused
from reporters import unseen_display
from without_ray import by_torch, searches_in_process

from genre_core.errors import ErrorCode
from search.config.schema import load
from search.run.tables import read_trials
from search.tune import search


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A copy of the finished search that tests share, with the same name."""
    return Path(shutil.copytree(run, tmp_path / run.name))


def _contents(folder: Path) -> dict[Path, bytes]:
    """All files but the journal, where Optuna notes that it was opened, and those that identify the run."""
    others = ("study.journal", "config.yaml", ".driver")
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in others)
    return {path.relative_to(folder): path.read_bytes() for path in files}


def test_resuming_a_finished_search_changes_nothing(copy: Path, run: Path) -> None:
    said = resume(copy)
    assert [line for line in said if str(copy) in line and "--trials" in line and f"above {TRIALS}" in line]
    assert [line for line in said if str(copy) in line and str(run) in line], "the copy is a run of its own"
    assert _contents(copy) == _contents(run)


def test_a_finished_search_is_resumed_only_with_its_own_music(
    copy: Path, music: Path, tmp_path: Path
) -> None:
    config, display = load(copy / "config.yaml", {"trials": 2}), unseen_display()
    with refused(ErrorCode.CORPUS_NOT_FOUND, "nowhere"):
        search.resume(config, folder=copy, cache=tmp_path, reporter=display, data=tmp_path / "nowhere")
    moved = shutil.copytree(music, tmp_path / "moved")
    assert search.resume(config, folder=copy, cache=tmp_path / "cache", reporter=display, data=moved)
    assert load(copy / "config.yaml", {}).data == str(moved)
    assert len(read_trials(copy)) == TRIALS


def test_a_search_killed_after_its_last_trial_is_completed(copy: Path) -> None:
    file = copy / "results" / "trials.parquet"
    table = pq.read_table(file)
    *rows, last = table.to_pylist()
    last.update(state="RUNNING", finished=None)
    pq.write_table(pa.Table.from_pylist([*rows, last], schema=table.schema), file)
    (copy / "checkpoints").mkdir(exist_ok=True)
    (copy / "checkpoints" / "trial-00002-epoch-001.safetensors").touch()
    resume(copy)
    check(copy, trials=TRIALS, keep_models=2)


def test_a_finished_search_is_extended_after_its_music_has_moved(
    copy: Path, run: Path, music: Path, tmp_path: Path
) -> None:
    moved, before = shutil.copytree(music, tmp_path / "moved"), read_trials(run)
    config = load(copy / "config.yaml", {"trials": TRIALS + 1})
    display = unseen_display()
    with searches_in_process(by_torch):
        assert search.resume(
            config, folder=copy, cache=tmp_path / "new cache", reporter=display, data=Path(moved)
        )
    after = read_trials(copy)
    assert len(after) == TRIALS + 1
    assert after.head(TRIALS).equals(before)
    assert after["state"].isin(["COMPLETE", "PRUNED"]).all()
    assert after["learning_rate"].nunique() == TRIALS + 1
    assert load(copy / "config.yaml", {}).data == str(moved)
    check(copy, trials=TRIALS + 1, keep_models=2)
