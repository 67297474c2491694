"""The start of a search on Ray is shown: how many workers have started, then that features are computed."""

from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

from search.tune import search


class Barrier:
    """Stands for the handle of a startup barrier; answers are the numbers of workers that have arrived."""

    def __init__(self, answers: list[int | Exception]) -> None:
        self.asked = 0

        def remote() -> int | Exception:
            self.asked += 1
            return answers.pop(0)

        self.arrived = SimpleNamespace(remote=remote)


@pytest.fixture(autouse=True)
def answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray answers at once."""

    def get(answer: int | Exception) -> int:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(search, "ray", SimpleNamespace(wait=lambda answers, timeout: (answers, []), get=get))


def _phases(barrier: Any, *, steps: int) -> list[str]:
    said: list[str] = []
    start = search._Start(barrier, 2, said.append)
    for step in range(steps):
        start.on_step_begin(iteration=step, trials=[])
    return said


def test_workers_are_counted_until_all_have_started() -> None:
    barrier = Barrier([0, 1, 2])
    said = _phases(barrier, steps=20)
    assert said[:3] == ["starting workers, 0 of 2", "starting workers, 0 of 2", "starting workers, 1 of 2"]
    assert len(said) == 4
    assert "computing features" in said[3]
    assert barrier.asked == 3


def test_a_barrier_that_died_is_asked_no_more() -> None:
    barrier = Barrier([1, ActorDiedError()])
    assert len(_phases(barrier, steps=20)) == 2
    assert barrier.asked == 2
