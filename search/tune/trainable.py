"""What runs on one worker: Ray's trainable, which does one epoch of one fine-tune a step."""

import faulthandler
import gc
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray
import torch
from numpy.typing import NDArray
from ray import tune
from ray.exceptions import RayError
from scipy.special import softmax

from genre_core.audio.mel import FrontEnd
from genre_core.corpus.tracks import SPLITS, Corpus
from genre_core.errors import InputError
from genre_core.models.backbones import StateDict
from genre_core.models.initial_weights import weights_identity
from genre_core.models.network import ToImage, allow_tf32, build
from genre_core.models.pretrained import Weights, weights_path
from genre_core.recipe import Recipe
from genre_core.system import allocator
from genre_core.system.disk_cache import NodeCache
from genre_core.training.fine_tune import Diverged, EpochResult, FineTune, epoch_row
from genre_core.training.segments import SegmentArrays, Segments, level_statistics
from search.engine.messages import CUT_OFF, FAILED, FINISHED, NODE_FAILED, NOTE, NUMBER, RECIPE, RESTING, TOLD
from search.run.provenance import versions
from search.tune import weight_shipping
from search.tune.barrier import wait_for_all
from search.tune.checkpoint_sender import CheckpointSender
from search.tune.gpu_ledger import GpuMemory
from search.tune.node_folder import node_folder

GPU_MEMORY_SHARE = 0.9
"""Of a GPU's memory, what trials that share it may take together."""
CONTEXT_BYTES = 600 * 1024**2
"""What a process takes of a GPU beside its tensors."""

REST_STEP_SECONDS = 1.0
"""How often a worker whose node has failed asks whether it may have another trial."""


@dataclass(frozen=True, kw_only=True)
class WorkingSet:
    """What all trials of a search work on, and how much of a node each worker may use."""

    corpus: Corpus
    train: SegmentArrays
    validation: SegmentArrays | None
    """None where all is trained on, and nothing scored."""
    front_end: FrontEnd
    segments_per_track: int
    weights: Mapping[str, str]
    """Backbone -> what tells its weights from others."""
    cache: Path
    """The folder on each node for what its workers share."""
    cache_bytes: int
    threads: int
    device: str
    """`cpu` or `cuda`."""
    gpu_shared: bool
    """Whether several trials share a GPU."""
    epoch_limit: float
    """Seconds after which an epoch is taken to hang."""
    checkpoints: bool
    """Whether there is any room for them."""


class GenreTrial(tune.Trainable):
    """One fine-tune at a time, an epoch a step. The process and its data stay for the next one."""

    _fine_tune: FineTune | None = None
    _number: int
    _cut_off: bool
    _resting: bool
    _recipe: Recipe
    _seconds: float
    _peak_memory: int
    _memory_before: int

    def setup(  # type: ignore[override]  # Ray passes the rest: tune.with_parameters
        self,
        config: dict[str, Any],
        working_set: WorkingSet,
        weights_files: Any,
        shelf: Any,
        checkpoints: Any,
        arrivals: Any,
    ) -> None:
        """Get ready for all trials of this process."""
        import torchvision  # noqa: F401  # takes seconds, which no trial should be told

        allocator.keep_freed_memory()
        torch.set_num_threads(working_set.threads)
        gc.freeze()  # what was imported stays: a collection need not look at it
        self._set = working_set
        self._weights_files = weights_files  # the WeightsFiles, in a process of its own
        self._shelf = shelf  # the ModelShelf, also in one
        self._checkpoints = checkpoints  # the CheckpointShelf, also in one
        self._sender = CheckpointSender(checkpoints)
        self._arrivals: Any | None = arrivals  # of the first trials' workers, also in one
        ray.get(arrivals.arrive.remote(ray.get_runtime_context().get_worker_id()))
        self._device = torch.device(working_set.device)
        chosen = node_folder(working_set.cache)
        self._note = chosen.note
        self._cache = NodeCache(chosen.path / "shared", budget_bytes=working_set.cache_bytes)
        self._data: tuple[Segments, Segments] | None = None
        self._gpu = gpu_memory(chosen.path) if working_set.gpu_shared else None
        self._empty = True
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial in the same process."""
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """One epoch; divergence and lack of memory are results that say so: they leave the worker alive.

        The first step of a trial that was cut off tells the epoch of its last checkpoint again.
        """
        if self._arrivals:
            wait_for_all(self._arrivals)
            self._arrivals = None
        if self._resting:
            time.sleep(REST_STEP_SECONDS)
            return {RESTING: True}
        with ended_if_it_hangs(self._set.epoch_limit):
            self._sender.wait_for_copy()
            row = self._told_again_or_next_epoch()
            if FAILED in row or row.get(FINISHED):
                self._let_go()
        return row | self._sender.news() | self._notes()

    def _told_again_or_next_epoch(self) -> dict[str, Any]:
        """What the driver is told; where the node cannot do its part, why: the trial then goes elsewhere."""
        try:
            row = self._told_again() if self._cut_off else None
            return row or self._next_epoch()
        except (OSError, InputError) as error:
            if isinstance(error, RayError):  # raised in another process, which is not this node's
                raise
            self._let_go()
            self._resting = True
            return {NODE_FAILED: f"{type(error).__name__}: {error}"}

    def _notes(self) -> dict[str, str]:
        """What the user should know of this node, each time that there is something new."""
        trouble = self._cache.pop_error()
        note = f"{trouble}: trials compute what they would share" if trouble else self._note
        self._note = None
        return {NOTE: note} if note else {}

    def _next_epoch(self) -> dict[str, Any]:
        """What the driver is told of an epoch, or of why there is none."""
        started = time.perf_counter()
        try:
            fine_tune, result = self._epoch()
        except (Diverged, torch.OutOfMemoryError) as error:
            return {FAILED: f"{type(error).__name__}: {str(error).splitlines()[0]}"}
        self._keep_if_best(fine_tune, result)
        self._seconds += time.perf_counter() - started
        row = self._row(fine_tune, result)
        if self._set.checkpoints and not fine_tune.finished:
            self._sender.send(
                self._number, fine_tune.epochs_done, lambda: on_host(fine_tune.state_dict()), row
            )
        return row

    def _row(self, fine_tune: FineTune, result: EpochResult) -> dict[str, Any]:
        """What the driver is told of an epoch."""
        self._peak_memory = max(self._peak_memory, _memory_bytes(self._device))
        if self._gpu:
            self._gpu.measured(self._kind, self._peak_memory + CONTEXT_BYTES)
        return epoch_row(result) | {
            FINISHED: fine_tune.finished,
            "best_epoch": fine_tune.best_epoch,
            "trainable_parameters": fine_tune.network.trainable_parameters,
            "features": fine_tune.features,
            "features_seconds": fine_tune.features_seconds,
            "resident": fine_tune.resident,
            "total_seconds": self._seconds,
            "memory_before_bytes": self._memory_before,
            "peak_memory_bytes": self._peak_memory,
            "device": torch.cuda.get_device_name() if self._device.type == "cuda" else "cpu",
        }

    def _told_again(self) -> dict[str, Any] | None:
        """Go on from the trial's last checkpoint, if it has one: the result of its epoch."""
        self._cut_off = False
        if (kept := ray.get(self._checkpoints.last.remote(self._number))) is None:
            return None
        arrays: dict[str, NDArray[Any]] = kept[0]
        row: dict[str, Any] = kept[1]
        fine_tune = self._prepare()
        fine_tune.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
        self._seconds = row["total_seconds"]
        return row | {TOLD: True}

    def cleanup(self) -> None:
        """Let go of the network when the process ends."""
        self._let_go()

    def _begin(self, config: dict[str, Any]) -> None:
        """Forget the last trial, which may have been pruned, before the next one takes any memory."""
        self._let_go()
        self._number = config[NUMBER]
        self._cut_off = config[CUT_OFF]
        self._resting = False
        self._recipe = Recipe(**config[RECIPE])
        self._seconds = 0.0
        self._peak_memory = 0
        self._memory_before = _memory_bytes(self._device)

    def _let_go(self) -> None:
        """Give all memory back that a fine-tune took."""
        self._sender.wait_for_copy()
        if self._empty:
            return
        self._fine_tune = None
        self._empty = True
        gc.collect()
        allocator.release_freed_memory()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        if self._gpu:
            self._gpu.give_back()

    def _epoch(self) -> tuple[FineTune, EpochResult]:
        """The next epoch; where the GPU's memory ran out beside other trials, again with the GPU to itself."""
        try:
            return self._one_more()
        except torch.OutOfMemoryError:
            if self._gpu is None:
                raise
            done = self._fine_tune.epochs_done if self._fine_tune else 0
        self._let_go()
        self._prepare(alone=True)
        for _ in range(done):
            self._one_more()
        return self._one_more()

    def _one_more(self) -> tuple[FineTune, EpochResult]:
        fine_tune = self._fine_tune or self._prepare()
        return fine_tune, fine_tune.epoch()

    def _prepare(self, *, alone: bool = False) -> FineTune:
        """The network cut at the recipe's depth, with its activations there."""
        self._empty = False
        if self._gpu and not self._gpu.ask(self._kind, alone=alone):
            self._data = None  # who waits holds nothing
            torch.cuda.empty_cache()
            self._gpu.wait()
        if self._data is None:
            assert self._set.validation is not None, "the trials of a search are scored"
            self._data = self._set.train.to(self._device), self._set.validation.to(self._device)
            self._levels = level_statistics(self._data[0])
        train, validation = self._data
        self._fine_tune = cut_and_prepared(
            self._recipe,
            self._set,
            self._weights_files,
            train=train,
            validation=validation,
            image=ToImage(*self._levels),
            node_cache=self._cache,
            device=self._device,
        )
        return self._fine_tune

    @property
    def _kind(self) -> str:
        """What a trial's need of memory depends on, beside the data."""
        return kind_of(self._recipe)

    def _keep_if_best(self, fine_tune: FineTune, result: EpochResult) -> None:
        """Offer the model where this epoch is the trial's best and the trial among the search's best."""
        if fine_tune.best_epoch != result.epoch:
            return
        f1 = result.scores.f1
        if ray.get(self._shelf.wants.remote(self._number, f1)):
            tensors = on_host(fine_tune.network.flat_state())
            card = model_card(self._number, result.epoch, self._recipe, self._set) | {
                "validation": asdict(result.scores) | {"loss": result.val_loss},
                # in the split's order
                "validation_probabilities": softmax(fine_tune.track_logits, axis=1).tolist(),
            }
            ray.get(self._shelf.offer.remote(self._number, f1, tensors, card))


def cut_and_prepared(
    recipe: Recipe,
    working_set: WorkingSet,
    weights_files: Any,
    *,
    train: Segments,
    validation: Segments | None,
    image: ToImage,
    node_cache: NodeCache,
    device: torch.device,
) -> FineTune:
    """A fine-tune by this recipe before its first epoch."""
    allow_tf32(recipe.precision != "float32")
    network = build(
        recipe.backbone,
        weights=_weights(recipe, working_set.weights[recipe.backbone], weights_files, node_cache),
        n_genres=train.n_genres,
        frozen_blocks=recipe.frozen_blocks,
        image=image,
        seed=recipe.seed,
        node_cache=node_cache,
        precision=recipe.precision,
        device=device,
    )
    return FineTune(network, recipe, train=train, validation=validation, node_cache=node_cache)


def _weights(recipe: Recipe, identity: str, files: Any, cache: NodeCache) -> Weights:
    """The recipe's weights on this node: its own file if that is the head's, else what the head sends."""
    path = weights_path(recipe.backbone, recipe.weights)
    if path is None or (path.is_file() and weights_identity(recipe.backbone, recipe.weights) == identity):
        return recipe.weights
    name = f"weights-{identity.removesuffix(path.suffix)}{path.suffix}"
    return weight_shipping.sent(recipe.backbone, name=name, files=files, cache=cache)


def kind_of(recipe: Recipe) -> str:
    """What a trial's need of memory depends on, beside the data."""
    return f"{recipe.backbone}/{recipe.frozen_blocks}/{recipe.batch_size}/{recipe.precision}"


@contextmanager
def ended_if_it_hangs(seconds: float) -> Iterator[None]:
    """End this process, with its threads' stacks in its log, if what it does takes longer.

    A clock that needs neither the interpreter nor its lock: what hangs may hold both.
    """
    faulthandler.dump_traceback_later(seconds, exit=True, file=sys.stderr)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def model_card(trial: int, epoch: int, recipe: Recipe, working_set: WorkingSet) -> dict[str, Any]:
    """Everything about a model that its tensors and its scores do not say: model.json."""
    return {
        "trial": trial,
        "epoch": epoch,
        "genres": working_set.corpus.genres,
        "front_end": asdict(working_set.front_end),
        "segment_frames": working_set.train.mels.shape[-1],
        "segments_per_track": working_set.segments_per_track,
        "recipe": asdict(recipe),
        "split": {part: [track.track_id for track in working_set.corpus.part(part)] for part in SPLITS},
        "versions": versions(),
    }


def on_host(state: StateDict) -> dict[str, NDArray[Any]]:
    """Copies of tensors on the host, each in one piece."""
    return {name: np.ascontiguousarray(value.detach().cpu().numpy()) for name, value in state.items()}


def _memory_bytes(device: torch.device) -> int:
    """The trial's peak on a GPU; on CPU the process's resident memory now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    return int(psutil.Process().memory_info().rss)


def gpu_memory(cache: Path) -> GpuMemory:
    """The ledger of the GPU that Ray gave this process."""
    properties = torch.cuda.get_device_properties(0)
    return GpuMemory(
        cache / "gpus" / f"{properties.uuid}.json",
        capacity=int(GPU_MEMORY_SHARE * properties.total_memory),
        pid=os.getpid(),
    )
