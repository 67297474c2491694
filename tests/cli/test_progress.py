"""Progress: counts and time left in one line, one line for each ended trial."""

from io import StringIO
from typing import Any

import pytest
from made_runs import trial_row
from plans import make_plan_of
from rich.console import Console

from search.cli.progress import Display
from search.engine.forecast import Forecast, Plan
from search.report.formatting import duration
from search.run.schemas import TrialRow


def _row(trial: int, state: str, **values: Any) -> TrialRow:
    row = {
        "state": state,
        "learning_rate": 0.0123,
        "epochs": 3,
        "max_epochs": 8,
        "seconds": 4.2,
        "epoch_seconds_expected": 2.0,
        "val_f1": 0.5,
    }
    return trial_row(trial, **row | values)


def _display(*, terminal: bool = False, **options: Any) -> tuple[Display, StringIO]:
    screen = StringIO()
    console = Console(file=screen, force_terminal=terminal, width=120)
    return Display(console, **({"trials": 10} | options)), screen


def test_the_headline_counts_states_and_names_the_best() -> None:
    display, _ = _display()
    assert display.headline() == "starting Ray"
    for row in [
        _row(0, "RUNNING", val_f1=None),
        _row(0, "COMPLETE", val_f1=0.4),
        _row(1, "PRUNED", val_f1=0.7),
        _row(2, "FAIL", val_f1=None, error="no memory"),
        _row(3, "RUNNING", val_f1=0.1),
    ]:
        display.trial(row)
    assert display.headline().startswith(
        "3/10 trials · 1 running · 1 pruned · 1 failed · best F1 0.700 (trial 1, resnet18) · about "
    )


def test_a_file_or_pipe_gets_plain_lines_for_ended_trials() -> None:
    display, screen = _display()
    with display.searching(), display.progress("Checking") as report:
        report(1, 2)
        display.trial(_row(0, "RUNNING"))
        display.trial(_row(0, "FAIL", error="diverged in epoch 3"))
    lines = screen.getvalue().splitlines()
    assert len(lines) == 2
    expected = (
        "trial 0 FAIL F1 0.500 resnet18 frozen 2/5 lr 0.012 momentum 0.90 3 epochs 4.2 s diverged in epoch 3"
    )
    assert lines[0].split() == expected.split()
    assert lines[1].startswith("Checking: 2 in ")
    assert "\x1b" not in screen.getvalue()


def test_a_terminal_shows_running_trials_in_a_table() -> None:
    display, screen = _display(terminal=True)
    with display.searching():
        display.trial(_row(4, "RUNNING", backbone="vgg16"))
    assert "vgg16" in screen.getvalue()
    assert "0/10 trials" in screen.getvalue()


def test_the_time_left_is_estimated_from_epoch_costs_and_trial_durations() -> None:
    display, _ = _display(trials=10)
    for row in [_row(0, "COMPLETE", seconds=3.0), _row(1, "PRUNED", seconds=1.0), _row(2, "RUNNING")]:
        display.trial(row)
    assert "about 24 s left" in display.headline(), "5 epochs of 2 s, then 7 trials of 2 s"
    display.trial(_row(3, "RUNNING", epoch_seconds_expected=None))
    assert "left" not in display.headline()


def test_the_time_left_is_at_most_the_time_budget() -> None:
    display, _ = _display(trials=10**9, time_budget=7530.0)
    display.trial(_row(0, "COMPLETE"))
    display.trial(_row(1, "RUNNING"))
    assert "about 2 h 5 min left" in display.headline()


def _plan(**options: Any) -> Plan:
    """A plan of ten trials that cost 36 to 360 s each."""
    forecast = Forecast(trials=10, low=360.0, high=3600.0, most=7200.0)
    return make_plan_of(forecast=forecast, **options)


def test_what_is_spent_and_the_forecast_follow_the_trials() -> None:
    display, screen = _display(price=2.0)
    display.plan(_plan())
    assert "6 min 0 s to 1 h 0 min of worker time" in screen.getvalue()
    assert "price 0.20 to 2.00" in screen.getvalue()
    assert display.spending().startswith(
        "spent 0 s of worker time, price 0.00; forecast 6 min 0 s to 1 h 0 min"
    )
    display.trial(_row(0, "COMPLETE", seconds=100.0))
    display.trial(_row(1, "RUNNING", seconds=80.0, epochs=4, max_epochs=8))
    assert display.spending() == (
        "spent 3 min 0 s of worker time, price 0.10; forecast 7 min 48 s to 54 min 0 s, price 0.26 to 1.80"
    ), "8 trials are to come, at most half of one is left"


def test_the_forecast_is_at_most_the_budget() -> None:
    display, _ = _display()
    display.plan(_plan(budget=600.0))
    display.trial(_row(0, "COMPLETE", seconds=100.0))
    assert display.spending() == "spent 1 min 40 s of worker time; forecast 7 min 4 s to 10 min 0 s"


def test_what_is_spent_is_the_time_that_budgets_count_once_it_is_metered() -> None:
    display = Display(Console(file=StringIO()), trials=10)
    display.meter(lambda: 120.0)
    assert display.spending() == "spent 2 min 0 s of worker time"


def test_a_resumed_search_has_spent_what_it_spent_before() -> None:
    display, _ = _display()
    display.plan(_plan())
    display.take_up([_row(0, "COMPLETE", seconds=100.0)])
    display.trial(_row(1, "COMPLETE", seconds=50.0))
    assert display.spent() == "spent 2 min 30 s of worker time; the forecast was 7 min 40 s to 1 h 1 min"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59, "59 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_a_duration_is_shown_in_two_units(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_command_is_not_wrapped_on_a_narrow_terminal() -> None:
    file = StringIO()
    Display(Console(file=file, width=20)).say("resume with: genre-search resume 'my runs/first try'")
    assert file.getvalue().splitlines() == ["resume with: genre-search resume 'my runs/first try'"]
