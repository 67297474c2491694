"""Training steps replayed as a CUDA graph, which takes one launch instead of one per kernel."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

EAGER_STEPS = 3
"""Steps of each batch size that run eagerly in every epoch before its graph is captured: PyTorch asks for a warm-up,
and a resumed fine-tune, whose first epoch needs one, must take the same steps as an undisturbed one."""
MIN_STEPS = 10
"""Minimum number of steps of one batch size in an epoch for which capturing pays off."""

Step = Callable[..., Tensor]
"""A training step: takes the batch's tensors, and returns the loss on the device: [], or [members] of a stack."""


class Replay(Protocol):
    """A captured step."""

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Take the step with inputs of the shapes that it was captured with."""
        ...


class StepGraph:
    """A training step captured as a CUDA graph. It holds the memory of one step until it is deleted."""

    def __init__(self, step: Step, inputs: tuple[Tensor, ...]) -> None:
        """Capture the step without taking it.

        Args:
            step: must not synchronize with the device or read Python values that change from step to step.
            inputs: tensors on the device, of the shapes and types of all later ones.
        """
        self._inputs = tuple(torch.empty_like(tensor) for tensor in inputs)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._loss = step(*self._inputs)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Take the step; the returned tensor is overwritten by the next one."""
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._graph.replay()
        return self._loss


class EpochSteps:
    """The steps of one epoch, each taken eagerly or by a graph that lives as long as this object."""

    def __init__(
        self,
        step: Step,
        batch_sizes: list[int],
        *,
        capture: Callable[[Step, tuple[Tensor, ...]], Replay] | None,
        batch_axis: int = 0,
    ) -> None:
        """Plan an epoch.

        Args:
            step: takes a training step.
            batch_sizes: the epoch's number of segments per step, in order.
            capture: makes a replay of a step for inputs like the given ones; None takes all steps eagerly.
            batch_axis: dimension of a step's first input that is the batch.
        """
        self._batch_axis = batch_axis
        self._step = step
        self._capture = capture
        self._planned = {size: batch_sizes.count(size) for size in batch_sizes}
        self._taken = dict.fromkeys(batch_sizes, 0)
        self._replays: dict[int, Replay] = {}

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Take the next step and return its loss."""
        size = inputs[0].shape[self._batch_axis]
        self._taken[size] += 1
        if self._capture is None or self._planned[size] < MIN_STEPS or self._taken[size] <= EAGER_STEPS:
            return self._step(*inputs)
        if size not in self._replays:
            self._replays[size] = self._capture(self._step, inputs)
        return self._replays[size](*inputs)
