"""genre-search, with the task's configurations enqueued in its study, or its default search."""

import json
import sys
import time
from pathlib import Path
from unittest.mock import patch

import optuna
import pandas as pd
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from rich.console import Console
from tutorial import Task, log

from search.config.schema import load
from search.config.space import FROZEN_SHARE, share_of
from search.display.progress import Display
from search.run.schemas import TrialRow
from search.run.tables import read_epochs, read_trials
from search.tune import search


class Logging(Display):
    """A display that also logs the time of each F1."""

    task: Task

    def trial(self, row: TrialRow) -> None:
        """Take in a trial's changed row."""
        super().trial(row)
        if row.val_f1 is not None:
            log(self.task, {"f1": row.val_f1, "at": time.time()})


def main(task: Task) -> None:
    """Run the task as a search, and write its trials to the log."""
    config = load(
        None,
        {
            "data": task["manifest"],
            "front_end": task["front_end"],
            "segment_seconds": task["segment_seconds"],
            "segments_per_track": 1,
            "weights": {name: task["weights"].get(name, "random") for name in task["n_blocks"]},
            "space.backbone": list(task["n_blocks"]),
            "space.learning_rate": dict(zip(("low", "high"), task["learning_rate"], strict=True))
            | {"log": True},
            "space.momentum": dict(zip(("low", "high"), task["momentum"], strict=True)),
            "space.batch_size": task["batch_size"],
            "training.epochs": task["epochs"],
            "training.patience": task["epochs"],
            "trials": task["trials"],
            "seed": task["seed"],
            "workers": task["workers"],
            "keep_models": 0,
            "feature_cache": task["feature_cache"],
            "precision": task["precision"],
        }
        | ({"pruner": "none"} if task["target"] is None else {}),
    )
    folder = Path(task["scratch"]) / "run"
    folder.mkdir(parents=True)
    if task["configurations"]:
        _enqueue(task, folder)
    screen = Logging(Console(), trials=config.trials)
    screen.task = task
    with patch.object(search, "require_new", lambda folder: None):  # the folder may have the study already
        search.run(config, folder=folder, cache=Path(task["cache"]), reporter=screen)
    _log(task, folder)


def _enqueue(task: Task, folder: Path) -> None:
    """Make the search's study, with the task's configurations as its first trials."""
    storage = JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    study = optuna.create_study(storage=storage, study_name="run", direction="maximize")
    for configuration in task["configurations"]:
        depth, n_blocks = configuration["frozen_blocks"], task["n_blocks"][configuration["backbone"]]
        own = {FROZEN_SHARE: share_of(depth, n_blocks)}
        study.enqueue_trial({k: v for k, v in configuration.items() if k != "frozen_blocks"} | own)


def _log(task: Task, folder: Path) -> None:
    epochs = read_epochs(folder)
    arithmetic = epochs.groupby("trial")["arithmetic_seconds"].sum()
    for row in read_trials(folder).to_dict("records"):
        if pd.isna(row["seconds"]):
            continue
        spent = {
            "began": row["finished"].timestamp() - row["seconds"],
            "ended": row["finished"].timestamp(),
            "seconds": row["seconds"],
            "arithmetic": float(arithmetic[row["trial"]]) + row["features_seconds"],
            "best": row["val_f1"],
            "epochs": row["epochs"],
            "features": row["features"],
            "worker": row["pid"],
        }
        names = ("backbone", "frozen_blocks", "learning_rate", "momentum")
        log(task, {name: row[name] for name in names} | spent)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
