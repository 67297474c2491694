"""The leaderboard: trials are filtered and sorted, and an abandoned run is reported with the command to resume it."""

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from made_runs import make_run
from rich.console import Console

from genre_core.errors import InputError
from search.errors import SearchErrorCode
from search.report import leaderboard, winner
from search.run import ranking
from search.run.lock import driving
from search.run.tables import read_trials


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a complete, a pruned, a cut-off, a failed and a RUNNING trial, in this order."""
    curves = ((0.2, 0.5, 0.4), (0.7, 0.1), (0.3,), (), (0.6, 0.4))
    return make_run(tmp_path_factory.mktemp("runs") / "left", curves, running=True)


@pytest.mark.parametrize(
    ("optimizer", "in_table", "in_best"),
    [("sgd", False, False), (["sgd"], False, True), ("adamw", True, True), (["adamw", "sgd"], True, True)],
)
def test_the_optimizer_is_shown_where_it_was_searched_or_is_not_sgd(
    optimizer: Any, in_table: bool, in_best: bool, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "r", [[0.5, 0.6, 0.7]] * 6, settings={"space.optimizer": optimizer})
    trials = read_trials(run)
    used = set(trials["optimizer"])
    assert used == ({optimizer} if isinstance(optimizer, str) else set(optimizer))
    assert ("optimizer" in leaderboard.table(trials).shown(200)) == in_table
    screen = StringIO()
    Console(file=screen, width=120).print(*winner.best_trial(run), sep="\n")
    assert any(line.strip().startswith("optimizer") for line in screen.getvalue().splitlines()) == in_best
    assert winner.winner_config(run, winner.best_row(run)).space.optimizer == winner.best_row(run).optimizer


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [1, 4, 0, 2, 3]),
        ({"sort": "trial"}, [0, 1, 2, 3, 4]),
        ({"state": "pruned"}, [1, 2]),
        ({"state": "FAIL"}, [3]),
        ({"sort": "F1"}, [1, 4, 0, 2, 3]),
    ],
)
def test_trials_are_filtered_and_sorted_with_missing_values_last(
    options: dict[str, Any], expected: list[int], made: Path
) -> None:
    assert ranking.select(read_trials(made), **options)["trial"].tolist() == expected


@pytest.mark.parametrize(
    ("options", "code", "parts"),
    [
        ({"state": "done"}, SearchErrorCode.UNKNOWN_STATE, ("--state done", "COMPLETE, PRUNED")),
        ({"sort": "val_f2"}, SearchErrorCode.UNKNOWN_COLUMN, ("--sort val_f2", "val_f1")),
        ({"sort": "f2"}, SearchErrorCode.UNKNOWN_COLUMN, ("--sort f2", "results --csv")),
        ({"backbone": "vgg"}, SearchErrorCode.UNKNOWN_BACKBONE_OF_RUN, ("--backbone vgg", "resnet18")),
    ],
)
def test_an_unknown_state_column_or_backbone_is_refused_with_the_possible_ones(
    options: dict[str, Any], code: SearchErrorCode, parts: tuple[str, ...], made: Path
) -> None:
    with pytest.raises(InputError) as error:
        ranking.select(read_trials(made), **options)
    assert error.value.code is code
    assert all(part in str(error.value) for part in parts)


def test_the_summary_counts_trials_by_how_they_ended(made: Path) -> None:
    text = leaderboard.summary(read_trials(made)).plain
    for part in (
        "5 trials",
        "1 complete",
        "1 pruned",
        "1 cut off by the time budget",
        "1 failed",
        "1 running",
    ):
        assert part in text
    assert "Diverged" in text


def test_a_run_without_a_scored_trial_has_no_best_trial(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", ((), ()))
    with pytest.raises(InputError) as error:
        winner.best_trial(run)
    assert error.value.code is SearchErrorCode.NO_SCORED_TRIAL
    assert f"genre-search results {run}" in str(error.value)


@pytest.mark.parametrize("make", [make_run, lambda folder: make_run(folder, running=True)])
def test_running_trials_without_a_driver_are_reported_with_the_command_to_resume(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    run = make(tmp_path / "r")
    trials = read_trials(run)
    lines = [line.plain for line in leaderboard.abandoned(run, trials)]
    running = int((trials["state"] == "RUNNING").sum())
    assert [f"{running} trial" in line and f"genre-search resume {run}" in line for line in lines] == [
        True
    ] * running
    with driving(run):
        assert leaderboard.abandoned(run, trials) == []
