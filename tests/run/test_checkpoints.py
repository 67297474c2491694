"""Checkpoints on their way and in their folder: each running trial's last one; what is not kept is reported."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from ray.exceptions import ActorDiedError, RayTaskError
from ray.tune.utils import flatten_dict

from genre_core.system.atomic import PARTIAL
from search.engine.messages import FAILED, NUMBER, UNSAVED
from search.run.checkpoints import CheckpointShelf, Unsaved, start_over
from search.tune.checkpoint_sender import CheckpointSender
from search.tune.scheduler import StudyScheduler

ARRAYS = {"progress": np.array([2.0, 0.5, 1.0]), "trained.head.bias": np.arange(5, dtype=np.float32)}


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("trial-*"))


def test_only_the_last_checkpoint_of_a_running_trial_is_kept(tmp_path: Path) -> None:
    shelf = CheckpointShelf(tmp_path, 10_000)
    for epoch in (1, 2):
        assert shelf.put(7, epoch, ARRAYS, {"epoch": epoch}) is None
    assert _names(tmp_path) == ["trial-00007-epoch-002.safetensors"]
    (tmp_path / ".tmp123").touch()
    kept = CheckpointShelf(tmp_path, 10_000).last(7)
    assert not (tmp_path / ".tmp123").exists()
    assert kept is not None
    assert kept[1] == {"epoch": 2}
    assert all(np.array_equal(kept[0][name], array) for name, array in ARRAYS.items())
    shelf.drop(7)
    assert shelf.put(7, 3, ARRAYS, {}) is None
    assert not _names(tmp_path), "what comes late from its worker is not taken"


def test_checkpoints_keep_to_their_budget_and_a_damaged_one_is_none(tmp_path: Path) -> None:
    shelf = CheckpointShelf(tmp_path, 200)
    assert shelf.put(1, 1, ARRAYS, {}) is None
    refused = shelf.put(2, 1, ARRAYS, {})
    assert refused is not None
    assert (refused.trial, refused.cause, refused.earlier) == (2, "budget", None)
    assert shelf.put(1, 2, ARRAYS, {}) is None, "it takes the place of the trial's own"
    refused = shelf.put(1, 3, {"larger": np.zeros(100)}, {})
    assert refused is not None
    assert (refused.trial, refused.cause, refused.earlier) == (1, "budget", 2)
    os.truncate(next(tmp_path.glob("trial-*")), 50)
    assert shelf.last(1) is None
    assert shelf.last(9) is None


def test_on_a_full_disk_the_earlier_checkpoint_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = CheckpointShelf(tmp_path, 10_000)
    shelf.put(1, 1, ARRAYS, {})

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("search.run.checkpoints.save_file", full)
    refused = shelf.put(1, 2, ARRAYS, {})
    assert refused is not None
    assert (refused.cause, refused.earlier) == ("disk", 1)
    assert _names(tmp_path) == ["trial-00001-epoch-001.safetensors"]
    assert not list(tmp_path.glob(f"*{PARTIAL}"))


def test_the_process_that_replaces_a_dead_one_knows_which_trials_are_over(tmp_path: Path) -> None:
    CheckpointShelf(tmp_path, 10_000).drop(7)
    with (tmp_path / ".ended").open("a") as file:
        file.write("1")  # cut off: it was to be 12, or 17
    CheckpointShelf(tmp_path, 10_000).drop(2)
    shelf = CheckpointShelf(tmp_path, 10_000)
    for trial in (1, 2, 7, 12):
        shelf.put(trial, 3, ARRAYS, {})
    assert _names(tmp_path) == ["trial-00001-epoch-003.safetensors", "trial-00012-epoch-003.safetensors"]


def test_calls_that_are_repeated_change_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        CheckpointShelf(tmp_path, 10_000).put(1, 1, ARRAYS, {"epoch": 1})
        CheckpointShelf(tmp_path, 10_000).drop(2)
        kept = CheckpointShelf(tmp_path, 10_000).last(1)
        assert kept is not None
        assert kept[1] == {"epoch": 1}
        assert _names(tmp_path) == ["trial-00001-epoch-001.safetensors"]
    for _ in range(2):
        CheckpointShelf(tmp_path, 10_000).end()
        assert not tmp_path.exists()


def test_a_search_that_resumes_has_checkpoints_of_running_trials_only(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    start_over(folder, [])
    shelf = CheckpointShelf(folder, 10_000)
    for trial in (1, 2, 100_001):
        shelf.put(trial, 1, ARRAYS, {})
    shelf.drop(3)
    start_over(folder, [2, 3, 100_001])
    assert _names(folder) == ["trial-00002-epoch-001.safetensors", "trial-100001-epoch-001.safetensors"]
    CheckpointShelf(folder, 10_000).put(3, 1, ARRAYS, {})
    assert len(_names(folder)) == 3, "of a copy that is older, a trial may run again"


class Call:
    """In place of a call of the `CheckpointShelf` process, and of Ray, which is asked what became of it."""

    def __init__(self, comes_to: Unsaved | Exception | None) -> None:
        self._comes_to = comes_to
        self.arrived = True

    @staticmethod
    def wait(calls: list["Call"], timeout: float | None) -> tuple[list["Call"], list["Call"]]:
        """As ray.wait."""
        there = [call for call in calls if call.arrived or timeout is None]
        return there, []

    @staticmethod
    def get(call: "Call") -> Unsaved | None:
        """As ray.get."""
        if isinstance(call._comes_to, Exception):
            raise call._comes_to
        return call._comes_to


@pytest.fixture
def sender(monkeypatch: pytest.MonkeyPatch) -> CheckpointSender:
    """A sender whose calls come to what is given as the row of each checkpoint."""
    monkeypatch.setattr("search.tune.checkpoint_sender.ray", Call)
    shelf = Mock()
    shelf.put.remote = lambda trial, epoch, arrays, row: row["call"]
    return CheckpointSender(shelf)


KEPT = Call(None)


def _raised(cause: Exception) -> RayTaskError:
    """As Ray passes on what was raised in a process."""
    return RayTaskError("put", "Traceback", cause)  # type: ignore[no-untyped-call]


def _lost() -> dict[str, Any]:
    raise MemoryError("no room for a copy")


@pytest.mark.parametrize(
    ("comes_to", "state", "cause", "said"),
    [
        (Unsaved(trial=1, cause="budget", why="too large"), dict, "budget", "too large"),
        (_raised(PermissionError("no entry")), dict, "PermissionError", "no entry"),
        (ActorDiedError(), dict, "ActorDiedError", "actor died"),
        (None, _lost, "MemoryError", "no room for a copy"),
    ],
)
def test_a_checkpoint_that_is_not_kept_is_reported_once_and_for_its_own_trial(
    sender: CheckpointSender,
    comes_to: Unsaved | Exception | None,
    state: Callable[[], dict[str, Any]],
    cause: str,
    said: str,
) -> None:
    sender.send(1, 1, state, {"call": Call(comes_to)})
    sender.wait_for_copy()  # as before another trial begins
    sender.send(9, 1, dict, {"call": KEPT})
    news = sender.news()[UNSAVED]
    assert (news.trial, news.cause) == (1, cause)
    assert said in news.why
    assert "\n" not in news.why
    sender.send(9, 2, dict, {"call": KEPT})
    assert sender.news() == {}


def test_a_trial_that_ends_does_not_wait_for_its_last_checkpoint(sender: CheckpointSender) -> None:
    slow = Call(Unsaved(trial=1, cause="budget", why="too large"))
    slow.arrived = False
    sender.send(1, 1, dict, {"call": slow})
    sender.wait_for_copy()
    assert sender.news() == {}
    slow.arrived = True
    assert sender.news()[UNSAVED].trial == 1


def test_the_screen_says_once_for_each_cause_what_is_not_kept() -> None:
    said: list[str] = []
    study, ignored = Mock(), Mock()
    scheduler = StudyScheduler(
        study, ignored, retries=0, epoch_limit=1.0, workers=1, go_on=ignored, forget=ignored, say=said.append
    )
    for trial, cause in ((4, "budget"), (5, "budget"), (5, "MemoryError")):
        unsaved = Unsaved(trial=trial, cause=cause, why=f"{cause} 43 MiB", earlier=2 if trial == 5 else None)
        running = Mock(config={NUMBER: 8})
        scheduler.on_trial_add(ignored, running)
        result = flatten_dict({FAILED: "ended", UNSAVED: unsaved})  # as Ray Tune passes it on
        scheduler.on_trial_result(ignored, running, result)
    assert ["trial 4" in said[0], "43 MiB" in said[0], "checkpoint_budget=" in said[0]] == [True] * 3
    assert ["trial 5" in said[1], "epoch 2" in said[1]] == [True] * 2
    assert len(said) == 2
