"""Ports of a worker that actors serve: what an actor cannot do is reported, and its failure is not the worker's."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from made_runs import epoch_report
from ray.exceptions import ActorDiedError, RayTaskError

from search.engine.ports import Arrays, RemoteError
from search.run.checkpoints import Unsaved
from search.tune.actors import RemoteCheckpoints, RemoteWeights, ask


class Call:
    """In place of a call of an actor, and of Ray, which is asked for its result."""

    def __init__(self, result: object, *, arrived: bool = True) -> None:
        self._result = result
        self.arrived = arrived

    @staticmethod
    def wait(calls: list["Call"], timeout: float | None) -> tuple[list["Call"], list["Call"]]:
        """As ray.wait."""
        return [call for call in calls if call.arrived or timeout is None], []

    @staticmethod
    def get(call: "Call") -> Any:
        """As ray.get."""
        if isinstance(call._result, Exception):
            raise call._result
        return call._result


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.tune.actors.ray", Call)


def _raised(cause: Exception) -> RayTaskError:
    """As Ray passes on what was raised in an actor."""
    return RayTaskError("put", "Traceback", cause)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("error", [_raised(OSError(28, "No space left on device")), ActorDiedError()])
def test_the_failure_of_an_actor_is_no_error_of_the_worker(error: Exception) -> None:
    with pytest.raises(RemoteError) as caught:
        ask(lambda trial: Call(error), 1)
    assert caught.value.args[0] is (error.cause if isinstance(error, RayTaskError) else error)
    assert ask(lambda trial: Call(trial), 1) == 1


def test_reading_weights_is_a_wait() -> None:
    state = "working"

    @contextmanager
    def waiting() -> Iterator[None]:
        nonlocal state
        state = "waiting"
        yield
        state = "working"

    states = []

    def read(backbone: str) -> Call:
        states.append(state)
        return Call(np.zeros(3, np.uint8))

    actor: Any = SimpleNamespace(read=SimpleNamespace(remote=read))
    assert RemoteWeights(actor, waiting=waiting).read("resnet18").nbytes == 3
    assert (states, state) == (["waiting"], "working")


class Actor:
    """A `CheckpointStore` actor whose calls have these results in turn."""

    def __init__(self, *calls: Call) -> None:
        self._calls = list(calls)
        self.put = SimpleNamespace(remote=self._put)
        self.received: list[tuple[int, int, Arrays]] = []

    def _put(self, trial: int, epoch: int, arrays: Arrays, report: dict[str, Any]) -> Call:
        self.received.append((trial, epoch, arrays))
        assert (report["trial"], report["epoch"]) == (trial, epoch)
        return self._calls.pop(0)


def _checkpoints(*calls: Call) -> RemoteCheckpoints:
    actor: Any = Actor(*calls)
    return RemoteCheckpoints(actor)


def _send(checkpoints: RemoteCheckpoints, trial: int, epoch: int, state: Callable[[], Arrays] = dict) -> None:
    checkpoints.send(epoch_report(trial, [0.5] * epoch), state)


def _no_memory() -> Arrays:
    raise MemoryError("no room for a copy")


@pytest.mark.parametrize(
    ("result", "state", "cause", "why"),
    [
        (Unsaved(trial=1, cause="budget", why="too large"), dict, "budget", "too large"),
        (_raised(PermissionError("no entry")), dict, "PermissionError", "no entry"),
        (ActorDiedError(), dict, "ActorDiedError", "actor died"),
        (None, _no_memory, "MemoryError", "no room for a copy"),
    ],
)
def test_a_checkpoint_that_is_not_kept_is_reported_once_and_for_its_own_trial(
    result: object, state: Callable[[], Arrays], cause: str, why: str
) -> None:
    checkpoints = _checkpoints(*([] if state is _no_memory else [Call(result)]), Call(None), Call(None))
    _send(checkpoints, 1, 1, state)
    checkpoints.settle()  # as before another trial begins
    _send(checkpoints, 9, 1)
    unsaved = checkpoints.unsaved()
    assert unsaved is not None
    assert (unsaved.trial, unsaved.cause) == (1, cause)
    assert why in unsaved.why
    assert "\n" not in unsaved.why
    _send(checkpoints, 9, 2)
    checkpoints.settle()
    assert checkpoints.unsaved() is None


def test_a_trial_that_ends_does_not_wait_for_its_last_checkpoint() -> None:
    slow = Call(Unsaved(trial=1, cause="budget", why="too large"), arrived=False)
    checkpoints = _checkpoints(slow)
    _send(checkpoints, 1, 1)
    checkpoints.settle()
    assert checkpoints.unsaved() is None
    slow.arrived = True
    unsaved = checkpoints.unsaved()
    assert unsaved is not None
    assert unsaved.trial == 1


def test_where_there_is_no_room_for_checkpoints_none_is_copied() -> None:
    actor: Any = Actor()
    checkpoints = RemoteCheckpoints(actor, sends=False)
    _send(checkpoints, 1, 1, _no_memory)
    checkpoints.settle()
    assert (checkpoints.unsaved(), actor.received) == (None, [])
