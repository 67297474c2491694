"""Probe: times how fast this machine trains each backbone, on one batch."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genre_core.models.block_costs import multiply_adds
from genre_core.models.blocks import blocks_without_weights
from genre_core.models.network import uses_channels_last
from genre_core.models.registry import find_backbone
from search.engine.costs import CellCost, Workload

REPEATS = 2
"""Number of timed batches after a warm-up batch; the fastest counts."""
PASSES = (1 + REPEATS) * 4
"""Forward passes of a batch in the probe of a backbone; a training step counts as three."""
GENRES = 10


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Device, precision and input size of a trial."""

    device: str
    """`cpu` or `cuda`."""
    threads: int
    precision: str
    mels: int
    frames: int


def probe(
    backbones: Sequence[str], setting: Setting, workload: Workload, *, limit_seconds: float
) -> tuple[str, list[CellCost]]:
    """Time a training step and a forward pass of each backbone with nothing frozen, the cheapest first.

    A GPU is probed in a separate process, because a process keeps GPU memory until it ends.

    Args:
        backbones: their names.
        setting: device, precision and input size.
        workload: of an epoch.
        limit_seconds: time limit for all backbones; those that would exceed it are left out, except the first.

    Returns:
        The name of the device as in the trials' table, and the costs of the backbones.
    """
    if setting.device == "cpu":
        return "cpu", _probe(backbones, setting, workload, limit_seconds)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(_probe_gpu, backbones, setting, workload, limit_seconds).result()


def _probe_gpu(
    backbones: Sequence[str], setting: Setting, workload: Workload, limit_seconds: float
) -> tuple[str, list[CellCost]]:
    return torch.cuda.get_device_name(), _probe(backbones, setting, workload, limit_seconds)


def _probe(
    backbones: Sequence[str], setting: Setting, workload: Workload, limit_seconds: float
) -> list[CellCost]:
    began, measured = time.perf_counter(), list[CellCost]()
    with _threads(setting.threads):
        for backbone in sorted(backbones, key=lambda name: sum(multiply_adds(name))):
            expected = _expected_seconds(backbone, measured, setting, workload)
            if measured and time.perf_counter() - began + expected > limit_seconds:
                break
            measured.append(_time(backbone, setting, workload))
    return measured


def _expected_seconds(
    backbone: str, measured: Sequence[CellCost], setting: Setting, workload: Workload
) -> float:
    """Expected seconds of the probe of a backbone, extrapolated from the last one; 0 for the first."""
    if not measured:
        return 0.0
    last = measured[-1]
    pixels = setting.mels * setting.frames
    relative = sum(multiply_adds(backbone, pixels=pixels)) / sum(multiply_adds(last.backbone, pixels=pixels))
    return PASSES * relative * (last.pass_seconds or 0.0) * workload.batch_size / workload.segments


def _time(backbone: str, setting: Setting, workload: Workload) -> CellCost:
    network = _network(backbone, setting)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-6, momentum=0.9, fused=True)
    shape = (workload.batch_size, find_backbone(backbone).channels, setting.mels, setting.frames)
    inputs = torch.rand(shape, device=setting.device)
    genre = torch.zeros(workload.batch_size, dtype=torch.int64, device=setting.device)

    def forward() -> Tensor:
        with torch.autocast(setting.device, torch.bfloat16, enabled=setting.precision == "bfloat16"):
            outputs: Tensor = network(inputs)
        return outputs

    def step() -> None:
        loss = F.cross_entropy(forward().float(), genre)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    train_seconds = _fastest(step, setting.device)
    network.eval()
    with torch.no_grad():
        pass_seconds = _fastest(forward, setting.device)
    per_segment = pass_seconds / workload.batch_size
    return CellCost(
        backbone=backbone,
        frozen_blocks=0,
        epoch_seconds=train_seconds * workload.steps + per_segment * workload.validation_segments,
        pass_seconds=per_segment * workload.segments,
    )


def _network(backbone: str, setting: Setting) -> nn.Module:
    """The backbone with a head and small weights, whose values do not change the time."""
    head = nn.Linear(find_backbone(backbone).features, GENRES, device="meta")
    blocks = blocks_without_weights(backbone).values()
    network = nn.Sequential(*blocks, head).to_empty(device=setting.device)
    with torch.no_grad():
        for tensor in [*network.parameters(), *network.buffers()]:
            tensor.fill_(1e-3 if tensor.is_floating_point() else 0)
    if uses_channels_last(backbone, torch.device(setting.device)):
        network = network.to(memory_format=torch.channels_last)
    return network.train()


def _fastest(work: Callable[[], object], device: str) -> float:
    times = []
    for _ in range(1 + REPEATS):
        began = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return min(times[1:])


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Compute with as many threads as a worker."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
