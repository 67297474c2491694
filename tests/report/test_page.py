"""The report: what it says is what the run's tables say, and a browser shows it without a mistake or a request."""

import base64
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import plotly.graph_objects
import pytest
import soundfile
from conftest import TRIALS, Command
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from PIL import Image
from rich.console import Console
from selenium import webdriver
from selenium.webdriver.common.by import By

from genre_core.audio import decode
from genre_core.audio.mel import front_end
from genre_core.corpus.spectrogram_store import open_or_build
from genre_core.corpus.tracks import Corpus, load_corpus, write_corpus
from genre_core.errors import InputError
from search.cli.progress import Display
from search.config.schema import load
from search.report import charts
from search.report.importance import FROZEN, importances, seed_noise
from search.report.misclassified import SAMPLE_RATE, worst_tracks
from search.report.page import Facts, facts, page, write_report
from search.report.time_accounting import time_spent
from search.run.lock import driving
from search.run.model_store import kept_card
from search.run.tables import FINISH, read_epochs, read_trials, write_finish, write_test_tracks
from search.tune import search

CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")
HOSTILE = "<script>document.title='taken'</script>"


@pytest.fixture(scope="module")
def found(run: Path, cache: Path) -> Facts:
    return facts(run, cache=cache)


@pytest.fixture(scope="module")
def html(found: Facts) -> str:
    return page(found)


@pytest.fixture(scope="module")
def text(html: str) -> str:
    """What stands between the tags."""
    body = re.sub(r"<(script|style).*?</\1>", "", html, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", body).split())


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A run of one's own to change."""
    return Path(shutil.copytree(run, tmp_path / "tiny"))


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    """One for all tests, which notes what it asks the network for."""
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
    """The page with all charts drawn."""
    screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.get(path.as_uri())
    browser.execute_async_script(
        "charts.forEach(draw); Promise.all(charts.map(c => c.turn)).then(arguments[0])"
    )


def _log(browser: webdriver.Chrome, kind: str) -> list[dict[str, Any]]:
    """What was logged since it was last asked for."""
    return list(browser.get_log(kind))  # type: ignore[no-untyped-call]


def _click(browser: webdriver.Chrome, selector: str) -> None:
    """Press a button and wait until what it changes is drawn."""
    browser.find_element(By.CSS_SELECTOR, selector).click()
    browser.execute_async_script("Promise.all(charts.map(c => c.turn)).then(arguments[0])")


def _finish(run: Path, test_f1: dict[tuple[int, int], float]) -> Corpus:
    """Tables as `finish` writes them, of made-up models: (trial, seed) -> F1, the winner's first."""
    corpus = load_corpus(run / "corpus.parquet")
    ranks = {trial: rank for rank, trial in enumerate(dict.fromkeys(t for t, _ in test_f1), start=1)}
    n_genres = len(corpus.genres)
    rows = [
        dict.fromkeys(FINISH.names, 0.5)
        | {"study": "tiny", "backbone": "resnet18", "rank": ranks[trial], "trial": trial, "seed": seed}
        | {"frozen_blocks": 3, "epochs": 2, "test_f1": f1, "test_f1_low": f1 - 0.1, "test_f1_high": f1 + 0.1}
        | {"f1_per_genre": [f1] * n_genres, "confusion": np.eye(n_genres, dtype=int).tolist()}
        for (trial, seed), f1 in test_f1.items()
    ]
    said = [
        {"trial": trial, "seed": seed, "track_id": track.track_id, "genre": track.genre}
        | {"predicted": track.genre, "probabilities": [1 / n_genres] * n_genres}
        for trial, seed in test_f1
        for track in corpus.part("test")
    ]
    write_test_tracks(run, said)
    write_finish(run, rows)
    return corpus


def test_the_command_writes_the_page_into_the_run_and_says_so(copy: Path, genre_search: Command) -> None:
    done = genre_search("report", copy)
    assert re.fullmatch(rf"{copy}/report.html: \d\.\d MiB\n", done.stdout), done.stderr
    assert (copy / "report.html").read_text().startswith("<!doctype html>")


def test_what_is_no_run_is_one_line(genre_search: Command, tmp_path: Path) -> None:
    refused = genre_search("report", tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: RUN must be the folder of a search")
    assert refused.stderr.count("\n") == 1


def test_the_headline_says_what_the_tables_say(run: Path, text: str) -> None:
    trials = read_trials(run).sort_values(["val_f1", "trial"], ascending=[False, True])
    best = trials.iloc[0]
    counts = trials["state"].value_counts()
    assert f"complete {counts['COMPLETE']} pruned {counts['PRUNED']} failed 0" in text
    assert f"best validation F1, trial {best.trial} {best.val_f1:.3f}" in text
    assert f"trial {best.trial} , {best.backbone} with {best.frozen_blocks} of 5 blocks frozen" in text
    assert "on 60 tracks in 10 genres" in text
    assert "nothing was running" in text
    assert "The test part has not been read" in text
    assert "the seed's noise is unknown" in text or "Too few trials are complete to say" in text


def test_every_trial_has_its_row(run: Path, html: str) -> None:
    for row in read_trials(run).itertuples():
        cells = html.split(f'<tr id="trial-{row.trial}">')[1].split("<tr")[0]
        assert f"<td>{row.state}<td>resnet18<td>{row.val_f1:.3f}" in cells


def test_figures_are_what_plotly_takes(html: str) -> None:
    figures = json.loads(html.split('id="figures">')[1].split("</script>")[0])
    assert set(figures) == set(re.findall(r'data-figure="([^"]*)"', html))
    for figure in figures.values():
        plain = json.loads(re.sub(r'"\$\w+"', '"red"', json.dumps(figure)))
        plotly.graph_objects.Figure(plain)  # raises at a property that there is not


def test_every_colour_of_a_figure_is_in_the_style_sheet(html: str) -> None:
    named = set(re.findall(r'"\$(\w+)"', html.split('id="figures">')[1].split("</script>")[0]))
    assert "backbone0" in named
    assert named <= set(re.findall(r"--(\w+): light-dark", html))


def test_learning_curves_hold_every_epoch(run: Path, found: Facts) -> None:
    epochs = read_epochs(run)
    figure = charts.curves(found.trials, epochs, ["resnet18"], None)["resnet18"]
    drawn = [
        (trial, x, y)
        for trace in figure["data"]
        if trace["mode"] == "lines"
        for trial, x, y in zip(trace["customdata"], trace["x"], trace["y"], strict=True)
        if x is not None
    ]
    expected = epochs[["trial", "epoch", "val_f1"]].to_numpy(dtype=float)
    np.testing.assert_allclose(sorted(drawn), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_draws_every_chart_without_an_error_or_a_request(
    width: int, html: str, browser: webdriver.Chrome, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    path.write_text(html)
    _log(browser, "performance")
    _open(browser, path, width)
    drawn = browser.execute_script("return charts.map(c => c.querySelectorAll('.main-svg').length > 0)")
    assert len(drawn) == html.count('class="chart"') > 10
    assert all(drawn)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert _log(browser, "browser") == []
    events = [json.loads(entry["message"])["message"] for entry in _log(browser, "performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert asked[0] == path.as_uri()
    assert all(url.startswith(("data:", "blob:")) for url in asked[1:])


def test_charts_are_drawn_when_they_come_into_view(
    html: str, browser: webdriver.Chrome, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    path.write_text(html)
    browser.get(path.as_uri())
    browser.execute_async_script(
        """const done = arguments[0];
        const look = () => charts[0].dataset.drawn ? done() : (charts[0].scrollIntoView(), setTimeout(look, 20));
        look();"""
    )
    assert browser.execute_script("return charts.at(-1).dataset.drawn") is None


def test_the_theme_follows_the_system_until_the_button_is_pressed(
    html: str, browser: webdriver.Chrome, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    path.write_text(html)
    drawn_in = "return [getComputedStyle(document.body).color, charts[0].querySelector('.xtitle').style.fill]"
    ink = {"light": "rgb(29, 33, 41)", "dark": "rgb(230, 232, 236)"}
    for system, other in (("dark", "light"), ("light", "dark")):
        preferred = [{"name": "prefers-color-scheme", "value": system}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": preferred})
        _open(browser, path)
        assert browser.execute_script(drawn_in) == [ink[system]] * 2
        _click(browser, "#theme")
        assert browser.execute_script(drawn_in) == [ink[other]] * 2
    assert _log(browser, "browser") == []


def test_the_table_is_sorted_filtered_and_led_to(
    run: Path, html: str, browser: webdriver.Chrome, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    path.write_text(html)
    _open(browser, path)
    shown = "return rows.filter(r => !r.hidden).length"
    order = "return [...body.rows].map(r => parseFloat(r.cells[11].textContent))"
    seconds = read_trials(run)["seconds"].round(1)
    for ascending in (True, False):
        browser.execute_script("table.tHead.rows[0].cells[11].firstChild.click()")
        assert browser.execute_script(order) == sorted(seconds, reverse=not ascending)
    browser.find_element(By.ID, "filter").send_keys("RESNET18 pruned")
    assert browser.execute_script(shown) == (read_trials(run)["state"] == "PRUNED").sum()
    browser.execute_script("find(0)")
    assert browser.execute_script("return document.querySelector('tr.found').id") == "trial-0"


def test_a_hidden_backbone_is_hidden_in_every_chart(
    html: str, browser: webdriver.Chrome, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    path.write_text(html)
    _open(browser, path)
    points = "return document.querySelectorAll('[data-figure=history] .point').length"
    assert browser.execute_script(points) == TRIALS
    _click(browser, "[data-backbone=resnet18]")
    assert browser.execute_script(points) == 0


def test_what_users_named_is_text_and_never_markup(
    copy: Path, cache: Path, browser: webdriver.Chrome, tmp_path: Path
) -> None:
    corpus = load_corpus(copy / "corpus.parquet")
    old = corpus.genres[0]
    tracks = [
        replace(track, genre=HOSTILE, track_id=f"{HOSTILE}{track.track_id}") if track.genre == old else track
        for track in corpus.tracks
    ]
    write_corpus(Corpus(tuple(tracks)), copy / "corpus.parquet")
    for card in (copy / "models").glob("*/model.json"):
        told = json.loads(card.read_text())
        told["genres"][told["genres"].index(old)] = HOSTILE
        names = {
            track.track_id: changed.track_id for track, changed in zip(corpus.tracks, tracks, strict=True)
        }
        told["split"]["validation"] = [names[name] for name in told["split"]["validation"]]
        card.write_text(json.dumps(told))
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


def test_a_finished_run_shows_the_honest_result_and_the_seeds_noise(copy: Path, cache: Path) -> None:
    best, second = read_trials(copy).sort_values(["val_f1", "trial"], ascending=[False, True])["trial"][:2]
    scores = {(best, 1): 0.5, (best, 2): 0.6, (second, 1): 0.4, (second, 2): 0.46}
    corpus = _finish(copy, scores)
    html = page(facts(copy, cache=cache))
    assert "The honest result: test F1 0.550 (" in html
    assert (
        f"with 2 seeds: mean over seeds, in brackets the 95 % interval over the {len(corpus.part('test'))}"
        in html
    )
    assert "The test part has not been read" not in html
    table = pd.DataFrame([{"trial": trial, "test_f1": f1} for (trial, _), f1 in scores.items()])
    pooled = np.sqrt((np.var([0.5, 0.6], ddof=1) + np.var([0.4, 0.46], ddof=1)) / 2)
    assert seed_noise(table) == pytest.approx(pooled)
    assert seed_noise(table.drop_duplicates("trial")) is None


def test_a_running_search_is_only_read(copy: Path, cache: Path) -> None:
    journal = copy / "study.journal"
    with journal.open("ab") as file:
        file.write(b'{"op_code": 4, "half a li')
    files = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    with driving(copy):
        html = page(facts(copy, cache=cache))
    assert "The search was still running" in html
    assert f"{TRIALS} of up to {TRIALS} trials had ended" in html
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == files


def test_a_search_that_has_only_begun_has_a_page(copy: Path, cache: Path) -> None:
    shutil.rmtree(copy / "results")
    shutil.rmtree(copy / "models")
    (copy / "study.journal").unlink()
    html = page(facts(copy, cache=cache))
    assert "No trial has a score yet." in html
    assert not (copy / "study.journal").exists()


def test_a_run_with_a_pruner_of_an_earlier_version_is_read_but_not_resumed(copy: Path, cache: Path) -> None:
    settings = copy / "config.yaml"
    settings.write_text(settings.read_text().replace("name: median", "name: wilcoxon"))
    config, screen = load(settings, {"trials": TRIALS + 1}), Display(Console(file=io.StringIO()))
    assert "pruner wilcoxon" in page(facts(copy, cache=cache))
    with pytest.raises(InputError, match=r"'wilcoxon'.*--warm-start") as caught:
        search.resume(config, folder=copy, cache=cache, screen=screen)
    assert "\n" not in str(caught.value)


def test_a_damaged_study_is_one_line(copy: Path, cache: Path) -> None:
    journal = copy / "study.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:3], b"nonsense\n", *lines[3:]]))
    with pytest.raises(InputError, match=r"the study must be whole, but .* put a copy of it back"):
        facts(copy, cache=cache)


def test_the_worst_tracks_are_the_surest_mistakes_with_picture_and_sound(run: Path, cache: Path) -> None:
    corpus = load_corpus(run / "corpus.parquet")
    best = read_trials(run).sort_values(["val_f1", "trial"], ascending=[False, True]).iloc[0]
    card = kept_card(run, best.trial)
    assert card is not None
    store = open_or_build(corpus.usable, front_end("mel64"), cache=cache)
    shown = worst_tracks(card, corpus, spectrograms=store.folder)
    tracks = {track.track_id: track for track in corpus.usable}
    probabilities = dict(zip(card["split"]["validation"], card["validation_probabilities"], strict=True))
    margins = {
        name: max(row) - row[card["genres"].index(tracks[name].genre)] for name, row in probabilities.items()
    }
    wrong = sorted((name for name in margins if margins[name] > 0), key=lambda name: -margins[name])
    assert [track.track_id for track in shown] == wrong[:8]
    for track in shown:
        mel = store.mel(str(tracks[track.track_id].content))[:, 0]
        picture = Image.open(io.BytesIO(_bytes(track.picture)))
        assert picture.size == mel.shape
        column = int(mel.max(axis=1).argmax())
        brightest = np.asarray(picture)[:, column].argmax()  # of the palette's places: as loud as bright
        assert brightest == mel.shape[1] - 1 - mel[column].argmax()
        samples, rate = soundfile.read(io.BytesIO(_bytes(track.sound)))
        original = decode.read(tracks[track.track_id].path, SAMPLE_RATE)
        assert rate == SAMPLE_RATE
        assert len(samples) == pytest.approx(len(original), rel=0.05)


def test_music_that_moved_is_heard_where_it_is_said_to_be_and_only_if_it_is_the_same(
    copy: Path, music: Path, tmp_path: Path
) -> None:
    corpus = load_corpus(copy / "corpus.parquet")
    away = tuple(replace(track, path=tmp_path / "gone" / track.track_id) for track in corpus.tracks)
    write_corpus(Corpus(away), copy / "corpus.parquet")

    def sounds(data: Path | None) -> dict[str, bool]:
        worst = facts(copy, cache=tmp_path / "no-cache", data=data).worst
        assert worst
        return {track.track_id: track.sound is not None for track in worst}

    assert not any(sounds(None).values())
    found = sounds(music)
    assert all(found.values())
    moved = Path(shutil.copytree(music, tmp_path / "moved"))
    changed = next(iter(found))
    soundfile.write(moved / changed, np.zeros(70_000), SAMPLE_RATE)
    assert sounds(moved) == {name: name != changed for name in found}


@pytest.mark.parametrize(("stored", "there"), list(product([True, False], repeat=2)))
def test_a_track_is_pictured_from_the_store_or_from_its_audio(
    stored: bool, there: bool, run: Path, cache: Path, tmp_path: Path
) -> None:
    corpus = load_corpus(run / "corpus.parquet")
    store = (
        open_or_build(corpus.usable, front_end("mel64"), cache=cache).folder if stored else tmp_path / "none"
    )
    if not there:
        corpus = Corpus(tuple(replace(track, path=tmp_path / "gone.wav") for track in corpus.tracks))
    card = next((run / "models").glob("*/model.json"))
    track, *_ = worst_tracks(json.loads(card.read_text()), corpus, spectrograms=store)
    assert (track.picture is not None, track.sound is not None) == (stored or there, there)


def _bytes(data_uri: str | None) -> bytes:
    assert data_uri is not None
    return base64.b64decode(data_uri.partition("base64,")[2])


def _journal(path: Path, f1: Callable[[dict[str, Any]], float], n: int = 60) -> optuna.Study:
    """A study as a search leaves it, of random trials with this F1."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(path)))
    study = optuna.create_study(storage=storage, study_name="made-up", direction="maximize")
    random = np.random.default_rng(0)
    blocks = {"resnet18": 5, "alexnet": 7}
    for _ in range(n):
        backbone = str(random.choice(list(blocks)))
        depth = f"frozen_blocks_{backbone}"
        params: dict[str, Any] = {
            "backbone": backbone,
            "learning_rate": float(10 ** random.uniform(-4, -1)),
            depth: int(random.integers(blocks[backbone] + 1)),
        }
        value = f1(params | {"share": params[depth] / blocks[backbone]})
        distributions = {
            "backbone": CategoricalDistribution(tuple(blocks)),
            "learning_rate": FloatDistribution(1e-4, 1e-1, log=True),
            depth: IntDistribution(0, blocks[backbone]),
        }
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=value))
    return study


@pytest.mark.parametrize(
    ("cause", "f1"),
    [
        ("learning_rate", lambda params: 0.3 + 0.1 * np.log10(params["learning_rate"])),
        (FROZEN, lambda params: 0.5 - 0.4 * params["share"]),
        ("backbone", lambda params: 0.4 if params["backbone"] == "alexnet" else 0.7),
    ],
)
def test_what_causes_the_f1_is_what_matters(
    cause: str, f1: Callable[[dict[str, Any]], float], tmp_path: Path
) -> None:
    study = _journal(tmp_path / "study.journal", f1)
    found = importances(tmp_path)
    assert next(iter(found["all"].shares)) == cause
    assert found["all"].shares[cause] > 0.9
    spread = np.std([trial.values for trial in study.trials])
    assert found["all"].effect(cause) == pytest.approx(spread, rel=0.05)
    within = set(found) - {"all"}
    assert within == ({"alexnet", "resnet18"} if cause != "backbone" else set())


def test_too_few_complete_trials_matter_nothing(tmp_path: Path) -> None:
    _journal(tmp_path / "study.journal", lambda params: params["learning_rate"], n=9)
    assert importances(tmp_path) == {}


def _trials(*rows: dict[str, Any]) -> pd.DataFrame:
    """A table of trials one after the other on one worker, 1 s apart, each with 0.5 s around its work."""
    start, table = datetime(2026, 1, 1, tzinfo=UTC), []
    for number, row in enumerate(rows):
        end = start + timedelta(seconds=row["seconds"] + 0.5)
        same = {
            "trial": number,
            "backbone": "resnet18",
            "frozen_blocks": 2,
            "attempt": 1,
            "node": "n",
            "pid": 1,
            "stopped": None,
        }
        own = {
            "training_seconds": row["seconds"] - row["features_seconds"],
            "started": start,
            "finished": end,
        }
        table.append(same | {"max_epochs": 10} | own | row)
        start = end + timedelta(seconds=1)
    return pd.DataFrame(table)


def test_time_is_accounted_for_and_savings_are_estimated() -> None:
    complete = {"state": "COMPLETE", "epochs": 10}
    spent = time_spent(
        _trials(
            complete | {"features": "shared", "seconds": 24.0, "features_seconds": 4.0},
            complete | {"features": "shared", "seconds": 20.0, "features_seconds": 0.0},
            {"state": "PRUNED", "epochs": 4} | {"features": "none", "seconds": 8.0, "features_seconds": 0.0},
        )
    )
    assert spent.by_backbone.loc["resnet18"].to_dict() == {
        "features": 4.0,
        "training": 40.0,
        "pruned": 8.0,
        "overhead": 3 * 0.5 + 2 * 1.0,
    }
    assert spent.whole == spent.wall == 55.5
    assert spent.busy == 55.5 - 2 * 1.0
    assert spent.pruning_saved == 6 * 8.0 / 4  # six epochs at its own pace
    assert spent.sharing_saved == (10 * 4.0 - 4.0) + 10 * 4.0  # a pass of 4 s for each epoch


def test_the_pareto_front_is_of_what_nothing_beats() -> None:
    random = np.random.default_rng(0)
    table = pd.DataFrame(random.integers(8, size=(40, 2)), columns=["seconds", "val_f1"])
    table = table.assign(trial=range(40), state=random.choice(["COMPLETE", "PRUNED"], size=40))
    front = charts.pareto(table, "seconds")
    complete = table[table["state"] == "COMPLETE"]
    costs, scores = complete["seconds"].to_numpy(), complete["val_f1"].to_numpy()
    unbeaten = [
        (cost, f1)
        for cost, f1 in zip(costs, scores, strict=True)
        if not ((costs <= cost) & (scores >= f1) & ((costs < cost) | (scores > f1))).any()
    ]
    assert list(zip(front["seconds"], front["val_f1"], strict=True)) == sorted(set(unbeaten))


def test_each_backbone_has_a_mark_of_its_own() -> None:
    names = [str(number) for number in range(25)]
    assert len({charts.mark(names, name) for name in names}) == 25
