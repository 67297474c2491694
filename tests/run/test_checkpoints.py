"""The checkpoint store: the latest checkpoint of each running trial, within a budget."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from genre_core.system.atomic import PARTIAL
from search.run.checkpoints import CheckpointStore, Unsaved, clear_checkpoints

ARRAYS = {"progress": np.array([2.0, 0.5, 1.0]), "trained.head.bias": np.arange(5, dtype=np.float32)}


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("trial-*"))


def test_only_the_last_checkpoint_of_a_running_trial_is_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, 10_000)
    for epoch in (1, 2):
        assert store.put(7, epoch, ARRAYS, {"epoch": epoch}) is None
    assert _names(tmp_path) == ["trial-00007-epoch-002.safetensors"]
    (tmp_path / ".tmp123").touch()
    kept = CheckpointStore(tmp_path, 10_000).last(7)
    assert not (tmp_path / ".tmp123").exists()
    assert kept is not None
    assert kept[1] == {"epoch": 2}
    assert all(np.array_equal(kept[0][name], array) for name, array in ARRAYS.items())
    store.drop(7)
    assert store.put(7, 3, ARRAYS, {}) is None
    assert not _names(tmp_path), "checkpoints that arrive late are ignored"


def test_checkpoints_stay_within_the_budget_and_a_damaged_one_is_ignored(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, 200)
    assert store.put(1, 1, ARRAYS, {}) is None
    refused = store.put(2, 1, ARRAYS, {})
    assert refused is not None
    assert (refused.trial, refused.cause, refused.earlier) == (2, "budget", None)
    assert store.put(1, 2, ARRAYS, {}) is None, "it replaces the trial's own"
    refused = store.put(1, 3, {"larger": np.zeros(100)}, {})
    assert refused is not None
    assert (refused.trial, refused.cause, refused.earlier) == (1, "budget", 2)
    os.truncate(next(tmp_path.glob("trial-*")), 50)
    assert store.last(1) is None
    assert store.last(9) is None


def test_a_checkpoint_that_arrives_late_does_not_replace_one_of_a_later_epoch(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, 10_000)
    for epoch in (3, 2):  # a former worker is still sending that of epoch 2
        assert store.put(7, epoch, ARRAYS, {"epoch": epoch}) is None
    assert _names(tmp_path) == ["trial-00007-epoch-003.safetensors"]


def test_on_a_full_disk_the_previous_checkpoint_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CheckpointStore(tmp_path, 10_000)
    store.put(1, 1, ARRAYS, {})

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("search.run.checkpoints.save_file", full)
    refused = store.put(1, 2, ARRAYS, {})
    assert refused is not None
    assert (refused.cause, refused.earlier) == ("disk", 1)
    assert _names(tmp_path) == ["trial-00001-epoch-001.safetensors"]
    assert not list(tmp_path.glob(f"*{PARTIAL}"))


def test_a_replacement_process_knows_the_ended_trials(tmp_path: Path) -> None:
    CheckpointStore(tmp_path, 10_000).drop(7)
    with (tmp_path / ".ended").open("a") as file:
        file.write("1")  # incomplete: meant to be 12 or 17
    CheckpointStore(tmp_path, 10_000).drop(2)
    store = CheckpointStore(tmp_path, 10_000)
    for trial in (1, 2, 7, 12):
        store.put(trial, 3, ARRAYS, {})
    assert _names(tmp_path) == ["trial-00001-epoch-003.safetensors", "trial-00012-epoch-003.safetensors"]


def test_repeated_calls_change_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        CheckpointStore(tmp_path, 10_000).put(1, 1, ARRAYS, {"epoch": 1})
        CheckpointStore(tmp_path, 10_000).drop(2)
        kept = CheckpointStore(tmp_path, 10_000).last(1)
        assert kept is not None
        assert kept[1] == {"epoch": 1}
        assert _names(tmp_path) == ["trial-00001-epoch-001.safetensors"]
    for _ in range(2):
        CheckpointStore(tmp_path, 10_000).end()
        assert not tmp_path.exists()


def test_a_resumed_search_keeps_the_checkpoints_of_running_trials_only(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    clear_checkpoints(folder, keep=[])
    store = CheckpointStore(folder, 10_000)
    for trial in (1, 2, 100_001):
        store.put(trial, 1, ARRAYS, {})
    store.drop(3)
    clear_checkpoints(folder, keep=[2, 3, 100_001])
    assert _names(folder) == ["trial-00002-epoch-001.safetensors", "trial-100001-epoch-001.safetensors"]
    CheckpointStore(folder, 10_000).put(3, 1, ARRAYS, {})
    assert len(_names(folder)) == 3, "a trial may run again after an older copy is restored"


@pytest.mark.parametrize(
    ("cause", "earlier", "named"),
    [
        ("budget", None, ["trial 4", "43 MiB", "start over", "checkpoint_budget="]),
        ("disk", 2, ["trial 4", "43 MiB", "epoch 2", "space"]),
        ("MemoryError", None, ["trial 4", "43 MiB", "start over"]),
    ],
)
def test_a_checkpoint_that_is_not_stored_is_reported_in_one_line_with_its_cost_and_the_way_out(
    cause: str, earlier: int | None, named: list[str]
) -> None:
    line = str(Unsaved(trial=4, cause=cause, why="it takes 43 MiB", earlier=earlier))
    assert [part for part in named if part not in line] == []
    assert "\n" not in line
