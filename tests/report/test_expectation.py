"""The sentence about the best validation F1: what to expect on new tracks, or that it is not known."""

from pathlib import Path

import pytest
from made_runs import make_run

from search.report.expectation import describe, sentence
from search.report.leaderboard import expected
from search.report.winner import best_trial
from search.run.optimism import Optimism
from search.run.tables import read_trials


@pytest.mark.parametrize(
    ("found", "parts"),
    [
        (
            Optimism(value=0.04, looks=135, trials=27, missing=0),
            ("0.787", "about 0.75", "135 epochs of 27 trials: 0.04"),
        ),
        (
            Optimism(value=0.0, looks=1, trials=1, missing=2),
            ("about 0.79", "1 epoch of 1 trial: 0.00", "2 more"),
        ),
        (
            Optimism(value=0.04, looks=135, trials=27, missing=0, at_least=True),
            ("at most 0.75", "at least 0.04", "single group"),
        ),
        (None, ("0.787", "not known", "30 trials", "each genre has one")),
    ],
)
def test_the_sentence_has_the_scores_and_the_number_of_looks(
    found: Optimism | None, parts: tuple[str, ...]
) -> None:
    text = describe(0.787, found, trials=30)
    assert all(part in text for part in parts)


def test_a_run_without_predictions_says_that_the_optimism_is_not_known(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r")
    (line,) = expected(run, read_trials(run))
    assert line.plain.startswith("best validation F1 0.800; ")
    assert "not known" in line.plain
    assert "earlier versions" in line.plain
    assert any("not known" in str(part) for part in best_trial(run))


def test_a_run_without_scores_has_no_sentence(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", ((), ()))
    assert sentence(run, read_trials(run)) is None
