"""Progress: one line for each ended trial, and the progress of the search on a terminal, in a pipe and in a file."""

import threading
from dataclasses import replace
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from made_runs import epoch_report, trial_row
from plans import make_plan_of
from rich.cells import cell_len
from rich.console import Console

from search.config.schema import load
from search.display.live_screen import LiveScreen
from search.display.log_file import LogFile
from search.display.machine_use import MachineUse
from search.display.progress import Detail, Display
from search.display.tally import Tally
from search.engine.forecast import Forecast, Plan
from search.report.formatting import duration
from search.run.schemas import PAUSED, TrialRow


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


def _display(*, terminal: bool = False, width: int = 120, **options: Any) -> tuple[Display, StringIO]:
    screen = StringIO()
    console = Console(file=screen, force_terminal=terminal, color_system=None, width=width)
    return Display(console, **({"trials": 10} | options)), screen


def test_the_headline_counts_states_and_names_the_best() -> None:
    display, _ = _display()
    for row in [
        _row(0, "RUNNING", val_f1=None),
        _row(0, "COMPLETE", val_f1=0.4),
        _row(1, "PRUNED", val_f1=0.7),
        _row(2, "FAIL", val_f1=None, error="no memory"),
        _row(4, "RUNNING", val_f1=0.2),
        _row(4, PAUSED, val_f1=0.2),
        _row(3, "RUNNING", val_f1=0.1),
    ]:
        display.trial(row)
    assert display.headline().startswith(
        "3/10 trials · 1 running · 1 paused · 1 pruned · 1 failed · best F1 0.700 (trial 1, resnet18) · 0 s elapsed · "
    )
    assert [row.trial for row in display.tally.top] == [1, 0, 4]


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_the_lines_of_ended_trials_fit_a_terminal_and_align(width: int) -> None:
    display, screen = _display(terminal=True, width=width, trials=200)
    display.plan(make_plan_of(load(None, {"trials": 200}), forecast=None))
    before = len(screen.getvalue())
    for number, backbone, lr in ((7, "vgg16", 0.1), (42, "densenet121", 0.000123456), (199, "alexnet", 1e-5)):
        display.trial(_row(number, "COMPLETE", backbone=backbone, learning_rate=lr, momentum=0.98765))
    lines = screen.getvalue()[before:].splitlines()
    assert max(map(cell_len, lines)) <= width
    assert len(lines) == 3
    assert len({line.index("F1 0.500") for line in lines}) == 1
    assert len({line.index("  lr ") for line in lines}) == 1
    for line, values in zip(
        lines, (("vgg16", "lr 0.1"), ("densenet121", "0.000123"), ("1e-05",)), strict=True
    ):
        assert all(value in line for value in values)
    assert ("momentum 0.988" in lines[0]) == (width >= 100)


def test_the_reason_of_a_failed_trial_is_wrapped_at_words_below_its_line() -> None:
    display, screen = _display(terminal=True, width=60)
    reason = "OutOfMemory: the network and its data do not fit into the memory of the device even alone"
    display.trial(_row(3, "FAIL", error=reason))
    first, *rest = screen.getvalue().splitlines()
    assert first.startswith("trial 3")
    assert max(map(cell_len, rest)) <= 60
    assert " ".join(line.strip() for line in rest) == reason


def test_a_file_or_pipe_gets_one_line_with_all_fields_per_ended_trial() -> None:
    display, screen = _display()
    with display.searching(), display.progress("Checking") as report:
        report(1, 2)
        display.trial(_row(0, "RUNNING"))
        display.trial(_row(0, "FAIL", error="diverged in epoch 3"))
        display.trial(_row(1, "COMPLETE", val_f1=0.25))
    failed, complete, checked = screen.getvalue().splitlines()
    expected = (
        "1/10 trial 0 FAIL F1 0.500 resnet18 frozen 2/5 lr 0.0123 momentum 0.9 3/8 epochs 4.2 s best 0.500 (trial 0) "
        "about 38 s left diverged in epoch 3"
    )
    assert failed.split() == expected.split(), "9 trials that take as long are left, one at a time"
    assert complete.split()[:2] == ["2/10", "trial"]
    assert "best 0.500 (trial 0)" in complete
    assert "about 34 s left" in complete
    assert checked.startswith("Checking: 2 in ")
    assert "\x1b" not in screen.getvalue()


class _Waited(StringIO):
    """A file that reports when it has a line that contains a word."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self.word, self.found = word, threading.Event()

    def write(self, text: str) -> int:
        if self.word in text:
            self.found.set()
        return super().write(text)


def test_a_pipe_gets_a_progress_line_when_no_trial_ends_for_a_while() -> None:
    screen = _Waited("0/10 trials")
    display = Display(Console(file=screen, width=160), trials=10, progress_seconds=0.01)
    with display.searching():
        display.phase("starting workers, 1 of 2")
        assert screen.found.wait(60)
    assert "starting workers, 1 of 2, 0 s" in screen.getvalue()


class Busy(MachineUse):
    """A machine whose use is known."""

    def parts(self) -> tuple[str, str]:
        return "CPU 97%", "3.2/16 GiB"


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_the_live_screen_has_two_lines_of_header_then_running_trials_then_the_best(width: int) -> None:
    display, screen = _display(terminal=True, width=width)
    for row in [
        _row(0, "COMPLETE", val_f1=0.4),
        _row(1, "PRUNED", val_f1=0.7, backbone="densenet121"),
        _row(2, "FAIL", val_f1=None),
        _row(3, "RUNNING", backbone="vgg16", epochs=2, val_f1=0.35),
        _row(4, "RUNNING", epochs=0, val_f1=None),
    ]:
        display.tally.count(row)
    for scores in ((0.35,), (0.35, 0.1)):
        display.epoch(epoch_report(3, scores).row)
    console = Console(file=screen, force_terminal=True, color_system=None, width=width)
    console.print(LiveScreen(display.tally, use=Busy()))
    first, second, _, titles, running, starting, *rest = map(str.rstrip, screen.getvalue().splitlines())
    assert [line for line in (first, second, titles, running, *rest) if cell_len(line) > width] == []
    assert first.startswith("━━")
    for part in ("3/10", "1 pruned", "1 failed", "elapsed"):
        assert part in first
    assert "CPU 97%, 3.2/16 GiB" in (first if width >= 100 else " ".join(rest))
    assert "about 24 s left" in (first if width >= 80 else " ".join(rest)), "49 s on 2 workers"
    assert second.startswith("best F1 0.700 · trial 1 · densenet121")
    assert running.split()[:2] == ["3", "vgg16"]
    assert "━━────── 2/8" in running
    assert "0.100    0.350" in running, "the last and the best F1"
    assert ("▅▂" in running) == (width >= 80)
    assert "──────── 0/8" in starting
    assert [line.split()[:2] for line in rest if "resnet18" in line or "densenet121" in line][:2] == [
        ["1", "PRUNED"],
        ["0", "COMPLETE"],
    ]


def test_a_terminal_shows_the_live_screen_while_the_search_runs() -> None:
    display, screen = _display(terminal=True)
    with display.searching():
        display.trial(_row(4, "RUNNING", backbone="vgg16"))
    assert "vgg16" in screen.getvalue()
    assert "0/10" in screen.getvalue()


def test_what_happens_before_the_first_epoch_is_shown_with_its_seconds() -> None:
    display, _ = _display()
    display.phase("starting Ray")
    assert display.headline().startswith("starting Ray, 0 s · 0/10 trials")
    display.phase("starting workers, 0 of 2")
    display.trial(_row(0, "RUNNING", epochs=0))
    assert display.headline().startswith("starting workers, 0 of 2, 0 s · ")
    display.trial(_row(0, "RUNNING", epochs=1))
    assert display.headline().startswith("0/10 trials")


def test_the_seconds_of_a_phase_go_on_when_its_detail_changes() -> None:
    now = [0.0]
    screen = LiveScreen(Tally(clock=lambda: now[0]), use=None)
    said = []
    for moment, title in (
        (0, "starting Ray"),
        (5, "starting workers, 0 of 2"),
        (8, "starting workers, 1 of 2"),
    ):
        now[0] = moment
        screen.phase(title)
        now[0] += 2
        said.append(screen.waiting)
    assert said == ["starting Ray, 2 s", "starting workers, 0 of 2, 2 s", "starting workers, 1 of 2, 5 s"]


def test_quiet_shows_results_only_and_verbose_every_epoch() -> None:
    said = {}
    for detail in Detail:
        display, screen = _display(detail=detail)
        with display.searching(), display.progress("Checking") as report:
            report(1, 1)
            display.say("10 genres")
            display.trial(_row(3, "RUNNING"))
            display.epoch(epoch_report(3, (0.25, 0.75)).row)
            display.trial(_row(3, "COMPLETE"))
        display.show("the results")
        said[detail] = [" ".join(line.split()) for line in screen.getvalue().splitlines()]
    assert said[Detail.RESULTS] == ["the results"]
    assert len(said[Detail.TRIALS]) == 4
    [epoch] = [line for line in said[Detail.EPOCHS] if line not in said[Detail.TRIALS]]
    assert epoch.startswith("trial 3 epoch 2/8 F1 0.750 train loss 1.000")


@pytest.mark.parametrize("detail", Detail)
@pytest.mark.parametrize("terminal", [False, True])
def test_a_log_file_has_all_lines_with_the_time_whatever_the_screen(
    detail: Detail, terminal: bool, tmp_path: Path
) -> None:
    path = tmp_path / "logs" / "search.log"
    moment = datetime(2026, 1, 2, 3, 4, 5)
    for number in (0, 1):
        log = LogFile(path, now=lambda: moment)
        display, _ = _display(detail=detail, terminal=terminal, width=60, log=log)
        display.say("10 genres, " + "and many more words " * 5)
        display.trial(_row(number, "COMPLETE", momentum=0.75))
        display.show("the results")
        log.close()
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 6, "a second search appends to it"
    assert all(line.startswith("2026-01-02 03:04:05 ") for line in lines)
    assert "momentum 0.75" in lines[1], "also if the screen has no room for it"


def test_the_time_left_is_estimated_from_epoch_costs_and_trial_durations() -> None:
    display, _ = _display(trials=10)
    for row in [_row(0, "COMPLETE", seconds=3.0), _row(1, "PRUNED", seconds=1.0), _row(2, "RUNNING")]:
        display.trial(row)
    assert "about 24 s left" in display.headline(), "5 epochs of 2 s, then 7 trials of 2 s"
    display.trial(_row(3, "RUNNING", epoch_seconds_expected=None))
    assert "left" not in display.headline()


def test_the_time_left_counts_workers_that_have_just_become_free() -> None:
    display, _ = _display(trials=10)
    for trial in (0, 1):
        display.trial(_row(trial, "RUNNING"))
    for trial in (0, 1):
        display.trial(_row(trial, "COMPLETE", seconds=6.0))
    assert "about 24 s left" in display.headline(), "8 trials of 6 s on 2 workers"


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
    assert display.tally.spending().startswith(
        "spent 0 s of worker time, price 0.00; forecast 6 min 0 s to 1 h 0 min"
    )
    display.trial(_row(0, "COMPLETE", seconds=100.0))
    display.trial(_row(1, "RUNNING", seconds=80.0, epochs=4, max_epochs=8))
    assert display.tally.spending() == (
        "spent 3 min 0 s of worker time, price 0.10; forecast 7 min 48 s to 54 min 0 s, price 0.26 to 1.80"
    ), "8 trials are to come, at most half of one is left"


def test_the_forecast_is_at_most_the_budget() -> None:
    display, _ = _display()
    display.plan(_plan(budget=600.0))
    display.trial(_row(0, "COMPLETE", seconds=100.0))
    assert display.tally.spending() == "spent 1 min 40 s of worker time; forecast 7 min 4 s to 10 min 0 s"


def test_what_is_spent_is_the_time_that_budgets_count_once_it_is_metered() -> None:
    display = Display(Console(file=StringIO()), trials=10)
    display.meter(lambda: 120.0)
    assert display.tally.spending() == "spent 2 min 0 s of worker time"


def test_a_resumed_search_has_spent_what_it_spent_before() -> None:
    display, screen = _display()
    display.plan(_plan())
    display.take_up([_row(0, "COMPLETE", seconds=100.0)])
    assert screen.getvalue().splitlines()[-1] == "1 trial has ended"
    display.trial(_row(1, "COMPLETE", seconds=50.0))
    assert display.spent() == "spent 2 min 30 s of worker time; the forecast was 7 min 40 s to 1 h 1 min"


def test_the_curve_of_a_resumed_trial_has_its_earlier_epochs_and_each_epoch_once() -> None:
    tally = Tally(trials=4)
    tally.take_up([_row(3, "RUNNING"), _row(1, "COMPLETE")], {3: {1: 0.1, 2: 0.2}, 1: {1: 0.7}})
    for epoch, f1 in ((2, 0.2), (3, 0.3)):  # the checkpoint's epoch is reported again
        tally.epoch(replace(epoch_report(3, [0.1, 0.2, f1][:epoch]).row, epoch=epoch, val_f1=f1))
    assert tally.curve(3) == [0.1, 0.2, 0.3]
    assert tally.curve(1) == [], "an ended trial has no curve on the screen"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59, "59 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_a_duration_is_shown_in_two_units(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_command_is_not_wrapped_on_a_narrow_terminal() -> None:
    display, screen = _display(terminal=True, width=20)
    display.say("interrupted; resume with: genre-search resume 'my runs/first try'")
    assert screen.getvalue().splitlines() == [
        "interrupted; resume",
        "with:",
        "genre-search resume 'my runs/first try'",
    ]
