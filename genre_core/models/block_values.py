"""Measurement of the values that each block of a backbone holds for a segment, from shapes (on the meta device)."""

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from genre_core.models.blocks import blocks_without_weights
from genre_core.models.registry import find_backbone

SIDE = 224
"""Mel bands and frames of the segments that are measured; a backbone with its own front end has its mel bands."""
_SEGMENTS = 13
"""Differs from the first dimension of all parameters, so that tensors of segments can be recognized."""


class BlockValues(NamedTuple):
    """Number of values that a block holds for one segment."""

    saved: float
    """Saved for the backward pass; parameters are not counted."""
    largest: float
    """In the largest tensor."""
    output: float


@cache
def measured_values(backbone: str) -> tuple[int, tuple[BlockValues, ...]]:
    """Pixels of the measured segments, and the values of each block."""
    own = find_backbone(backbone)
    mels = own.front_end.n_mels if own.front_end else SIDE
    activations = torch.empty(_SEGMENTS, own.channels, mels, SIDE, device="meta")
    found = []
    for block in blocks_without_weights(backbone).values():
        values, activations = _measure(block, activations)
        found.append(values)
    return mels * SIDE, tuple(found)


def _measure(block: nn.Module, inputs: Tensor) -> tuple[BlockValues, Tensor]:
    """The values of a block in training, and its output for these inputs."""
    sizes, saved = _Sizes(), dict[int, Tensor]()

    def pack(tensor: Tensor) -> Tensor:
        if _is_of_segments(tensor):
            saved[tensor.untyped_storage()._cdata] = tensor  # several operations may save one tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), sizes:
        output: Tensor = block.train()(inputs.detach().requires_grad_())
    held = sum(t.untyped_storage().nbytes() / t.element_size() for t in saved.values())
    largest = max(sizes.largest, inputs.numel())
    return BlockValues(*(number / _SEGMENTS for number in (held, largest, output.numel()))), output.detach()


class _Sizes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the number of values in the largest result of the operations inside the context."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.largest = 0

    def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = call(*args, **(kwargs or {}))
        for result in results if isinstance(results, tuple | list) else [results]:
            if isinstance(result, Tensor) and _is_of_segments(result):
                self.largest = max(self.largest, result.numel())
        return results


def _is_of_segments(tensor: Tensor) -> bool:
    """Whether a tensor holds values of the segments, not parameters."""
    return tensor.dim() > 0 and len(tensor) == _SEGMENTS
