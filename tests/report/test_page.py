"""The HTML report: it shows the run's tables, whatever state the search is in."""

import io
import json
import re
import shutil
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from conftest import TRIALS, Command
from made_runs import make_finish, make_reportable, make_run
from rich.console import Console

from genre_core.corpus.corpus_table import load_corpus
from genre_core.errors import InputError
from search.config.schema import load
from search.config.space import Space
from search.display.progress import Display
from search.report.page import collect, render
from search.run.lock import driving
from search.run.tables import read_trials
from search.tune import search


@pytest.fixture(scope="module")
def html(run: Path, cache: Path) -> str:
    return render(collect(run, cache=cache))


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A copy of the run for a test to change."""
    return Path(shutil.copytree(run, tmp_path / "tiny"))


def _paragraph(html: str, name: str) -> str:
    """The text of the paragraph with this id."""
    inner = html.split(f'id="{name}">')[1].split("</p>")[0]
    return " ".join(re.sub(r"<[^>]*>", " ", inner).split())


def _numbers(html: str) -> dict[str, str]:
    """Label -> number of the headline."""
    return dict(re.findall(r"<dt>([^<]*)</dt><dd>([^<]*)</dd>", html))


def test_the_command_writes_the_page_into_the_run_and_prints_its_path(
    copy: Path, genre_search: Command
) -> None:
    done = genre_search("report", copy)
    assert re.fullmatch(rf"{copy}/report.html: \d\.\d MiB\n", done.stdout), done.stderr
    assert (copy / "report.html").read_text().startswith("<!doctype html>")


def test_a_folder_without_a_run_is_refused_in_one_line(genre_search: Command, tmp_path: Path) -> None:
    refused = genre_search("report", tmp_path)
    assert refused.returncode == 2
    assert str(tmp_path) in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_the_headline_shows_the_numbers_of_the_tables(run: Path, html: str) -> None:
    trials = read_trials(run).sort_values(["val_f1", "trial"], ascending=[False, True])
    best, counts = trials.iloc[0], trials["state"].value_counts()
    assert _numbers(html) == {
        "complete": str(counts["COMPLETE"]),
        "pruned": str(counts["PRUNED"]),
        "failed": "0",
        f"best validation F1, trial {best.trial}": f"{best.val_f1:.3f}",
    }
    text = " ".join(re.sub(r"<[^>]*>", " ", html.split("<main>")[1]).split())
    assert f"frozen {best.frozen_blocks} of 5 blocks" in text
    assert "60 tracks in 10 genres" in text
    assert f"genre-search finish {run}" in _paragraph(html, "unbiased")


def test_every_trial_has_a_row(run: Path, html: str) -> None:
    for row in read_trials(run).itertuples():
        cells = html.split(f'<tr id="trial-{row.trial}">')[1].split("<tr")[0]
        assert f"<td>{row.state}<td>resnet18<td>{row.val_f1:.3f}" in cells


def test_every_chart_has_its_figure_and_every_colour_is_in_the_style_sheet(html: str) -> None:
    text = html.split('id="figures">')[1].split("</script>")[0]
    assert set(json.loads(text)["figures"]) == set(re.findall(r'data-figure="([^"]*)"', html))
    colours = set(re.findall(r'"var\(--(\w+)\)"', text))
    assert {"backbone0", "ink"} < colours <= set(re.findall(r"--(\w+): light-dark", html))


def test_a_finished_run_shows_its_test_score(copy: Path, cache: Path) -> None:
    best, second = read_trials(copy).sort_values(["val_f1", "trial"], ascending=[False, True])["trial"][:2]
    make_finish(copy, {(best, 1): 0.5, (best, 2): 0.6, (second, 1): 0.4, (second, 2): 0.46})
    html = render(collect(copy, cache=cache))
    assert _numbers(html)[f"test F1, trial {best}"] == "0.550"
    result = _paragraph(html, "unbiased")
    n_test = len(load_corpus(copy / "corpus.parquet").part("test"))
    for value in (
        "test F1 0.550 (",
        f"Trial {best} ",
        " 2 seeds",
        f" {n_test} test tracks",
        f" {TRIALS} trials",
    ):
        assert value in result
    assert "genre-search finish" not in result
    assert {"confusion", "confusion test"} <= set(re.findall(r'data-figure="([^"]*)"', html))


def test_the_report_of_a_running_search_changes_nothing(copy: Path, cache: Path) -> None:
    journal = copy / "study.journal"
    with journal.open("ab") as file:
        file.write(b'{"op_code": 4, "half a li')
    files = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    with driving(copy):
        html = render(collect(copy, cache=cache))
    state = _paragraph(html, "state")
    assert "data-reload" not in html
    assert f"{TRIALS} of up to {TRIALS} trials had ended" in state
    assert f"genre-search report {copy}" in state
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == files


def test_the_contents_lead_to_every_section(html: str) -> None:
    contents = re.findall(r'<a href="#(\w+)">', html)
    assert contents == re.findall(r'<h[12] id="(\w+)">', html)
    assert len(contents) > 8


def test_the_settings_on_the_page_repeat_the_best_trial(run: Path, html: str, tmp_path: Path) -> None:
    file = tmp_path / "best.yaml"
    file.write_text(unescape(html.split('<pre id="yaml">')[1].split("</pre>")[0]))
    best = read_trials(run).sort_values(["val_f1", "trial"], ascending=[False, True]).iloc[0]
    config = load(file, {})
    assert config.space.model_dump() == {name: best[name] for name in Space.model_fields}
    assert (config.trials, config.seed, config.provenance) == (1, best["seed"], None)
    assert config.training == load(run / "config.yaml", {}).training


def test_backbones_are_sorted_by_their_best_f1(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", [(0.1, 0.2, f1) for f1 in (0.3, 0.9, 0.5, 0.4, 0.6, 0.7)])
    make_reportable(run)
    html = render(collect(run, cache=tmp_path))
    table = html.split("<caption>By backbone")[1].split("</table>")[0]
    best = read_trials(run).groupby("backbone")["val_f1"].max().sort_values(ascending=False)
    assert re.findall(r"</span> (\w+)</td>", table) == best.index.tolist()
    assert len(best) == 2


@pytest.mark.parametrize(("optimizer", "shown"), [("sgd", False), ("adamw", True), (["sgd"], True)])
def test_the_optimizer_is_on_the_page_where_it_was_searched_or_is_not_sgd(
    optimizer: Any, shown: bool, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "r", settings={"space.optimizer": optimizer})
    make_reportable(run)
    html = render(collect(run, cache=tmp_path))
    used = read_trials(run)["optimizer"][0]
    assert (f"<td>optimizer</td><td>{used}</td>" in html) == shown
    table = html.split('<table id="trials">')[1].split("</table>")[0]
    assert ('<button type="button">optimizer</button>' in table) == shown
    assert (f"<td>{used}<td>" in table) == shown


def test_equal_kinds_of_errors_are_counted_together(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", [(0.1, 0.2, 0.3), (), ()])
    make_reportable(run)
    html = render(collect(run, cache=tmp_path))
    found = html.split("<summary>2 trials failed: ")[1].split("</summary>")[0]
    assert re.fullmatch(r"2 \W Diverged", found)


def test_a_search_that_has_just_begun_has_a_page_without_charts(copy: Path, cache: Path) -> None:
    shutil.rmtree(copy / "results")
    shutil.rmtree(copy / "models")
    (copy / "study.journal").unlink()
    html = render(collect(copy, cache=cache))
    assert set(_numbers(html).values()) == {"0"}
    assert "data-figure" not in html
    assert not (copy / "study.journal").exists()


def test_a_run_with_a_pruner_of_an_earlier_version_is_reported_but_not_resumed(
    copy: Path, cache: Path
) -> None:
    settings = copy / "config.yaml"
    settings.write_text(settings.read_text().replace("name: median", "name: wilcoxon"))
    config, screen = load(settings, {"trials": TRIALS + 1}), Display(Console(file=io.StringIO()))
    assert "wilcoxon" in render(collect(copy, cache=cache))
    with pytest.raises(InputError) as caught:
        search.resume(config, folder=copy, cache=cache, reporter=screen)
    for part in ("'wilcoxon'", "--warm-start"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_study_is_refused_with_its_path(copy: Path, cache: Path) -> None:
    journal = copy / "study.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:3], b"nonsense\n", *lines[3:]]))
    with pytest.raises(InputError) as caught:
        collect(copy, cache=cache)
    assert str(journal) in str(caught.value)
