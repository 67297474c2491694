"""Ray's callback: what happens to each trial goes to the results tables and to the screen."""

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from genre_core.families import block_names
from genre_core.recipe import Recipe
from search.costs import Costs
from search.messages import FAILED, NUMBER
from search.results import EPOCHS, RUNNING, TRIALS, ResultsWriter
from search.study import Study

_BEST = ("val_loss", "val_accuracy", "val_precision", "val_recall", "val_f1", "best_epoch")
"""Columns of a trial's row that are its best epoch's."""

_SAME = (
    "trainable_parameters",
    "features",
    "features_seconds",
    "resident",
    "memory_before_bytes",
    "peak_memory_bytes",
    "device",
)
"""Columns that a worker's result has by the same name."""

Row = dict[str, Any]


class Recorder(Callback):
    """Keeps a row for each living trial and hands on each change, after the scheduler has decided."""

    def __init__(
        self, study: Study, writer: ResultsWriter, *, name: str, show: Callable[[Row], None]
    ) -> None:
        """Args: the search's study, its tables, its name, and who wants to see each changed row."""
        self._study = study
        self._writer = writer
        self._name = name
        self._show = show
        self._rows: dict[int, Row] = {}
        self._costs = Costs()

    def begin(self, number: int, recipe: Recipe) -> None:
        """The study has been asked for a trial."""
        self._rows[number] = _new_row(self._name, number, recipe)
        self._put(number)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: Row, **info: Any
    ) -> None:
        """An epoch is done, or the fine-tune came to nothing."""
        number = trial.config[NUMBER]
        row = self._rows[number]
        if FAILED not in result:
            attempt = {"trial": number, "attempt": row["attempt"]}
            self._writer.add_epoch({name: (result | attempt)[name] for name in EPOCHS.names})
            row.update(_progress(result))
            if result["best_epoch"] == result["epoch"]:
                row.update({name: result[name] for name in _BEST})
        row.update(node=result["hostname"], pid=result["pid"])
        self._put(number)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """The worker died or raised, which the scheduler has told the study."""
        self._put(trial.config[NUMBER])

    def end(self, reason: str) -> None:
        """The search is over: what was still running came to nothing, for this reason."""
        for number in self._study.running:
            self._study.fail(number, reason)
            self._put(number)
        self._writer.flush()

    def _put(self, number: int) -> None:
        row = self._rows[number]
        row.update(state=self._study.state(number), error=self._study.error(number))
        self._costs.observe(row)
        row["epoch_seconds_expected"] = self._costs.epoch_seconds(row["backbone"], row["frozen_blocks"])
        if row["state"] != RUNNING:
            row["finished"] = datetime.now(UTC)
            del self._rows[number]
        self._writer.put_trial(row)
        self._show(row)


def _new_row(study: str, number: int, recipe: Recipe) -> Row:
    settings = {name: value for name, value in asdict(recipe).items() if name in TRIALS.names}
    return (
        dict.fromkeys(TRIALS.names)
        | settings
        | {
            "study": study,
            "trial": number,
            "max_epochs": recipe.epochs,
            "n_blocks": len(block_names(recipe.backbone)),
            "epochs": 0,
            "attempt": 1,
            "started": datetime.now(UTC),
        }
    )


def _progress(result: Row) -> Row:
    """What every epoch brings up to date."""
    return {
        **{name: result[name] for name in _SAME},
        "epochs": result["epoch"],
        "seconds": result["total_seconds"],
        "training_seconds": result["total_seconds"] - result["features_seconds"],
    }
