"""What a reader can take from the report."""

import io
from pathlib import Path

import pandas as pd
import pytest
from made_runs import make_reportable, make_run

from search.config.schema import load
from search.config.space import Space
from search.report.downloads import csv_lines
from search.report.page import collect
from search.run import ranking
from search.run.tables import read_trials

OLD = Path(__file__).parents[1] / "data" / "run_of_0_1"


def test_the_lines_of_the_csv_are_the_table(tmp_path: Path) -> None:
    trials = read_trials(make_run(tmp_path / "r")).assign(error='a "quoted", error\nof two lines')
    header, *lines = csv_lines(trials)
    assert len(lines) == len(trials)
    for index, line in enumerate(lines):
        found = pd.read_csv(io.StringIO(header + line)).iloc[0]
        assert (found["trial"], found["val_f1"]) == (trials.at[index, "trial"], trials.at[index, "val_f1"])
        assert found["error"] == 'a "quoted", error\nof two lines'


@pytest.mark.parametrize("old", [False, True])
def test_the_settings_of_the_best_trial_are_a_configuration(old: bool, tmp_path: Path) -> None:
    run = OLD if old else make_run(tmp_path / "r")
    row = ranking.select(read_trials(run)).iloc[0]
    settings = collect(run if old else _reportable(run), cache=tmp_path).settings
    assert settings
    file = tmp_path / "best.yaml"
    file.write_text(settings)
    config = load(file, {})
    known = [name for name in Space.model_fields if not pd.isna(row[name])]
    assert {"backbone", "learning_rate", "frozen_blocks"} <= set(known)
    assert all(getattr(config.space, name) == row[name] for name in known)
    assert (config.trials, config.training.epochs) == (1, row["max_epochs"])


def _reportable(run: Path) -> Path:
    make_reportable(run)
    return run
