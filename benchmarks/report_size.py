"""Measure how long the report of a large search takes to write, and to open in a browser.

    python benchmarks/report_size.py [--trials 1000] [--chromium /usr/bin/chromium] [--run RUN]

generates a synthetic search (or uses the one in RUN), writes its report and prints, for a desktop and a phone, the
milliseconds from the start of the navigation until text is painted and until every chart in view is drawn. Needs
selenium.
"""

import argparse
import shutil
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pyarrow as pa
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from selenium import webdriver

from genre_core.corpus.corpus_table import write_corpus
from genre_core.corpus.tracks import SPLITS, Corpus, Track
from genre_core.models.registry import block_names
from genre_core.recipe import Recipe
from genre_core.training.metrics import confusion_matrix, scores
from search.config.schema import SearchConfig, to_yaml
from search.config.space import FROZEN_SHARE, share_of
from search.report.page import write_report
from search.run.schemas import EPOCHS, EpochRow, TrialRow, new_trial
from search.run.tables import ResultsWriter
from search.study.study import best_epoch

BACKBONES = {"alexnet": 0.55, "densenet121": 0.68, "resnet18": 0.64, "resnet34": 0.66, "vgg16": 0.62}
"""Backbone -> highest F1 that a synthetic trial of it approaches."""
GENRES, TRACKS, EPOCHS_AT_MOST = 10, 1000, 20
VIEWS = {"desktop": (1280, 900), "phone": (390, 844)}
REPEATS = 5
DRAWN = """
const look = () => {
  const inView = [...document.querySelectorAll(".chart")].filter((chart) => {
    const { top, bottom } = chart.getBoundingClientRect();
    return bottom > 0 && top < innerHeight;
  });
  const ready = document.readyState === "complete" && inView.every((chart) => chart.dataset.drawn);
  if (ready) window.allDrawn = performance.now();
  else requestAnimationFrame(look);
};
addEventListener("DOMContentLoaded", look);
"""


def main() -> None:
    """Write the report, open it, and print the times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--chromium", default=shutil.which("chromium") or "/usr/bin/chromium")
    parser.add_argument("--run", type=Path, help="folder of a run, instead of a synthetic one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gsr") as folder:
        run = arguments.run or Path(folder) / "synthetic"
        if arguments.run is None:
            _generate(run, arguments.trials)
        page = Path(folder) / "report.html"
        began = time.perf_counter()
        write_report(run, page, cache=Path(folder))
        print(
            f"written in {time.perf_counter() - began:.1f} s, {page.stat().st_size / 2**20:.1f} MiB",
            flush=True,
        )
        for name, (width, height) in VIEWS.items():
            opened = [_open(page, width, height, arguments.chromium) for _ in range(REPEATS)]
            painted, drawn = np.median(opened, axis=0)
            print(
                f"{name} {width}x{height}: text after {painted:.0f} ms, all in view drawn after {drawn:.0f} ms"
            )


def _generate(run: Path, trials: int) -> None:
    """Write a run folder like that of a finished search, from a simple model of learning curves."""
    random = np.random.default_rng(0)
    run.mkdir()
    config = SearchConfig(trials=trials)
    (run / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    truth = random.integers(GENRES, size=TRACKS)
    tracks = tuple(
        Track(
            track_id=f"genre{genre}/track-{number:04d}.mp3",
            location=f"/music/genre{genre}/track-{number:04d}.mp3",
            genre=f"genre{genre}",
            group=f"artist-{number}",
            split=SPLITS[0 if number % 5 < 3 else number % 5 - 2],
            seconds=30.0,
            content=f"{number:064d}",
        )
        for number, genre in enumerate(truth)
    )
    write_corpus(Corpus(tracks), run / "corpus.parquet")
    validation = np.array([int(t.genre[5:]) for t in tracks if t.split == "validation"])
    writer = ResultsWriter(run)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(run / "study.journal"))),
        study_name="synthetic",
        direction="maximize",
    )
    started = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(trials):
        row, epochs = _trial(number, validation, random, started)
        started += timedelta(seconds=(row.seconds or 0.0) / 2)
        writer.take_up(pa.Table.from_pylist([vars(epoch) for epoch in epochs], schema=EPOCHS), row)
        writer.put_trial(row)
        study.add_trial(_frozen(row, epochs))
    writer.flush()


def _trial(
    number: int, validation: Any, random: np.random.Generator, started: datetime
) -> tuple[TrialRow, list[EpochRow]]:
    """A trial's row and its epochs; most poor trials are pruned."""
    backbone = str(random.choice(list(BACKBONES)))
    n_blocks = len(block_names(backbone))
    recipe = Recipe(
        backbone=backbone,
        weights="imagenet",
        frozen_blocks=int(random.integers(n_blocks + 1)),
        learning_rate=float(10 ** random.uniform(-4, -1)),
        momentum=float(random.uniform(0.5, 0.99)),
        epochs=EPOCHS_AT_MOST,
    )
    away = abs(np.log10(recipe.learning_rate) + 2.2) / 3 + (recipe.frozen_blocks / n_blocks - 0.5) ** 2
    ceiling = max(0.1, BACKBONES[backbone] - 0.4 * away + random.normal(0, 0.02))
    n_epochs = EPOCHS_AT_MOST if ceiling > 0.5 or random.random() < 0.2 else int(random.integers(3, 9))
    epochs = [_epoch(number, epoch, ceiling, validation, random) for epoch in range(1, n_epochs + 1)]
    best = epochs[best_epoch({epoch.epoch: epoch.val_f1 for epoch in epochs}) - 1]
    seconds = n_epochs * (1 + 3 * (1 - recipe.frozen_blocks / n_blocks))
    row = replace(
        new_trial("synthetic", number, recipe, started=started),
        state="COMPLETE" if n_epochs == EPOCHS_AT_MOST else "PRUNED",
        val_loss=best.val_loss,
        val_accuracy=best.val_accuracy,
        val_precision=best.val_precision,
        val_recall=best.val_recall,
        val_f1=best.val_f1,
        best_epoch=best.epoch,
        epochs=n_epochs,
        seconds=seconds,
        features_seconds=0.1 * seconds,
        training_seconds=0.9 * seconds,
        features="shared" if recipe.frozen_blocks else "none",
        trainable_parameters=int(1e5 * 10 ** (3 * (1 - recipe.frozen_blocks / n_blocks))),
        node="one",
        pid=number % 2,
        finished=started + timedelta(seconds=seconds + 0.1),
    )
    return row, epochs


def _epoch(number: int, epoch: int, ceiling: float, validation: Any, random: np.random.Generator) -> EpochRow:
    right = random.random(len(validation)) < ceiling * (1 - np.exp(-epoch / 3))
    predicted = np.where(right, validation, random.integers(GENRES, size=len(validation)))
    result = scores(confusion_matrix(validation, predicted, GENRES))
    return EpochRow(
        trial=number,
        attempt=1,
        epoch=epoch,
        val_loss=2.3 - 2 * result.f1,
        val_accuracy=result.accuracy,
        val_precision=result.precision,
        val_recall=result.recall,
        val_f1=result.f1,
        f1_per_genre=result.f1_per_genre,
        confusion=result.confusion,
    )


def _frozen(row: TrialRow, epochs: list[EpochRow]) -> optuna.trial.FrozenTrial:
    """The same trial in the study."""
    return optuna.trial.create_trial(
        state=optuna.trial.TrialState[row.state],
        value=row.val_f1,
        params={
            "backbone": row.backbone,
            "learning_rate": row.learning_rate,
            "momentum": row.momentum,
            FROZEN_SHARE: share_of(row.frozen_blocks, row.n_blocks),
        },
        distributions={
            "backbone": CategoricalDistribution(tuple(BACKBONES)),
            "learning_rate": FloatDistribution(1e-4, 1e-1, log=True),
            "momentum": FloatDistribution(0.5, 0.99),
            FROZEN_SHARE: FloatDistribution(0.0, 1.0),
        },
        intermediate_values={epoch.epoch: epoch.val_f1 for epoch in epochs},
    )


def _open(page: Path, width: int, height: int, chromium: str) -> tuple[float, float]:
    """Milliseconds until text is painted, and until all charts in view are drawn, in a browser of its own."""
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-background-networking"):
        options.add_argument(f"--{argument}")
    with webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver"))) as browser:
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": DRAWN})
        browser.get(page.as_uri())
        while (drawn := browser.execute_script("return window.allDrawn")) is None:
            time.sleep(0.05)
        painted = browser.execute_script(
            "return performance.getEntriesByName('first-contentful-paint')[0].startTime"
        )
    return float(painted), float(drawn)


if __name__ == "__main__":
    main()
