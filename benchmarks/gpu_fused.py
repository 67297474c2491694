"""Parts of `gpu.py`: trials trained as one stack or one after another, and convolutions of several trials, by layer."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import plain
import psutil
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genre_core.models.registry import BLOCKS
from genre_core.training.fine_tune import FineTune
from genre_core.training.fused import FusedFineTunes, share_constants

if TYPE_CHECKING:
    from gpu import Bench, Setting

REPEATS = 3
"""Trials, and stacks of each size, of which the fastest counts."""
MEMORY_SHARE = 0.5
"""Most of the free memory that the tensors of a stack may take; larger ones are left out."""
TENSORS = 3
"""For each parameter: itself, its gradient and its momentum."""
FLOAT_BYTES = 4
LAST_CONVOLUTIONS = {
    "alexnet": "conv5",
    "densenet121": "block4",
    "resnet18": "layer4",
    "resnet34": "layer4",
    "vgg16": "stage5",
}
"""Backbone -> its last block with convolutions."""
LAYERS = 3
"""Most layers of a block that are measured."""
MEASURED_SECONDS, LEAST_REPEATS = 0.3, 3


def stacked_trials(bench: "Bench", setting: "Setting", counts: Sequence[int], epochs: int) -> dict[str, Any]:
    """Trials an hour of one kind: one after another, and in stacks of so many trials.

    Building the networks is the same for both and measured apart; activations are cached before. On a CPU, an hour is
    one of computing time of one core, whatever else runs.
    """
    row: dict[str, Any] = asdict(setting) | {"epochs": epochs, "stacked": []}
    _trained(bench, setting, 1, epochs)  # fills the cache
    alone = [_alone(bench, setting, epochs) for _ in range(REPEATS)]
    row["prepare"] = min(prepare for prepare, _ in alone)
    row["alone_per_hour"] = 3600 / min(seconds for _, seconds in alone)
    for count in counts:
        if bench.parameters(setting) * FLOAT_BYTES * TENSORS * count > MEMORY_SHARE * _free(bench.device):
            row["stacked"].append({"trials": count, "per_hour": None})
            continue
        seconds = min(_trained(bench, setting, count, epochs) for _ in range(REPEATS))
        row["stacked"].append({"trials": count, "per_hour": 3600 * count / seconds})
    return row


def _members(bench: "Bench", setting: "Setting", count: int, epochs: int) -> list[FineTune]:
    """Fine-tunes that differ in their learning rates; a GPU would not have room for the frozen blocks of each."""
    members: list[FineTune] = []
    with patch("genre_core.training.activation_cache.caching_is_faster", lambda *_, **__: True):
        for number in range(count):
            rate = plain.LEARNING_RATE * (1 + number / 100)
            recipe = replace(setting.recipe(epochs), learning_rate=rate)
            members.append(bench.fine_tune(setting, cached=True, recipe=recipe))
            if number:
                share_constants(members[0], members[-1])
    return members


def _alone(bench: "Bench", setting: "Setting", epochs: int) -> tuple[float, float]:
    """Seconds to prepare a trial, and of its epochs."""
    times = [_now(bench.device)]
    (member,) = _members(bench, setting, 1, epochs)
    times.append(_now(bench.device))
    for _ in range(epochs):
        member.epoch()
    times.append(_now(bench.device))
    return times[1] - times[0], times[2] - times[1]


def _trained(bench: "Bench", setting: "Setting", count: int, epochs: int) -> float:
    """Seconds of all epochs of a stack, and of stacking."""
    members = _members(bench, setting, count, epochs)
    began = _now(bench.device)
    stack = FusedFineTunes(members)
    for _ in range(epochs):
        stack.epoch()
    return _now(bench.device) - began


def _now(device: torch.device) -> float:
    """Seconds on a clock, after the device has finished; on a CPU, of this process's computing time."""
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def _free(device: torch.device) -> int:
    """Free bytes of the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0]
    return int(psutil.virtual_memory().available)


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """A convolution and the shape of its input, [batch, channels, height, width]."""

    layer: nn.Conv2d
    shape: tuple[int, ...]

    @property
    def facts(self) -> dict[str, Any]:
        """What identifies it."""
        return {
            "channels": [self.layer.in_channels, self.layer.out_channels],
            "kernel": self.layer.kernel_size[0],
            "stride": self.layer.stride[0],
            "input": list(self.shape),
        }


def convolutions(backbone: str, *, batch_size: int, side: int) -> list[Convolution]:
    """The first distinct convolutions of a backbone's last block that has any."""
    blocks = BLOCKS[backbone]
    names = blocks[: blocks.index(LAST_CONVOLUTIONS[backbone]) + 1]
    frozen, _ = plain.network(backbone, len(names), 10, torch.device("cpu"))
    found: dict[str, Convolution] = {}

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d)
        own = Convolution(layer=layer, shape=(batch_size, *inputs[0].shape[1:]))
        found.setdefault(str(own.facts), own)

    for layer in frozen[-1].modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(note)
    with torch.no_grad():
        frozen(torch.zeros(1, 3, side, side))
    return list(found.values())[:LAYERS]


def stacked_convolution(
    convolution: Convolution, count: int, *, device: torch.device, precision: str
) -> dict[str, float]:
    """Milliseconds of forward and backward of several trials' layers: one by one, as groups, and by vmap."""
    layer, shape = convolution.layer, convolution.shape
    options: dict[str, Any] = {"stride": layer.stride, "padding": layer.padding}
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    memory = torch.channels_last if device.type == "cuda" else torch.contiguous_format

    def tensor(*sizes: int) -> Tensor:
        made = torch.randn(sizes, device=device, dtype=dtype)
        return made.contiguous(memory_format=memory) if made.dim() == 4 else made

    weight = tuple(layer.weight.shape)
    inputs, weights = ([tensor(*sizes).requires_grad_() for _ in range(count)] for sizes in (shape, weight))
    wide = tensor(shape[0], count * shape[1], *shape[2:]).requires_grad_()
    grouped_weight = tensor(count * weight[0], *weight[1:]).requires_grad_()
    stacked = tensor(count, *shape).requires_grad_(), tensor(count, *weight).requires_grad_()
    mapped = torch.func.vmap(lambda own, kernel: F.conv2d(own, kernel, **options))
    output = F.conv2d(inputs[0], weights[0], **options)
    gradients = {
        "alone": tensor(*output.shape),
        "groups": tensor(shape[0], count * output.shape[1], *output.shape[2:]),
        "vmap": tensor(count, *output.shape),
    }

    def alone() -> object:
        return [
            torch.autograd.grad(F.conv2d(own, kernel, **options), (own, kernel), gradients["alone"])
            for own, kernel in zip(inputs, weights, strict=True)
        ]

    def groups() -> object:
        result = F.conv2d(wide, grouped_weight, groups=count, **options)
        return torch.autograd.grad(result, (wide, grouped_weight), gradients["groups"])

    def by_vmap() -> object:
        return torch.autograd.grad(mapped(*stacked), stacked, gradients["vmap"])

    ways: dict[str, Callable[[], object]] = {"alone": alone, "groups": groups, "vmap": by_vmap}
    return {name: 1000 * _seconds(way, device) for name, way in ways.items()}


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Median seconds, see `_now`; on a GPU, of a replayed graph, as steps are in training."""
    for _ in range(LEAST_REPEATS):
        work()
    if device.type == "cuda":
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            kept = work()
        work = graph.replay
    seconds: list[float] = []
    while len(seconds) < LEAST_REPEATS or sum(seconds) < MEASURED_SECONDS:
        began = _now(device)
        work()
        seconds.append(_now(device) - began)
    if device.type == "cuda":
        del kept
    return statistics.median(seconds)
