"""Resuming a search that has ended: nothing changes, or what its driver left undone is completed."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import TRIALS
from invariants import check
from made_runs import resume


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
