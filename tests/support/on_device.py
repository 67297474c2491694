"""Fine-tunes on a GPU without Ray, or on the CPU, where `GPU_DEVICE=cpu` proves the tests themselves."""

import functools
import gc
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from fakes import LocalCheckpoints, PatientWatchdog
from noise import arrays
from small_models import models_of
from working_sets import working_set

from genre_core.models import initial_weights
from genre_core.models.network import ToImage, allow_tf32, build
from genre_core.recipe import Recipe
from genre_core.system.disk_cache import NodeCache
from genre_core.training.fine_tune import FineTune
from genre_core.training.segments import SegmentArrays, level_statistics
from search.engine.ports import GpuLedger
from search.engine.worker import WorkerSession
from search.run.checkpoints import clear_checkpoints
from search.tune.torch_trainer import TorchTrainer

DEVICE = torch.device(os.environ.get("GPU_DEVICE", "cuda"))
ON_GPU = DEVICE.type == "cuda"
MARKS = [
    pytest.mark.gpu,
    pytest.mark.skipif(ON_GPU and not torch.cuda.is_available(), reason="no CUDA device"),
]
"""For `pytestmark` of each module."""
NEEDS_GPU = pytest.mark.skipif(not ON_GPU, reason="needs CUDA, but GPU_DEVICE is cpu")
FAMILIES = {"alexnet": 7, "densenet121": 5, "resnet18": 5, "resnet34": 5, "vgg16": 7}
"""Backbone -> number of blocks."""
KINDS = [(backbone, depth) for backbone, blocks in FAMILIES.items() for depth in (0, blocks // 2, blocks)]
PLENTY = 2**33
"""Budget of a node's cache, bytes."""
TRAIN, VALIDATION = (arrays(150), arrays(70, seed=1)) if ON_GPU else (arrays(21), arrays(11, seed=1))
"""Sizes that are not multiples of the batch size or of the chunk size."""


os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for deterministic kernels
_created_once = functools.cache(initial_weights._create)


def models() -> AbstractContextManager[Any]:
    """Torchvision's networks on a GPU, each initialised once; small ones and one thread on a CPU."""
    if ON_GPU:
        return patch.object(initial_weights, "_create", _created_once)
    torch.set_num_threads(1)
    return models_of("small")


@contextmanager
def deterministic() -> Iterator[None]:
    """Deterministic kernels, where PyTorch has them: cuDNN's default ones for float32 do not repeat to the bit."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def node_cache(folder: Path, budget_bytes: int = PLENTY) -> NodeCache:
    """The cache of a node, whose budget may be 0."""
    return NodeCache(folder / "shared", budget_bytes=budget_bytes)


def fine_tune(recipe: Recipe, train: SegmentArrays, validation: SegmentArrays, cache: NodeCache) -> FineTune:
    """A fine-tune before its first epoch, on the device."""
    allow_tf32(recipe.precision != "float32")
    parts = train.to(DEVICE), validation.to(DEVICE)
    network = build(
        recipe.backbone,
        weights=recipe.weights,
        n_genres=train.n_genres,
        frozen_blocks=recipe.frozen_blocks,
        image=ToImage(*level_statistics(parts[0])),
        seed=recipe.seed,
        node_cache=cache,
        precision=recipe.precision,
        device=DEVICE,
    )
    return FineTune(network, recipe, train=parts[0], validation=parts[1], node_cache=cache)


def trainer(
    folder: Path, train: SegmentArrays, validation: SegmentArrays | None, *, cache_bytes: int = 0
) -> TorchTrainer:
    """The trainer of real searches, for random weights."""
    given = working_set(
        folder,
        train=train,
        validation=validation,
        cache_bytes=cache_bytes,
        device=DEVICE.type,
        gpu_shared=True,
        epoch_limit=600.0,
    )
    return TorchTrainer(given, node_cache=node_cache(folder, cache_bytes), weights=None)


def session(folder: Path, own: TorchTrainer, ledger: GpuLedger | None = None) -> WorkerSession:
    """A worker whose checkpoints are files in the folder."""
    clear_checkpoints(folder / "checkpoints", keep=[])
    return WorkerSession(
        own,
        node="n",
        pid=os.getpid(),
        watchdog=PatientWatchdog(),
        checkpoints=LocalCheckpoints.in_folder(folder / "checkpoints"),
        ledger=ledger,
    )


def allocated() -> int:
    """Bytes of all tensors on the device."""
    gc.collect()
    if ON_GPU:
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated()
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for tensor in gc.get_objects()
        if issubclass(type(tensor), torch.Tensor)
        and tensor.device.type == "cpu"  # isinstance wakes lazy objects
    }
    return sum(storages.values())
