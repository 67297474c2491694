"""Tables and lines fit the screen: the least important columns go, and no value is cut."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from corpora import flat
from made_runs import make_finish, make_run, trial_row
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from genre_core.corpus.corpus_table import write_corpus
from genre_core.corpus.tracks import Corpus
from search.report import comparison, leaderboard, winner
from search.report.finished import verdict
from search.report.fitting import FittedTable, fitted, wrapped, wrapped_text
from search.report.formatting import bar, counted, sparkline
from search.report.trial_table import trial_table
from search.run.tables import read_trials

WIDTHS = (60, 80, 100, 120)
LONG = "demo-20261126-012744"
"""A run name as `run` chooses it."""
ROWS = [
    trial_row(
        number,
        study=LONG,
        state="PRUNED",
        stopped="worker budget" if number == 999 else None,
        backbone="densenet121",
        learning_rate=0.000123456,
        momentum=0.987654,
        epochs=20,
        max_epochs=20,
        seconds=4321.0,
        val_f1=0.6789,
        val_accuracy=0.6,
        val_precision=0.6,
        val_recall=0.6,
    )
    for number in (7, 999)
]


def rendered(parts: Sequence[Any], width: int) -> list[str]:
    """The lines of a terminal of this width."""
    screen = StringIO()
    console = Console(file=screen, force_terminal=True, color_system=None, width=width)
    for part in parts:
        console.print(fitted(part, console), soft_wrap=True)
    return [line.rstrip() for line in screen.getvalue().splitlines()]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("of_several", [False, True])
def test_trials_show_their_f1_learning_rate_and_names_whole_at_any_width(
    width: int, of_several: bool
) -> None:
    lines = rendered([trial_table(ROWS, of_several=of_several)], width)
    assert max(map(cell_len, lines)) <= width
    for line in lines[1:]:
        for value in ("0.679", "0.000123", "densenet121", *([LONG] if of_several else [])):
            assert value in line
    assert "…" not in "".join(lines)


def test_the_least_important_columns_go_first() -> None:
    table = trial_table(ROWS[:1])
    shown = {width: table.shown(width) for width in (*WIDTHS, 140)}
    assert shown[140][-1] == "time"
    for wide, narrow in ((140, 120), (120, 100), (100, 80), (80, 60)):
        assert set(shown[narrow]) < set(shown[wide]) or shown[narrow] == shown[wide]
    assert not {"recall", "precision", "accuracy"} & set(shown[80])
    assert {"trial", "F1", "backbone", "lr"} <= set(shown[60])


def test_a_name_that_is_wider_than_the_screen_is_folded_and_not_cut() -> None:
    table = FittedTable("run", "F1", left=("run",))
    table.add_row("a" * 50 + "b" * 50, "0.679")
    lines = rendered([table], 60)
    assert max(map(cell_len, lines)) <= 60
    assert "".join(line.split()[0] for line in lines[1:]) == "a" * 50 + "b" * 50


def test_a_cell_is_no_markup() -> None:
    table = FittedTable("run", left=("run",))
    table.add_row("[bold]x[/bold]")
    assert rendered([table], 60)[1] == "[bold]x[/bold]"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs with long names, of which the first is finished."""
    folder = tmp_path_factory.mktemp("r")
    made = [make_run(folder / f"{LONG}{end}") for end in ("-a", "-b")]
    for run in made:
        write_corpus(_split(flat(blues=9, rock=9)), run / "corpus.parquet")
    make_finish(made[0], {(2, 1): 0.5, (2, 2): 0.6, (0, 1): 0.4, (0, 2): 0.3})
    return made


def _split(corpus: Corpus) -> Corpus:
    """A corpus with as many tracks of each genre in each part."""
    parts = ("train", "validation", "test")
    return Corpus(
        tuple(
            replace(track, split=parts[index % 3], content=track.track_id)
            for index, track in enumerate(corpus.tracks)
        )
    )


SCREENS: dict[str, Callable[[list[Path]], list[Any]]] = {
    "results": lambda runs: [
        leaderboard.table(read_trials(runs[0])),
        leaderboard.summary(read_trials(runs[0])),
    ],
    "costs": lambda runs: leaderboard.costs(read_trials(runs[0])),
    "results of several": lambda runs: [
        *comparison.compare(runs, comparison.read_together(runs)),
        leaderboard.table(comparison.read_together(runs), of_several=True),
    ],
    "best": lambda runs: winner.best_trial(runs[0]),
    "finish": lambda runs: verdict(runs[0]),
}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("screen", SCREENS)
def test_every_screen_about_a_run_fits_and_keeps_f1_learning_rate_and_names(
    screen: str, width: int, runs: list[Path]
) -> None:
    lines = rendered(SCREENS[screen](runs), width)
    paths = [str(path) for path in runs]
    assert [line for line in lines if cell_len(line) > width and not any(p in line for p in paths)] == []
    text = "\n".join(lines)
    assert "…" not in text
    trials = read_trials(runs[0])
    if screen != "costs":
        best = trials.iloc[int(trials["val_f1"].argmax())]
        assert f"{best.val_f1:.3f}" in text
        assert f"{best.learning_rate:.3g}" in text
        assert best.backbone in text
    if screen == "results of several":
        assert all(any(line.startswith(run.name) for line in lines) for run in runs)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_sentence_is_wrapped_at_words_and_its_command_stays_whole(width: int) -> None:
    command = "genre-search resume 'runs/my first run of a very long name' --time-budget 2h --workers 3"
    text = f"3 trials are RUNNING, but no process on this machine drives the run. Continue with: {command}"
    lines = wrapped(text, width).split("\n")
    assert lines[-1].endswith(command)
    assert max(map(len, lines[:-1])) <= width
    assert " ".join(lines) == text
    assert wrapped_text(Text(text, style="yellow"), width).plain.split("\n") == lines


def test_a_semicolon_ends_the_command_of_a_sentence() -> None:
    text = "see genre-search results r; " + "word " * 20
    assert max(map(len, wrapped(text.strip(), 40).split("\n"))) <= 40


def test_styles_of_a_text_survive_wrapping() -> None:
    text = Text("plain words ")
    text.append("red words that go on", style="red")
    found = wrapped_text(text, 12)
    assert {span.style for span in found.spans} == {"red"}
    assert " ".join(found.plain[span.start : span.end] for span in found.spans).split() == [
        "red",
        "words",
        "that",
        "go",
        "on",
    ]


@pytest.mark.parametrize(
    ("share", "shown"), [(0.0, ""), (0.5, "██"), (1.0, "████"), (0.03, "▏"), (7.0, "████"), (0.28, "█▏")]
)
def test_a_bar_has_eighths_of_a_character(share: float, shown: str) -> None:
    assert bar(share, 4) == shown


def test_a_sparkline_is_highest_at_the_highest_value() -> None:
    assert sparkline([0.0, 0.4, 0.8], 0.8) == "▁▅█"
    assert sparkline([], 0.8) == ""


@pytest.mark.parametrize(("number", "words"), [(0, "0 trials"), (1, "1 trial"), (1200, "1,200 trials")])
def test_a_count_agrees_with_its_noun(number: int, words: str) -> None:
    assert counted(number, "trial") == words
