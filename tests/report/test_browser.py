"""The HTML report in a browser: charts, theme, table and hostile names, without errors or network requests."""

import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import TRIALS
from made_runs import make_reportable, make_run
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from genre_core.corpus.corpus_table import load_corpus, write_corpus
from genre_core.corpus.tracks import Corpus
from search.report.importance import FROZEN
from search.report.page import collect, render, write_report
from search.run.lock import driving
from search.run.tables import read_trials

CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")
HOSTILE = "<script>document.title='taken'</script>"


@pytest.fixture(scope="module")
def page(run: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render(collect(run, cache=cache)))
    return path


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with enough trials for surfaces."""
    folder = tmp_path_factory.mktemp("large") / "r"
    f1 = np.random.default_rng(0).uniform(0.2, 0.8, (24, 3)).tolist()
    run = make_run(folder, f1)
    make_reportable(run)
    return run


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    """One browser for all tests, which logs its messages and network requests."""
    if not (CHROMIUM and CHROMEDRIVER):
        pytest.skip("Chromium and its driver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-background-networking"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with webdriver.Chrome(options, webdriver.ChromeService(CHROMEDRIVER)) as driver:
        driver.set_script_timeout(150)
        yield driver


def _open(browser: webdriver.Chrome, path: Path, width: int = 1280) -> None:
    """Open the page and wait until all charts are drawn."""
    screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.get(path.as_uri())
    browser.execute_async_script(
        "charts.forEach(draw); Promise.all(charts.map(c => c.turn)).then(arguments[0])"
    )


def _log(browser: webdriver.Chrome, kind: str) -> list[dict[str, Any]]:
    """The log entries since the last call."""
    return list(browser.get_log(kind))  # type: ignore[no-untyped-call]


def _click(browser: webdriver.Chrome, selector: str) -> None:
    """Press a button and wait until the charts are drawn again."""
    browser.find_element(By.CSS_SELECTOR, selector).click()
    browser.execute_async_script("Promise.all(charts.map(c => c.turn)).then(arguments[0])")


@pytest.mark.parametrize("width", [1280, 390])
def test_every_chart_is_drawn_without_an_error_or_a_network_request(
    width: int, page: Path, browser: webdriver.Chrome
) -> None:
    _log(browser, "performance")
    _open(browser, page, width)
    drawn = browser.execute_script("return charts.map(c => c.querySelectorAll('.main-svg').length > 0)")
    assert len(drawn) == page.read_text().count('class="chart"') >= 10
    assert all(drawn)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert _log(browser, "browser") == []
    events = [json.loads(entry["message"])["message"] for entry in _log(browser, "performance")]
    requests = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert [url for url in requests if not url.startswith(("data:", "blob:"))] == [page.as_uri()]


def test_charts_are_drawn_when_they_scroll_into_view(page: Path, browser: webdriver.Chrome) -> None:
    browser.get(page.as_uri())
    browser.execute_async_script(
        """const done = arguments[0];
        const look = () => charts[0].dataset.drawn ? done() : (charts[0].scrollIntoView(), setTimeout(look, 20));
        look();"""
    )
    assert browser.execute_script("return charts.at(-1).dataset.drawn") is None


def test_the_theme_follows_the_system_until_the_button_is_pressed(
    page: Path, browser: webdriver.Chrome
) -> None:
    colours = "return [getComputedStyle(document.body).color, charts[0].querySelector('.xtitle').style.fill]"
    ink = {"light": "rgb(29, 33, 41)", "dark": "rgb(230, 232, 236)"}
    for system, other in (("dark", "light"), ("light", "dark")):
        preferred = [{"name": "prefers-color-scheme", "value": system}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": preferred})
        _open(browser, page)
        assert browser.execute_script(colours) == [ink[system]] * 2
        _click(browser, "#theme")
        assert browser.execute_script(colours) == [ink[other]] * 2
    assert _log(browser, "browser") == []


def test_the_table_can_be_sorted_and_filtered_and_a_trial_found_in_it(
    run: Path, page: Path, browser: webdriver.Chrome
) -> None:
    _open(browser, page)
    shown = "return rows.filter(r => !r.hidden).length"
    order = "return [...body.rows].map(r => parseFloat(r.cells[11].dataset.sort))"
    seconds = read_trials(run)["seconds"]
    for ascending in (True, False):
        browser.execute_script("table.tHead.rows[0].cells[11].firstChild.click()")
        assert browser.execute_script(order) == sorted(seconds, reverse=not ascending)
    browser.find_element(By.ID, "filter").send_keys("RESNET18 pruned")
    assert browser.execute_script(shown) == (read_trials(run)["state"] == "PRUNED").sum()
    browser.execute_script("find(0)")
    assert browser.execute_script("return document.querySelector('tr.found').id") == "trial-0"


def test_the_csv_has_the_rows_that_the_table_shows_in_its_order(
    run: Path, page: Path, browser: webdriver.Chrome
) -> None:
    _open(browser, page)
    trials = read_trials(run).set_index("trial", drop=False)
    browser.execute_script("table.tHead.rows[0].cells[0].firstChild.click()")
    browser.execute_script("table.tHead.rows[0].cells[0].firstChild.click()")
    browser.find_element(By.ID, "filter").send_keys("complete")
    found = pd.read_csv(io.StringIO(browser.execute_script("return shownAsCsv()")))
    expected = trials[trials["state"] == "COMPLETE"].sort_index(ascending=False)
    assert found["trial"].tolist() == expected["trial"].tolist()
    assert found["learning_rate"].tolist() == expected["learning_rate"].tolist()
    assert set(trials.columns) == set(found.columns)


def test_the_settings_of_the_best_trial_are_copied(page: Path, browser: webdriver.Chrome) -> None:
    _open(browser, page)
    button = browser.find_element(By.CSS_SELECTOR, "[data-copy]")
    button.click()
    WebDriverWait(browser, 10).until(lambda _: button.text == "Copied")
    assert _log(browser, "browser") == []


def test_the_table_shows_where_it_goes_on(page: Path, browser: webdriver.Chrome) -> None:
    _open(browser, page, width=390)
    more = "return scroller.parentNode.classList.contains('more-right')"
    browser.execute_script("scroller.scrollIntoView()")
    WebDriverWait(browser, 10).until(lambda _: browser.execute_script(more))
    browser.execute_script("scroller.scrollLeft = 1e6")
    WebDriverWait(browser, 10).until(lambda _: not browser.execute_script(more))


def test_a_pair_of_hyperparameters_is_chosen(large: Path, browser: webdriver.Chrome, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(large, path, cache=tmp_path)
    _open(browser, path)
    drawn = """return charts.filter(c => c.dataset.figure.startsWith('contour') && c.offsetParent !== null
        && c.querySelector('.contour path')).map(c => c.dataset.figure)"""
    first = browser.execute_script(drawn)
    _click(browser, "[data-show=pair-3]")
    browser.execute_async_script(
        "charts.forEach(draw); Promise.all(charts.map(c => c.turn)).then(arguments[0])"
    )
    third = browser.execute_script(drawn)
    assert {name.rpartition(" ")[0] for name in first} == {"contour learning_rate momentum"}
    assert {name.rpartition(" ")[0] for name in third} == {f"contour momentum {FROZEN}"}
    assert _log(browser, "browser") == []


def test_a_page_that_is_rewritten_reloads_itself_and_keeps_what_its_reader_set(
    large: Path, cache: Path, browser: webdriver.Chrome, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    with driving(large):
        write_report(large, path, cache=cache, reload_seconds=1)
    _open(browser, path)
    browser.execute_script("isInUse = () => !window.ready")
    for selector in ("[data-backbone=resnet18]", "#theme", "[data-show=pair-2]"):
        browser.execute_script(f"document.querySelector('{selector}').click()")
    browser.find_element(By.ID, "filter").send_keys("complete")
    browser.execute_script("heads[3].firstChild.click(); scrollTo(0, 1234)")
    seen = """return [scrollY, filter.value, heads[3].getAttribute('aria-sort'), root.dataset.theme, [...hidden],
        pairs.findIndex(b => b.getAttribute('aria-pressed') === 'true'), rows.filter(r => !r.hidden).length]"""
    before = browser.execute_script(seen)
    assert before[:3] == [1234, "complete", "ascending"]
    assert before[4:6] == [["resnet18"], 1]
    write_report(large, path, cache=cache)  # the last one
    browser.execute_script("window.ready = true")
    WebDriverWait(browser, 60).until(
        lambda _: browser.execute_script(
            "return window.ready === undefined && document.readyState === 'complete'"
        )
    )
    assert browser.execute_script(seen) == before
    assert browser.execute_script("return document.body.dataset.reload") is None
    assert _log(browser, "browser") == []


def test_hiding_a_backbone_hides_it_in_a_chart(page: Path, browser: webdriver.Chrome) -> None:
    _open(browser, page)
    points = "return document.querySelectorAll('[data-figure=history] .point').length"
    assert browser.execute_script(points) == TRIALS
    _click(browser, "[data-backbone=resnet18]")
    assert browser.execute_script(points) == 0


def test_names_given_by_users_are_text_and_never_markup(
    run: Path, cache: Path, browser: webdriver.Chrome, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "tiny"))
    corpus = load_corpus(copy / "corpus.parquet")
    old = corpus.genres[0]
    tracks = [
        replace(track, genre=HOSTILE, track_id=f"{HOSTILE}{track.track_id}") if track.genre == old else track
        for track in corpus.tracks
    ]
    write_corpus(Corpus(tuple(tracks)), copy / "corpus.parquet")
    renamed = {track.track_id: changed.track_id for track, changed in zip(corpus.tracks, tracks, strict=True)}
    for file in (copy / "models").glob("*/model.json"):
        card = json.loads(file.read_text())
        card["genres"][card["genres"].index(old)] = HOSTILE
        card["split"]["validation"] = [renamed[name] for name in card["split"]["validation"]]
        file.write_text(json.dumps(card))
    path = tmp_path / "a new folder" / "report.html"
    write_report(copy, path, cache=cache)
    assert HOSTILE not in path.read_text()
    _open(browser, path)
    assert browser.title.startswith("tiny ")
    assert _log(browser, "browser") == []
    assert HOSTILE in browser.find_element(By.TAG_NAME, "main").text
    labels = browser.execute_script(
        "return [...document.querySelectorAll('[data-figure=confusion] .xtick text')].map(t => t.textContent)"
    )
    assert f"{HOSTILE[:17]}…" in labels
