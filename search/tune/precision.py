"""The data type that the layers of all trials compute in: decided by the devices of a search before its first trial."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.config.schema import SearchConfig

AUTO, FLOAT32, BFLOAT16 = "auto", "float32", "bfloat16"
"""Values of `precision`."""
NATIVE_MAJOR = 8
"""Major compute capability of the first NVIDIA GPUs that compute bfloat16: Ampere. PyTorch emulates it on older ones,
such as T4 (7.5) and V100 (7.0)."""
GPU_PART = 0.01
"""Fraction of a GPU that is reserved for a process that inspects it."""
ANSWER_SECONDS = 60.0
"""Time limit for nodes to start processes that inspect their GPUs; they wait if other jobs use all GPUs."""
_CPU_FLAGS = frozenset(["avx512_bf16", "amx_bf16", "bf16"])
"""Flags of processors that compute bfloat16, as Linux names them."""
_CPU_INFO = Path("/proc/cpuinfo")

GpuSupport = Callable[[], Sequence[bool]]
"""Returns for each GPU of a search whether it computes bfloat16 natively."""


def decided(config: SearchConfig, *, gpus: float, support: GpuSupport) -> SearchConfig:
    """A config whose precision is not `auto`, so that all trials of a search compute in the same one.

    Args:
        config: of the search.
        gpus: for each trial.
        support: called only if the GPUs decide.
    """
    if config.precision != AUTO:
        return config
    return config.model_copy(update={"precision": of_gpus(support()) if gpus else FLOAT32})


def of_gpus(native: Iterable[bool]) -> str:
    """bfloat16 if all GPUs compute it natively, or if none is known yet because the cluster adds them on demand."""
    return BFLOAT16 if all(native) else FLOAT32


def gpus_of_this_process() -> list[bool]:
    """Whether each GPU that this process sees computes bfloat16 natively."""
    return [computes_bfloat16(number) for number in range(torch.cuda.device_count())]


def gpus_of_this_machine() -> list[bool]:
    """As `gpus_of_this_process`, in a separate process, because one that inspects a GPU may keep memory there."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(gpus_of_this_process).result()


def gpus_of_cluster() -> list[bool]:
    """The same for one GPU of each current node with GPUs, assuming that a node's GPUs are alike; no late answers."""
    # a process that was given no GPU sees none
    remote: Any = ray.remote(num_cpus=0, num_gpus=GPU_PART, max_calls=1, max_retries=0)(gpus_of_this_process)
    nodes = [
        node["NodeID"]
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"] and node["Resources"].get("GPU")
    ]
    pinned = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes]
    answers = [remote.options(scheduling_strategy=strategy).remote() for strategy in pinned]
    if not answers:
        return []
    ready, late = ray.wait(answers, num_returns=len(answers), timeout=ANSWER_SECONDS)
    for answer in late:
        ray.cancel(answer)
    return [native for answer in ready for native in _answer(answer)]


def computes_bfloat16(gpu: int) -> bool:
    """Whether a GPU, by its number in this process, computes bfloat16 natively."""
    with torch.cuda.device(gpu):
        supported: bool = torch.cuda.is_bf16_supported(including_emulation=False)
    is_nvidia = torch.version.hip is None
    return supported and (not is_nvidia or torch.cuda.get_device_capability(gpu)[0] >= NATIVE_MAJOR)


def cpu_computes_bfloat16(info: Path = _CPU_INFO) -> bool:
    """Whether this machine's processor has instructions for bfloat16; False where Linux's list of them is missing."""
    try:
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    flags = (line.partition(":")[2] for line in lines if line.startswith(("flags", "Features")))
    return not _CPU_FLAGS.isdisjoint(next(flags, "").split())


def emulation(precision: str, device: str) -> str | None:
    """A message if this process's device, `cpu` or `cuda`, must emulate the precision; otherwise None."""
    if precision != BFLOAT16 or (computes_bfloat16(0) if device == "cuda" else cpu_computes_bfloat16()):
        return None
    name = torch.cuda.get_device_name(0) if device == "cuda" else "this processor"
    return (
        f"{name} emulates bfloat16, the precision of this search, which is slow; results stay comparable; for a "
        "search on such devices, set precision=float32"
    )


def _answer(answer: Any) -> list[bool]:
    """The answer of a node; none if the node has failed meanwhile."""
    try:
        found: list[bool] = ray.get(answer)
    except RayError:
        return []
    return found
