"""Which steps of an epoch are replayed; what a replay computes is tested on a GPU."""

import pytest
import torch
from torch import Tensor

from genre_core.training.step_graph import EAGER_STEPS, MIN_STEPS, EpochSteps, Replay, Step


class Recorded:
    """A step that notes how it was taken: `eager`, or `captured` or `replayed` by the graph of a batch size."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, int]] = []

    def step(self, inputs: Tensor) -> Tensor:
        """Take the step eagerly."""
        self.taken.append(("eager", len(inputs)))
        return inputs.sum()

    def capture(self, step: Step, inputs: tuple[Tensor, ...]) -> Replay:
        """Capture, without a GPU."""
        self.taken.append(("captured", len(inputs[0])))

        def replay(*own: Tensor) -> Tensor:
            assert own[0].shape == inputs[0].shape
            self.taken.append(("replayed", len(own[0])))
            return own[0].sum()

        return replay


def _epoch(sizes: list[int], *, captures: bool = True) -> tuple[list[tuple[str, int]], list[float]]:
    recorded = Recorded()
    steps = EpochSteps(recorded.step, sizes, capture=recorded.capture if captures else None)
    return recorded.taken, [float(steps(torch.full((size,), 2.0))) for size in sizes]


def test_each_batch_size_is_captured_once_after_its_eager_steps() -> None:
    sizes = [8] * MIN_STEPS + [7] * MIN_STEPS
    taken, losses = _epoch(sizes)
    assert losses == [2.0 * size for size in sizes]
    for size in (8, 7):
        assert [how for how, own in taken if own == size] == [
            *["eager"] * EAGER_STEPS,
            "captured",
            *["replayed"] * (MIN_STEPS - EAGER_STEPS),
        ]


@pytest.mark.parametrize(
    ("sizes", "captures"), [([8] * (MIN_STEPS - 1), True), ([8] * MIN_STEPS, False), ([8, 7] * 5, True)]
)
def test_few_steps_of_a_size_and_steps_on_a_cpu_are_eager(sizes: list[int], captures: bool) -> None:
    taken, losses = _epoch(sizes, captures=captures)
    assert taken == [("eager", size) for size in sizes]
    assert losses == [2.0 * size for size in sizes]
