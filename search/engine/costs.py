"""Estimated time per epoch by backbone and frozen depth, from the epochs so far."""

from collections import defaultdict

from search.run.schemas import RUNNING, TrialRow


class Costs:
    """Mean training time per epoch, updated whenever a row of the trials' table changes."""

    def __init__(self) -> None:
        self._cells: defaultdict[str, dict[int, tuple[float, int]]] = defaultdict(dict)
        """Backbone -> frozen blocks -> total seconds and epochs."""
        self._counted: dict[int, tuple[float, int]] = {}
        """Running trial -> its seconds and epochs that are already included in a cell."""

    def observe(self, row: TrialRow) -> None:
        """Add the new epochs in a trial's row."""
        seconds, epochs = row.training_seconds or 0.0, row.epochs
        old_seconds, old_epochs = self._counted.pop(row.trial, (0.0, 0))
        cell = self._cells[row.backbone]
        all_seconds, all_epochs = cell.get(row.frozen_blocks, (0.0, 0))
        cell[row.frozen_blocks] = (all_seconds + seconds - old_seconds, all_epochs + epochs - old_epochs)
        if row.state == RUNNING:
            self._counted[row.trial] = (seconds, epochs)

    def epoch_seconds(self, backbone: str, frozen_blocks: int) -> float | None:
        """The mean at the nearest depth of this backbone, or over all if it has none; None before the first epoch."""
        seen = {depth: s / n for depth, (s, n) in self._cells[backbone].items() if n}
        if seen:
            return seen[min(seen, key=lambda depth: abs(depth - frozen_blocks))]
        others = [s / n for cells in self._cells.values() for s, n in cells.values() if n]
        return sum(others) / len(others) if others else None
