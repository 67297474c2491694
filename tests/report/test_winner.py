"""The best trial: what was searched, where its model is, and a file of settings that repeats it alone."""

from pathlib import Path
from typing import Any

import pytest
from command_line import in_process
from made_runs import make_run

from search.config.schema import SearchConfig, load
from search.report.winner import best_row, best_trial, write_winner

SEARCHED = {
    "space.backbone": ["resnet18", "alexnet"],
    "space.learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
    "space.momentum": 0.9,
}


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A run whose best trial is its last."""
    return make_run(tmp_path / "r", settings=SEARCHED)


def _lines(parts: list[Any]) -> list[list[str]]:
    from rich.console import Console

    console = Console(width=120, color_system=None)
    with console.capture() as capture:
        for part in parts:
            console.print(part, soft_wrap=True)
    return [line.split() for line in capture.get().splitlines()]


def test_each_setting_has_the_values_that_were_searched(made: Path) -> None:
    row, lines = best_row(made), _lines(best_trial(made))
    assert row.trial == 2
    assert ["backbone", row.backbone, "resnet18,", "alexnet"] in lines
    assert ["learning_rate", f"{row.learning_rate:.3g}", "1e-05", "to", "0.001,", "logarithmic"] in lines
    assert ["momentum", "0.9", "fixed"] in lines


def test_the_path_of_the_kept_model_is_shown(made: Path) -> None:
    assert ["model:", str(made / "models" / "trial-00002-epoch-003")] in _lines(best_trial(made))


@pytest.mark.parametrize(
    "settings",
    [SEARCHED, SEARCHED | {"sampler": None, "pruner": None, "stop_when_flat": True, "worker_budget": "2h"}],
    ids=["Optuna's", "cost-aware"],
)
def test_the_file_is_a_search_of_the_winner_alone(settings: dict[str, Any], tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", settings=settings)
    row, repeated = best_row(run), load(write_winner(run), {})
    given = load(run / "config.yaml", {})
    for name, value in repeated.space.model_dump().items():
        assert value == (getattr(row, name) if getattr(row, name) is not None else getattr(given.space, name))
    assert (repeated.trials, repeated.seed, repeated.provenance) == (1, row.seed, None)
    assert (repeated.time_budget, repeated.worker_budget, repeated.warm_start) == (None, None, ())
    unchanged = set(SearchConfig.model_fields) - {
        *("space", "trials", "seed", "provenance", "time_budget", "worker_budget", "warm_start"),
        *("search", "sampler", "pruner", "stop_when_flat"),
    }
    assert all(getattr(repeated, name) == getattr(given, name) for name in unchanged)


def test_the_command_names_the_file_and_says_if_it_cannot_be_written(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = in_process("best", made)
    assert done.stdout.splitlines()[-1] == f"genre-search run --config {made / 'winner.yaml'}"

    def refused(path: Path, *_: Any, **__: Any) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "write_text", refused)
    done = in_process("best", made)
    assert done.returncode == 0
    assert str(made / "winner.yaml") in done.stdout.splitlines()[-1]
    assert "Permission denied" in done.stdout
