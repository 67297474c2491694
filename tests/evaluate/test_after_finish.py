"""Extending a search after its test set was used: only on request, and all reports mention it."""

import re
import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import TRIALS, Command
from made_runs import Quiet, make_finish, make_run
from reporters import unseen_display
from rich.console import Console
from without_ray import by_torch, searches_in_process

from genre_core.errors import InputError
from genre_core.models.artifact import read_card
from search.config.schema import SearchConfig, load
from search.errors import SearchErrorCode
from search.export.model_card import readme
from search.report.finished import verdict
from search.report.page import collect, render
from search.report.winner import best_trial
from search.run import ranking
from search.run.identity import EXTENDED, read_provenance
from search.run.model_store import kept_models
from search.run.tables import (
    read_finish,
    read_test_use,
    read_trials,
    write_test_tracks,
)
from search.tune import search


def _finish(run: Path) -> None:
    """Use the test set as `finish` does, with made-up models of the best two trials."""
    make_finish(run, {(trial, 1): 0.25 for trial in ranking.select(read_trials(run)).head(2)["trial"]})


@pytest.fixture
def finished(run: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(run, tmp_path / "tiny"))
    _finish(folder)
    return folder


@pytest.fixture(scope="module")
def extended(run: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search with one more trial, which is the best of all; tests leave it as it is."""
    folder = Path(shutil.copytree(run, tmp_path_factory.mktemp("extended") / "tiny"))
    _finish(folder)
    config = load(folder / "config.yaml", {"trials": TRIALS + 1})
    screen = unseen_display()
    with searches_in_process(by_torch):
        assert search.resume(config, folder=folder, cache=cache, reporter=screen, after_finish=True)
    file = folder / "results" / "trials.parquet"
    table = pq.read_table(file)
    rows = table.to_pylist()
    rows[-1] |= {"val_f1": 0.987}
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), file)
    return folder


def _text(parts: list[Any]) -> str:
    screen = StringIO()
    for part in parts:
        Console(file=screen, width=300).print(part, soft_wrap=True)
    return screen.getvalue()


def _more(config: SearchConfig, folder: Path, cache: Path) -> None:
    search.resume(config, folder=folder, cache=cache, reporter=Quiet())


def test_a_finished_search_is_extended_only_on_request(finished: Path, cache: Path) -> None:
    with pytest.raises(InputError) as refused:
        _more(load(finished / "config.yaml", {"trials": TRIALS + 1}), finished, cache)
    assert refused.value.code is SearchErrorCode.TEST_SET_USED
    assert load(finished / "config.yaml", {}).trials == TRIALS
    assert EXTENDED not in read_provenance(finished)
    assert len(read_trials(finished)) == TRIALS


def test_a_search_whose_finish_was_interrupted_is_extended_only_on_request(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", ((0.2, 0.5, 0.4), (0.3, 0.1)), running=True)
    write_test_tracks(run, [])
    with pytest.raises(InputError) as refused:
        _more(load(run / "config.yaml", {}), run, tmp_path / "cache")
    assert refused.value.code is SearchErrorCode.TEST_SET_USED
    assert read_trials(run)["state"].tolist() == ["COMPLETE", "RUNNING"]


def test_the_command_refuses_with_one_line_and_both_ways_out(finished: Path, genre_search: Command) -> None:
    refused = genre_search("resume", finished, "--trials", TRIALS + 1)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "--after-finish" in refused.stderr
    assert f"--warm-start {finished}" in refused.stderr
    assert genre_search("resume", finished).returncode == 0, "with nothing to add there is nothing to refuse"


def test_the_state_of_the_search_when_its_test_set_was_used_is_kept(extended: Path) -> None:
    use = read_test_use(extended)
    assert use is not None
    assert (use.trials, use.scored) == (TRIALS, TRIALS)
    then = ranking.select(read_trials(extended).head(TRIALS)).head(2)
    assert [found["trial"] for found in use.configurations] == then["trial"].tolist()
    assert [found["val_f1"] for found in use.configurations] == then["val_f1"].tolist()
    [extension] = read_provenance(extended)[EXTENDED]
    assert extension["trials"] == TRIALS
    assert len(read_trials(extended)) == TRIALS + 1


def test_for_a_run_of_an_earlier_version_the_trials_started_by_then_are_counted(
    extended: Path, tmp_path: Path
) -> None:
    old = Path(shutil.copytree(extended, tmp_path / "tiny"))
    file = old / "results" / "test_tracks.parquet"
    table = pq.read_table(file)
    at = sorted(read_trials(old)["started"])[TRIALS - 1]
    metadata = {b"test_part_read": at.isoformat().encode()}
    pq.write_table(table.replace_schema_metadata(metadata), file)
    use = read_test_use(old)
    assert use is not None
    assert (use.trials, use.scored, use.configurations) == (TRIALS, TRIALS, ())


@pytest.mark.parametrize(
    "shown",
    [
        lambda run: _text(verdict(run)),
        lambda run: _text(best_trial(run)),
        lambda run: _card(run),
        lambda run: _plain(render(collect(run, cache=run / "no-cache"))),
    ],
    ids=["finish", "best", "model card", "report"],
)
def test_an_extension_is_shown(extended: Path, finished: Path, shown: Callable[[Path], str]) -> None:
    text = " ".join(shown(extended).split())
    assert "by 1 trial:" in text
    assert f"first {TRIALS} trials" in text
    assert "extended after" not in shown(finished)


def _card(run: Path) -> str:
    model = kept_models(run)[0]
    return readme(run, model, card=read_card(model), onnx_difference=None)


def _plain(html: str) -> str:
    body = re.sub(r"<(script|style).*?</\1>", "", html, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", body).split())


def test_each_number_of_the_report_is_labelled_with_its_trial(extended: Path) -> None:
    chosen = int(read_finish(extended)["trial"].iloc[0])
    text = _plain(render(collect(extended, cache=extended / "no-cache")))
    assert f"best validation F1, trial {TRIALS} 0.987" in text
    assert f"test F1, trial {chosen} 0.250" in text
    assert chosen != TRIALS
    assert f"Validation, trial {TRIALS}, the best on validation, " in text
    assert f"Test, trial {chosen}, the winner of finish, retrained, " in text
    assert f"F1 by genre, trial {chosen} " in text


def test_the_confusion_matrix_of_validation_is_of_the_best_trial_and_that_of_the_test_set_of_the_winner(
    extended: Path,
) -> None:
    found = collect(extended, cache=extended / "no-cache")
    assert found.examined == int(read_finish(extended)["trial"].iloc[0])
    assert found.best_epoch is not None
    assert found.best_epoch["trial"] == found.examined
    assert found.best is not None
    assert found.best["trial"] == TRIALS
    assert found.best_validation is not None
    assert found.best_validation["trial"] == TRIALS


def test_best_names_the_trial_of_each_score(extended: Path) -> None:
    chosen = int(read_finish(extended)["trial"].iloc[0])
    text = _text(best_trial(extended))
    assert f"Trial {TRIALS} of {extended}: validation F1 0.987" in text
    assert re.search(rf"trial {chosen}, the best of {TRIALS} trials .*: test F1 0\.250", text)
    assert f"trial {TRIALS} has no test score" in text
