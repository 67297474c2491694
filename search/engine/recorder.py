"""What happens to each trial goes to the results tables and to the screen."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from genre_core.recipe import Recipe
from search.engine.costs import Costs
from search.engine.messages import TOLD
from search.run.tables import EPOCHS, RUNNING, ResultsWriter, Row, new_row
from search.study.study import Study

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


class Recorder:
    """Keeps a row for each living trial and hands on each change."""

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

    def take_up(self, rows: Sequence[Row]) -> None:
        """Go on from the rows of a search that was cut off."""
        for row in rows:
            self._costs.observe(row)
            self._writer.put_trial(row)
            if row["state"] == RUNNING:
                self._rows[row["trial"]] = row

    def begin(self, number: int, recipe: Recipe) -> None:
        """A trial is given to a worker: for the first time, or again."""
        if row := self._rows.get(number):
            row["attempt"] += 1
        else:
            self._rows[number] = new_row(self._name, number, recipe)
        self.changed(number)

    def epoch(self, number: int, result: Row) -> None:
        """An epoch is done: its row is on disk when this returns. One that is on record already is only counted."""
        row = self._rows[number]
        row.update(node=result["hostname"], pid=result["pid"])
        if self._study.knows(number, result["epoch"]):
            row["repeated_epochs"] += not result.get(TOLD, False)
            return
        row.update(_progress(result))
        if result["best_epoch"] == result["epoch"]:
            row.update({name: result[name] for name in _BEST})
        own = {"trial": number, "attempt": row["attempt"]}
        self._writer.add_epoch({name: (result | own)[name] for name in EPOCHS.names}, row)

    def end(self, reason: str | None) -> None:
        """The search is over: what still runs is cut off for good for this reason, or None leaves it for a resume."""
        for number in self._study.running if reason else ():
            self._study.stop(number, str(reason))
            self.changed(number)
        self._writer.flush()

    def changed(self, number: int) -> None:
        """The study has news of a trial: its row follows."""
        row = self._rows[number]
        row.update(
            state=self._study.state(number),
            error=self._study.error(number),
            stopped=self._study.stopped(number),
        )
        self._costs.observe(row)
        row["epoch_seconds_expected"] = self._costs.epoch_seconds(row["backbone"], row["frozen_blocks"])
        if row["state"] != RUNNING:
            row["finished"] = datetime.now(UTC)
            del self._rows[number]
        self._writer.put_trial(row)
        self._show(row)


def _progress(result: Row) -> Row:
    """What every epoch brings up to date."""
    return {
        **{name: result[name] for name in _SAME},
        "epochs": result["epoch"],
        "seconds": result["total_seconds"],
        "training_seconds": result["total_seconds"] - result["features_seconds"],
    }
