"""Several runs side by side: one table, one ranking, and a line for each run with scores that are not comparable."""

import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import TRIALS, Command

from genre_core.corpus.corpus_table import load_corpus, write_corpus
from genre_core.corpus.tracks import Corpus
from search.run import ranking
from search.run.tables import read_trials


def test_runs_are_compared_and_ranked_together(run: Path, genre_search: Command, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(run, again)
    trials = read_trials(run)
    both = genre_search("results", run, again, "--state", "complete", "--top", 3, "--sort", "seconds")
    assert both.returncode == 0, both.stderr
    head, first, second, _, titles, *rows = (
        both.stdout.splitlines()
    )  # no line about scores that do not compare
    assert (head.split()[:2], titles.split()[:2]) == (["run", "F1"], ["run", "trial"])
    assert (first.split()[0], second.split()[0]) == ("tiny", "again")
    counts = trials["state"].value_counts()
    assert first.split()[1] == f"{trials['val_f1'].max():.3f}"
    assert first.split()[2] == str(ranking.select(trials)["trial"].iloc[0])
    assert first.split()[7:11] == [str(counts.get(s, 0)) for s in ("COMPLETE", "PRUNED", "FAIL", "RUNNING")]
    fastest = trials[trials["state"] == "COMPLETE"]["seconds"].min()
    assert [row.split()[0] for row in rows[:2]] == ["tiny", "again"]
    assert rows[0].split()[-2:] == rows[1].split()[-2:] == [f"{fastest:.1f}", "s"]
    assert len(rows) == 3
    table = genre_search("results", run, again, "--csv").stdout.splitlines()
    assert len(table) == 1 + 2 * TRIALS
    assert {line.split(",")[0] for line in table[1:]} == {"tiny", "again"}


@pytest.mark.parametrize(
    ("setting", "value", "differs"),
    [
        ("front_end: mel64", "front_end: mel128", "front_end"),
        ("level: track\n", "", "level"),
        ("split", None, "split"),
    ],
)
def test_a_setting_that_makes_scores_incomparable_is_named(
    setting: str, value: str | None, differs: str, run: Path, genre_search: Command, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(run, other)
    if value is not None:
        config = other / "config.yaml"
        text = config.read_text()
        assert setting in text
        config.write_text(text.replace(setting, value))
    else:
        first, *rest = load_corpus(other / "corpus.parquet").tracks
        moved = replace(first, split="test" if first.split != "test" else "train")
        write_corpus(Corpus((moved, *rest)), other / "corpus.parquet")
    line = genre_search("results", run, other).stdout.splitlines()[3]
    assert {"other", "tiny"} <= set(line.split())
    assert line.endswith(f": {differs}")


def test_results_name_the_run_that_has_running_trials_and_no_driver(
    run: Path, genre_search: Command, tmp_path: Path
) -> None:
    left = tmp_path / "left"
    shutil.copytree(run, left)
    file = left / "results" / "trials.parquet"
    table = pq.read_table(file)
    rows = table.to_pylist()
    rows[-1] |= {"state": "RUNNING", "finished": None}
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), file)
    for runs in ([left], [run, left]):
        shown = genre_search("results", *runs).stdout
        assert shown.rstrip().endswith(f"genre-search resume {left}")
        assert shown.count("genre-search resume") == 1
