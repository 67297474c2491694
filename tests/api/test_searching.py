"""A search called from Python: interrupts, exceptions of the user's functions, and earlier runs."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from refusals import refused
from tiny import TINY
from without_ray import searches_in_process

from genre_core.errors import ErrorCode
from genre_core.system import interruption
from search import EpochRow, Result, TrialRow, open_run, resume, search
from search.errors import SearchErrorCode


@pytest.fixture(scope="module", autouse=True)
def without_ray() -> Iterator[None]:
    """Searches of this process train nothing and need no Ray."""
    with searches_in_process():
        yield


@pytest.fixture
def call(music: Path, cache: Path, tmp_path: Path) -> Callable[..., Result]:
    """A tiny search."""

    def make(**given: Any) -> Result:
        return search(music, runs=tmp_path, name="run", cache=cache, **(TINY | given))

    return make


class Mistake(Exception):
    """What a user's function raises."""


def test_a_search_returns_its_run(call: Callable[..., Result], capsys: pytest.CaptureFixture[str]) -> None:
    result = call()
    assert (result.state, len(result.trials)) == ("ended", TINY["trials"])
    assert result.best.val_f1 == result.trials["val_f1"].max()
    assert set(result.epochs["trial"]) == set(result.trials["trial"])
    assert "Search run" in capsys.readouterr().out


def test_without_progress_nothing_is_shown(
    call: Callable[..., Result], capsys: pytest.CaptureFixture[str]
) -> None:
    call(progress=False)
    assert capsys.readouterr().out == ""


def test_the_users_functions_see_every_epoch_and_trial(call: Callable[..., Result]) -> None:
    epochs: list[EpochRow] = []
    trials: list[TrialRow] = []
    result = call(on_epoch=epochs.append, on_trial=trials.append)
    assert {(row.trial, row.epoch, row.val_f1) for row in epochs} == set(
        result.epochs[["trial", "epoch", "val_f1"]].itertuples(index=False, name=None)
    )
    assert {(row.trial, row.state) for row in trials} == set(
        result.trials[["trial", "state"]].itertuples(index=False, name=None)
    )


@pytest.mark.parametrize("raised", [Mistake("mine"), KeyboardInterrupt()])
@pytest.mark.parametrize("callback", ["on_epoch", "on_trial"])
def test_what_a_users_function_raises_is_raised_and_the_search_can_be_resumed(
    call: Callable[..., Result], tmp_path: Path, cache: Path, raised: BaseException, callback: str
) -> None:
    def fail(row: object) -> NoReturn:
        raise raised

    with pytest.raises(type(raised)) as caught:
        call(**{callback: fail})
    assert caught.value is raised
    assert open_run(tmp_path / "run").state == "interrupted"
    result = resume(tmp_path / "run", cache=cache, progress=False)
    assert (result.state, len(result.trials)) == ("ended", TINY["trials"])


def test_a_completed_search_is_extended(call: Callable[..., Result], cache: Path) -> None:
    earlier = call(progress=False)
    extended = resume(earlier.path, trials=TINY["trials"] + 2, cache=cache, progress=False)
    assert len(extended.trials) == TINY["trials"] + 2


def test_the_winner_is_repeated_by_its_settings(call: Callable[..., Result]) -> None:
    best = call(progress=False)
    again = search(config=best.winner(), runs=best.path.parent, name="again", progress=False)
    assert again.best.learning_rate == best.best.learning_rate
    assert len(again.trials) == 1


def test_a_search_runs_in_a_thread(call: Callable[..., Result]) -> None:
    found: list[Result] = []
    thread = threading.Thread(target=lambda: found.append(call(progress=False)))
    thread.start()
    thread.join()
    assert found[0].state == "ended"


def test_signals_are_left_alone_in_a_thread() -> None:
    raised: list[BaseException] = []

    def enter() -> None:
        try:
            with interruption.termination_as_interrupt():
                pass
        except ValueError as error:
            raised.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert not raised


def test_mistakes_are_found_before_anything_is_written(call: Callable[..., Result], tmp_path: Path) -> None:
    with refused(SearchErrorCode.SETTING_UNKNOWN, "trails"):
        call(trails=3)
    with refused(SearchErrorCode.RUN_NOT_FOUND, tmp_path / "other"):
        open_run(tmp_path / "other")
    with refused(ErrorCode.UNKNOWN_BACKBONE, "resnet19"):
        call(**{"space.backbone": "resnet19"})
    assert not list(tmp_path.iterdir())
