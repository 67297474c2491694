"""Recorder: updates the results tables with every report and every decision."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from genre_core.recipe import Recipe, state_bytes
from search.engine.costs import Costs
from search.engine.messages import EpochReport
from search.engine.ports import Tables
from search.run.schemas import PAUSED, RUNNING, EpochRow, TrialRow, new_trial
from search.study.study import Study


class Recorder:
    """Holds the row of each running trial and writes every change to the tables."""

    def __init__(
        self,
        study: Study,
        writer: Tables,
        *,
        name: str,
        show: Callable[[TrialRow], None],
        show_epoch: Callable[[EpochRow], None] = lambda row: None,
        costs: Costs | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Set up.

        Args:
            study: the study of the search.
            writer: writes the tables.
            name: name of the run.
            show: called with each changed row.
            show_epoch: called with each new epoch.
            costs: updated from the rows of trials.
            now: returns the time in UTC.
        """
        self._study = study
        self._writer = writer
        self._name = name
        self._show = show
        self._show_epoch = show_epoch
        self._now = now
        self._rows: dict[int, TrialRow] = {}
        self._costs = costs or Costs()
        self.earlier_seconds = 0.0
        """Working time of the trials of the search before it was resumed."""
        self._largest_checkpoint = 0

    def take_up(self, rows: Sequence[TrialRow]) -> None:
        """Continue from the rows of an interrupted search."""
        for row in rows:
            self.earlier_seconds += row.seconds or 0.0
            self._costs.observe(row)
            self._writer.put_trial(row)
            if row.state == RUNNING:
                self._rows[row.trial] = row

    def begin(self, number: int, recipe: Recipe) -> int:
        """Record that a trial was assigned to a worker; returns the number of the attempt."""
        if row := self._rows.get(number):
            row.attempt += 1
        else:
            self._rows[number] = new_trial(self._name, number, recipe, started=self._now())
        self.changed(number)
        return self._rows[number].attempt

    def checkpoint_bytes(self, number: int) -> int:
        """Estimated size of a running trial's checkpoint; before its first epoch, that of the largest so far."""
        row, size = self._rows[number], self._largest_checkpoint
        if row.trainable_parameters is not None:
            size = state_bytes(row.optimizer) * row.trainable_parameters
        self._largest_checkpoint = max(self._largest_checkpoint, size)
        return size

    def pause(self, number: int) -> None:
        """Record that a trial was paused: it stays RUNNING in the tables, and is displayed as paused."""
        row = self._rows[number]
        row.pauses = (row.pauses or 0) + 1  # None in a table of an earlier version
        self._writer.put_trial(row)
        self._show(replace(row, state=PAUSED))

    def decided(self, number: int, seconds: float) -> None:
        """Add to the time that decisions about a running trial took."""
        row = self._rows[number]
        row.decision_seconds = (row.decision_seconds or 0.0) + seconds

    def epoch(self, report: EpochReport, *, took: float, first: bool) -> None:
        """Record an epoch, which is on disk when this returns; one that was recorded before only counts as repeated.

        Args:
            report: the report of the epoch.
            took: seconds since the worker's last report, or since the trial was assigned to it.
            first: whether it is the worker's first report since then.
        """
        number, usage = report.row.trial, report.usage
        row = self._rows[number]
        row.node, row.pid = usage.node, usage.pid
        if self._study.knows(number, report.row.epoch):
            if first and report.replayed:
                self._costs.turn(row, seconds=took, resumed=True)
            row.repeated_epochs += not report.replayed
            return
        activations = usage.features_seconds - (row.features_seconds or 0.0)
        row.epochs = report.row.epoch
        row.seconds = usage.total_seconds
        row.training_seconds = usage.total_seconds - usage.features_seconds
        row.features_seconds = usage.features_seconds
        row.trainable_parameters = usage.trainable_parameters
        row.features, row.resident, row.device = usage.features, usage.resident, usage.device
        row.memory_before_bytes, row.peak_memory_bytes = usage.memory_before_bytes, usage.peak_memory_bytes
        if report.best_epoch == report.row.epoch:
            row.best_epoch = report.best_epoch
            row.val_loss, row.val_f1 = report.row.val_loss, report.row.val_f1
            row.val_accuracy = report.row.val_accuracy
            row.val_precision, row.val_recall = report.row.val_precision, report.row.val_recall
        if first:
            own = report.row.seconds or 0.0
            if report.replayed or report.row.epoch == 1:  # else the worker still had the trial in memory
                self._costs.turn(row, seconds=took - activations - own, resumed=row.attempt > 1)
            self._costs.epoch(row, seconds=own)
        else:
            self._costs.epoch(row, seconds=took)
        self._writer.add_epoch(report.row, row)
        self._show_epoch(report.row)

    def end(self, reason: str | None) -> None:
        """End the search: running trials are stopped for this reason; if it is None, they can be resumed."""
        for number in self._study.running if reason else ():
            self._study.stop(number, str(reason))
            self.changed(number)
        self._writer.flush()

    def changed(self, number: int) -> None:
        """Update a trial's row after the study changed its state."""
        row = self._rows[number]
        row.state = self._study.state(number)
        row.error, row.stopped = self._study.error(number), self._study.stopped(number)
        row.epoch_seconds_expected = self._costs.epoch_seconds(row.backbone, row.frozen_blocks)
        if row.state != RUNNING:
            row.finished = self._now()
            del self._rows[number]
        self._writer.put_trial(row)
        self._show(row)
