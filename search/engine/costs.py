"""The cost of training by backbone and freeze depth: measured in the trials so far, estimated if none has run."""

import math
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from statistics import median

from genre_core.models.block_costs import REFERENCE_PIXELS, multiply_adds, trainable_parameters
from genre_core.models.registry import block_names
from genre_core.recipe import SGD, state_bytes
from search.cost_aware.cost import Cost
from search.run.schemas import TrialRow

BACKWARD = 2.0
"""Multiply-adds of a backward pass relative to the forward pass."""
UPDATE = 200.0
"""Multiply-adds that take as long as the update of one parameter by SGD, which is bound by memory; fitted to 70 cells
of five backbones on a CPU."""
STEP_SECONDS = 1e-3
"""Time of a training step beyond its arithmetic."""
CPU_RATE, GPU_RATE = 1.5e-11, 2e-13
"""Seconds per multiply-add before anything is measured."""
WHOLE_PASS = 0.5
"""Fraction of the expected rate below which a pass through frozen blocks must have found stored activations."""

BUILD_SECONDS = 0.05
"""Time to build a network beyond that for its parameters."""
BUILD_BYTES_PER_SECOND = 2e9
"""Rate at which the initial weights of the trainable blocks are copied."""
CHECKPOINT_BYTES = state_bytes(SGD)
"""Bytes per trainable parameter in a checkpoint; costs are kept by backbone and depth, not by optimizer."""
CHECKPOINT_BYTES_PER_SECOND = 4e8
"""Rate at which a checkpoint is sent to a worker and restored."""
PARAMETER_BYTES = 4
PRIOR_TURNS = 2
"""Number of turns that the overhead known before the search counts as."""
RECENT_TURNS = 30
"""Number of turns whose median is the overhead of one."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The segments and steps of an epoch; the defaults are sufficient for relative costs."""

    train_segments: int = 1000
    validation_segments: int = 300
    pixels: int = REFERENCE_PIXELS
    """Pixels of a segment's image: mels x frames."""
    batch_size: int = 32
    """Segments per step."""
    sharing: bool = True
    """Whether the activations of frozen blocks can be stored, unless trials show that they are not."""

    @property
    def steps(self) -> int:
        """Training steps per epoch."""
        return math.ceil(self.train_segments / self.batch_size)

    @property
    def segments(self) -> int:
        """Segments of both parts."""
        return self.train_segments + self.validation_segments


@dataclass(frozen=True, kw_only=True)
class CellCost:
    """The cost of trials with one backbone and freeze depth, for a workload."""

    backbone: str
    frozen_blocks: int
    epoch_seconds: float
    pass_seconds: float | None = None
    """Seconds to pass all segments through all blocks of the backbone, if that was measured."""
    turn_seconds: float | None = None
    """Overhead of a turn of a trial on a worker, the same for all trials on the device, if that was measured."""

    def scaled(self, factor: float) -> "CellCost":
        """The cost for `factor` times as many segments."""
        whole = None if self.pass_seconds is None else factor * self.pass_seconds
        return replace(self, epoch_seconds=factor * self.epoch_seconds, pass_seconds=whole)


class Costs:
    """Measured and estimated seconds by kind of device; updated whenever a row of the trials' table changes."""

    def __init__(self, workload: Workload = Workload()) -> None:
        """Args: the workload of the trials."""
        self._workload = workload
        self._devices: dict[str, _DeviceCosts] = {}
        self._counted: dict[int, tuple[float, int]] = {}
        """Trial -> its seconds and epochs that are already included in a cell."""
        self._answers: dict[tuple[str, int, str | None], Cost] = {}
        """Cached results of `of` since the last change, because samplers ask for many configurations."""

    def observe(self, row: TrialRow) -> None:
        """Add the new epochs in a trial's row; epochs without a recorded time are left out."""
        if row.training_seconds is None:
            return
        old_seconds, old_epochs = self._counted.get(row.trial, (0.0, 0))
        self._counted[row.trial] = row.training_seconds, row.epochs
        if row.epochs > old_epochs:
            self._add(row, seconds=row.training_seconds - old_seconds, epochs=row.epochs - old_epochs)

    def epoch(self, row: TrialRow, *, seconds: float) -> None:
        """Add an epoch of a trial, whose row is up to date."""
        self._add(row, seconds=seconds, epochs=1)

    def turn(self, row: TrialRow, *, seconds: float, resumed: bool) -> None:
        """Add the overhead of a turn: time from assignment to first report, without epochs and activations."""
        expected = build_seconds(row.backbone, row.frozen_blocks)
        if resumed:
            expected += restore_seconds(row.backbone, row.frozen_blocks)
        self._learning(row.device or "cpu").turns.append(max(0.0, seconds - expected))

    def learn(self, device: str, backbone: str, frozen_blocks: int, *, seconds: float, epochs: float) -> None:
        """Add measured epochs; a number below one is a measured part of an epoch."""
        self._learning(device).epochs(backbone, frozen_blocks, seconds, epochs)

    def prime(self, known: "CellCost", *, device: str) -> None:
        """Assume a cost that was measured elsewhere, until the cell is measured."""
        self._learning(device).prime(known)

    def measured(self) -> dict[str, list["CellCost"]]:
        """Device -> the costs of the cells in which trials have run."""
        return {device: costs.measured() for device, costs in self._devices.items()}

    def of(self, backbone: str, frozen_blocks: int, *, device: str | None = None) -> Cost:
        """The cost of a trial.

        Args:
            backbone: its name.
            frozen_blocks: the freeze depth.
            device: the name of the device [default: the one that trained most epochs].
        """
        key = backbone, frozen_blocks, device
        if key not in self._answers:
            self._answers[key] = _cost(self._on(device), backbone, frozen_blocks)
        return self._answers[key]

    def epoch_seconds(self, backbone: str, frozen_blocks: int) -> float | None:
        """Seconds of an epoch; None before the first one of the search."""
        if not self._devices:
            return None
        return self.of(backbone, frozen_blocks).epoch

    def _add(self, row: TrialRow, *, seconds: float, epochs: int) -> None:
        """Add epochs of a trial, and the time that it needed for its activations."""
        device = row.device or "cpu"
        self.learn(device, row.backbone, row.frozen_blocks, seconds=seconds, epochs=epochs)
        self._on(device).activations(
            row.backbone, row.frozen_blocks, kind=row.features, seconds=row.features_seconds or 0.0
        )

    def _learning(self, device: str) -> "_DeviceCosts":
        """The costs on a device, which are about to change."""
        self._answers.clear()
        return self._devices.setdefault(device, self._on(device))

    def _on(self, device: str | None) -> "_DeviceCosts":
        """The costs on a device, without measurements if it is new."""
        if device is None and self._devices:
            device = max(self._devices, key=lambda name: self._devices[name].total_epochs)
        device = device or "cpu"
        return self._devices.get(device) or _DeviceCosts(self._workload, default_rate=default_rate(device))


class _DeviceCosts:
    """Costs on one kind of device.

    The model of an epoch's time: multiply-adds, forward and backward, plus the update of the parameters, times a rate
    in seconds per multiply-add, plus a constant per step. A cell that was not measured has the rate of the nearest
    depth of the same backbone; if there is none, the rate of the pass through its frozen blocks, times the median ratio
    of training to such passes for other backbones; without such a pass, the median rate of other backbones.
    """

    def __init__(self, workload: Workload, *, default_rate: float) -> None:
        self._work = workload
        self._default = default_rate
        self._cells: defaultdict[str, dict[int, tuple[float, float]]] = defaultdict(dict)
        """Backbone -> frozen blocks -> total seconds and epochs."""
        self._passes: dict[str, float] = {}
        """Backbone -> seconds per multiply-add of the slowest pass through its frozen blocks."""
        self._shared: dict[str, dict[int, bool]] = defaultdict(dict)
        """Backbone -> frozen blocks -> whether their activations are stored."""
        self._primed: set[tuple[str, int]] = set()
        """Cells with a cost that was measured elsewhere."""
        self._usual_turn = 0.0
        """Overhead of a turn before any is measured."""
        self.turns: deque[float] = deque(maxlen=RECENT_TURNS)
        """Overheads of the latest turns, in seconds."""

    @property
    def turn_seconds(self) -> float:
        """Overhead of a turn except building the network and reading a checkpoint: calls, copies and waiting."""
        return median([self._usual_turn] * PRIOR_TURNS + list(self.turns))

    @property
    def total_epochs(self) -> float:
        """Number of measured epochs; epochs of other searches do not count."""
        return sum(
            epochs
            for backbone, cells in self._cells.items()
            for depth, (_, epochs) in cells.items()
            if (backbone, depth) not in self._primed
        )

    def epochs(self, backbone: str, depth: int, seconds: float, epochs: float) -> None:
        """Add measured epochs."""
        if (backbone, depth) in self._primed:
            self._primed.remove((backbone, depth))
            del self._cells[backbone][depth]
        old_seconds, old_epochs = self._cells[backbone].get(depth, (0.0, 0.0))
        self._cells[backbone][depth] = old_seconds + seconds, old_epochs + epochs

    def prime(self, known: CellCost) -> None:
        """Assume a cost until the cell is measured."""
        if known.frozen_blocks not in self._cells[known.backbone]:
            self._cells[known.backbone][known.frozen_blocks] = known.epoch_seconds, 1.0
            self._primed.add((known.backbone, known.frozen_blocks))
        if known.turn_seconds is not None:
            self._usual_turn = known.turn_seconds
        if known.pass_seconds is not None and known.backbone not in self._passes:
            self._passes[known.backbone] = known.pass_seconds / self._whole(known.backbone)

    def measured(self) -> list[CellCost]:
        """The cells in which trials have run."""
        passes = self._whole_passes()
        return [
            CellCost(
                backbone=backbone,
                frozen_blocks=depth,
                epoch_seconds=seconds / epochs,
                pass_seconds=passes[backbone] * self._whole(backbone) if backbone in passes else None,
                turn_seconds=self.turn_seconds,
            )
            for backbone, cells in self._cells.items()
            for depth, (seconds, epochs) in cells.items()
            if (backbone, depth) not in self._primed
        ]

    def activations(self, backbone: str, depth: int, *, kind: str | None, seconds: float) -> None:
        """Add the time that a trial needed for its activations.

        It is shorter if some activations were stored already, so the longest pass counts.
        """
        if depth == 0:
            return
        self._shared[backbone][depth] = kind == "shared"
        if kind == "shared":
            rate = seconds / (self._work.segments * self._arithmetic(backbone, 0, depth))
            self._passes[backbone] = max(self._passes.get(backbone, 0.0), rate)

    def epoch_seconds(self, backbone: str, depth: int) -> float:
        """Measured or estimated seconds of an epoch."""
        if depth in self._cells[backbone]:
            seconds, epochs = self._cells[backbone][depth]
            return seconds / epochs
        if depth == len(block_names(backbone)) and self._is_shared(backbone, depth):
            alike = [s / n for _, (s, n) in self._measured(head_only=True)]
            if alike:  # the head costs about the same after all backbones
                return median(alike)
        return self._rate(backbone, depth) * self._amount(backbone, depth) + self._overhead

    def activation_seconds(self, backbone: str, depth: int) -> float:
        """Seconds of the pass through the frozen blocks before the first epoch, from the deepest stored activations on.

        A pass also stores the activations of earlier blocks, so that shallower depths need no pass of their own.
        """
        if depth == 0 or not self._is_shared(backbone, depth):
            return 0.0
        stored = max((other for other, shared in self._shared[backbone].items() if shared), default=0)
        blocks = self._arithmetic(backbone, min(stored, depth), depth)
        return self._pass_rate(backbone) * self._work.segments * blocks

    @property
    def _overhead(self) -> float:
        return STEP_SECONDS * self._work.steps

    def _whole(self, backbone: str) -> float:
        """Multiply-adds of passing all segments through all blocks."""
        return self._work.segments * self._arithmetic(backbone, 0, None)

    def _arithmetic(self, backbone: str, first: int, last: int | None) -> float:
        """Multiply-adds of one segment's forward pass through some blocks."""
        return sum(multiply_adds(backbone, pixels=self._work.pixels)[first:last])

    def _amount(self, backbone: str, depth: int) -> float:
        """The work of an epoch in multiply-adds."""
        work = self._work
        trained = ((1 + BACKWARD) * work.train_segments + work.validation_segments) * self._arithmetic(
            backbone, depth, None
        )
        updates = UPDATE * work.steps * trainable_parameters(backbone, depth)
        again = (
            0.0 if self._is_shared(backbone, depth) else work.segments * self._arithmetic(backbone, 0, depth)
        )
        return trained + updates + again

    def _is_shared(self, backbone: str, depth: int) -> bool:
        """Whether activations are stored, as at the nearest depth seen."""
        seen = self._shared[backbone]
        return seen[_nearest(seen, depth)] if seen else self._work.sharing

    def _measured(self, *, head_only: bool) -> list[tuple[tuple[str, int], tuple[float, float]]]:
        """Cells with their seconds and epochs: those that only train the head, or the others."""
        return [
            ((backbone, depth), cell)
            for backbone, cells in self._cells.items()
            for depth, cell in cells.items()
            if (depth == len(block_names(backbone)) and self._is_shared(backbone, depth)) == head_only
        ]

    def _rates(self) -> dict[str, dict[int, float]]:
        """Measured seconds per multiply-add of each cell that trains more than the head."""
        rates: defaultdict[str, dict[int, float]] = defaultdict(dict)
        for (backbone, depth), (seconds, epochs) in self._measured(head_only=False):
            measured = max(seconds / epochs - self._overhead, 0.1 * seconds / epochs)
            rates[backbone][depth] = measured / self._amount(backbone, depth)
        return rates

    def _rate(self, backbone: str, depth: int) -> float:
        """Seconds per multiply-add of training."""
        rates = self._rates()
        if own := rates.get(backbone):
            return own[_nearest(own, depth)]
        by_passes = self._rate_by_passes(backbone, depth)
        if not rates:
            return by_passes or _typical(self._whole_passes().values()) or self._default
        ratios = [
            rate / expected
            for name, cells in rates.items()
            for at, rate in cells.items()
            if (expected := self._rate_by_passes(name, at))
        ]
        if by_passes and ratios:
            return by_passes * median(ratios)
        return median(rate for cells in rates.values() for rate in cells.values())

    def _rate_by_passes(self, backbone: str, depth: int) -> float | None:
        """The rate estimated from the pass through the frozen blocks; updates cost the same for all backbones."""
        passes = self._whole_passes()
        if backbone not in passes:
            return None
        updates = UPDATE * self._work.steps * trainable_parameters(backbone, depth)
        share = updates / self._amount(backbone, depth)
        return (1 - share) * passes[backbone] + share * median(passes.values())

    def _pass_rate(self, backbone: str) -> float:
        """Seconds per multiply-add of a pass through frozen blocks."""
        passes = self._whole_passes()
        return passes.get(backbone) or _typical(passes.values()) or self._rate(backbone, 0)

    def _whole_passes(self) -> dict[str, float]:
        """Backbone -> seconds per multiply-add of a pass that did not begin at stored activations."""
        rates = self._rates()
        fastest = max(self._passes.values(), default=0.0)
        typical = _typical(rate for cells in rates.values() for rate in cells.values()) or fastest
        return {
            backbone: rate
            for backbone, rate in self._passes.items()
            if rate >= WHOLE_PASS * (median(rates[backbone].values()) if backbone in rates else typical)
        }


def default_rate(device: str) -> float:
    """Seconds per multiply-add on a device on which nothing was measured."""
    return CPU_RATE if device == "cpu" else GPU_RATE


def _typical(rates: Iterable[float]) -> float | None:
    """The median; None if there are no rates."""
    known = list(rates)
    return median(known) if known else None


def build_seconds(backbone: str, frozen_blocks: int) -> float:
    """Estimated seconds to build a network from its initial weights."""
    return (
        BUILD_SECONDS
        + PARAMETER_BYTES * trainable_parameters(backbone, frozen_blocks) / BUILD_BYTES_PER_SECOND
    )


def restore_seconds(backbone: str, frozen_blocks: int) -> float:
    """Estimated seconds to send a checkpoint to a worker and to restore it."""
    return CHECKPOINT_BYTES * trainable_parameters(backbone, frozen_blocks) / CHECKPOINT_BYTES_PER_SECOND


def _cost(costs: _DeviceCosts, backbone: str, frozen_blocks: int) -> Cost:
    begin = build_seconds(backbone, frozen_blocks) + costs.turn_seconds
    return Cost(
        start=begin + costs.activation_seconds(backbone, frozen_blocks),
        epoch=costs.epoch_seconds(backbone, frozen_blocks),
        switch=begin + restore_seconds(backbone, frozen_blocks),
    )


def _nearest(depths: Iterable[int], depth: int) -> int:
    """The nearest of some depths; if two are equally near, the shallower."""
    return min(depths, key=lambda other: (abs(other - depth), other))
