"""The engine's ports `Trainer` and `Training`, implemented with PyTorch."""

import gc
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from genre_core.audio.mel import FrontEnd
from genre_core.models.initial_weights import weights_identity
from genre_core.models.network import ToImage, allow_tf32, build, restore
from genre_core.models.pretrained import Weights, weights_path
from genre_core.models.registry import block_of
from genre_core.recipe import Recipe
from genre_core.system import allocator, memory
from genre_core.system.disk_cache import NodeCache
from genre_core.system.memory import GIB
from genre_core.training import fine_tune
from genre_core.training.activation_cache import ActivationCache
from genre_core.training.fine_tune import EpochResult, FineTune, track_logits
from genre_core.training.segments import GPU_SHARE, SegmentArrays, Segments, shared_level_statistics
from search.data.front_end import front_end_of
from search.engine.gpu_demand import DataShape, Demand, demand_of, prediction_demand
from search.engine.messages import TrainingFacts
from search.engine.ports import Arrays, Diverged, OutOfMemory, WeightSource
from search.run.provenance import versions
from search.run.schemas import EpochRow
from search.run.split_record import SplitRecord
from search.tune import weight_shipping

if TYPE_CHECKING:  # a worker needs no pydantic
    from search.config.schema import SearchConfig

OUT_OF_MEMORY = (
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",  # no memory for cuBLAS's own buffers
    "CUDNN_STATUS_ALLOC_FAILED",
    "ALLOCATION_FAILED",  # cuDNN 9: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED
)
"""Texts of errors that mean that a GPU is out of memory, but are not a `torch.OutOfMemoryError`."""
SPARE_SHARE = 0.5
"""Fraction of the device's memory that must be free to keep the fine-tunes of paused trials there."""


@dataclass(frozen=True, kw_only=True)
class WorkingSet:
    """The data that all trials of a search share, and the limits of a worker's resources."""

    genres: tuple[str, ...]
    split: SplitRecord
    """The split as recorded in model cards."""
    train: SegmentArrays
    """Segments to train on, or those to predict."""
    validation: SegmentArrays | None
    """None to train without scoring."""
    front_end: FrontEnd
    segments_per_track: int
    weights: Mapping[str, str]
    """Backbone -> the identity of its weights."""
    cache: Path
    """The folder on each node for files that its workers share."""
    cache_bytes: int
    data_cache_bytes: int
    threads: int
    device: str
    """`cpu` or `cuda`."""
    gpu_shared: bool
    """Whether several trials share a GPU."""
    epoch_limit: float
    """Seconds after which an epoch counts as hanging."""
    checkpoints: bool
    """Whether checkpoints are stored: their budget is above 0."""
    precision: str = "float32"
    """The precision of all trials; see `Recipe.precision`."""
    gpus: float = 1.0
    """GPUs for each trial: a fraction if it is shared."""

    @classmethod
    def of(
        cls,
        config: "SearchConfig",
        *,
        genres: tuple[str, ...],
        split: SplitRecord,
        cache: Path,
        train: SegmentArrays,
        validation: SegmentArrays | None,
        weights: Mapping[str, str],
        device: str,
        gpu_shared: bool,
        gpus: float = 1.0,
    ) -> "WorkingSet":
        """Data and settings of a search; for the arguments, see the attributes."""
        return cls(
            genres=genres,
            split=split,
            train=train,
            validation=validation,
            front_end=front_end_of(config),
            segments_per_track=config.segments_per_track,
            weights=weights,
            cache=cache.absolute(),
            cache_bytes=int(config.feature_cache * GIB),
            data_cache_bytes=int(config.data_cache * GIB),
            threads=max(1, int(config.cpus_per_trial)),
            device=device,
            gpu_shared=gpu_shared,
            gpus=gpus,
            epoch_limit=config.epoch_limit,
            checkpoints=config.checkpoint_budget > 0,
            precision=config.precision,
        )


class TorchTrainer:
    """Creates fine-tunes on one device, where the data stays between them."""

    def __init__(
        self,
        working_set: WorkingSet,
        *,
        node_cache: NodeCache,
        weights: WeightSource | None,
        locate: Callable[[SegmentArrays], SegmentArrays] = lambda parts: parts,
        note: str | None = None,
    ) -> None:
        """Set up.

        Args:
            working_set: the data.
            node_cache: where the node's workers share initial weights and activations.
            weights: provides weights files that this node lacks; None if all weights are random.
            locate: returns the segments, read from files of this node.
            note: a message about this node that the user should see.
        """
        self._set = working_set
        self._cache = node_cache
        self._weights = weights
        self._locate = locate
        self._note = note
        self._device = torch.device(working_set.device)
        self._data: tuple[Segments, Segments | None] | None = None
        self._place: bool | None = None
        """Where the data is; see `_placed`."""
        self._levels: tuple[torch.Tensor, torch.Tensor] | None = None
        torch.set_num_threads(working_set.threads)
        allocator.keep_freed_memory()

    @property
    def device(self) -> str:
        """The name of the device."""
        return torch.cuda.get_device_name() if self.can_stream else "cpu"

    @property
    def can_stream(self) -> bool:
        """Whether the data can stay on the host while the device trains."""
        return self._device.type == "cuda"

    def demand(self, recipe: Recipe, *, stream: bool) -> Demand:
        """The memory that a fine-tune takes of a shared GPU; see `search.engine.ports.Trainer`."""
        total = torch.cuda.get_device_properties(self._device).total_memory if self.can_stream else 0
        return demand_of(recipe, self._shape, resident=not self._placed(stream), capacity=total)

    def prediction_demand(self, recipe: Recipe, *, stream: bool) -> Demand:
        """The memory that predictions take of a shared GPU; see `search.engine.ports.Trainer`."""
        return prediction_demand(recipe, self._shape, resident=not self._placed(stream))

    def prepare(self, recipe: Recipe, *, stream: bool = False) -> "TorchTraining":
        """A fine-tune before its first epoch; see `search.engine.ports.Trainer`."""
        allow_tf32(recipe.precision != "float32")
        with _memory_errors():
            train, validation = self._segments(stream=stream)
            if self._levels is None:
                self._levels = shared_level_statistics(train, self._cache)
            network = build(
                recipe.backbone,
                weights=self._weights_of(recipe),
                n_genres=train.n_genres,
                frozen_blocks=recipe.frozen_blocks,
                image=ToImage(*self._levels),
                seed=recipe.seed,
                node_cache=self._cache,
                precision=recipe.precision,
                device=self._device,
            )
            made = FineTune(network, recipe, train=train, validation=validation, node_cache=self._cache)
        return TorchTraining(made)

    def predict(self, recipe: Recipe, tensors: Arrays, *, stream: bool = False) -> NDArray[np.float32]:
        """Predict the tracks of `WorkingSet.train`; see `search.engine.ports.Trainer`."""
        allow_tf32(recipe.precision != "float32")
        with _memory_errors():
            segments, _ = self._segments(stream=stream)
            state = {name: torch.tensor(array) for name, array in tensors.items()}
            network = restore(recipe.backbone, state, precision=recipe.precision, device=self._device)
            # all blocks are computed once, so there is nothing to keep
            activations = ActivationCache(
                network, segments, node_cache=NodeCache(Path(), budget_bytes=0), epochs=1
            )
            return track_logits(network, segments, activations).numpy()

    def has_spare_memory(self) -> bool:
        """Whether at least half of the device's memory is free, or, on a CPU, of the machine's or container's."""
        if self.can_stream:
            free, total = torch.cuda.mem_get_info(self._device)
        else:
            free, total = memory.free_and_total()
        return free >= SPARE_SHARE * total

    def memory(self) -> int:
        """Memory in bytes: on a GPU the peak of this fine-tune, on a CPU what the process uses now."""
        if self.can_stream:
            return torch.cuda.max_memory_reserved(self._device)
        return int(psutil.Process().memory_info().rss)

    def data_bytes(self) -> int:
        """Bytes of the search's data on a GPU, which stay there between fine-tunes."""
        parts = [part for part in self._data or () if part is not None]
        return sum(part.mels.nbytes for part in parts if part.resident) if self.can_stream else 0

    def release(self, *, data: bool = False) -> None:
        """Free the memory of the last fine-tune and, if `data`, that of the data on the device."""
        if data:
            self._data = None
        gc.collect()
        allocator.release_freed_memory()
        if self.can_stream:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def card(self, recipe: Recipe, *, trial: int, epoch: int) -> dict[str, Any]:
        """The content of model.json without scores."""
        return {
            "trial": trial,
            "epoch": epoch,
            "genres": self._set.genres,
            "front_end": asdict(self._set.front_end),
            "segment_frames": self._set.train.mels.shape[-1],
            "segments_per_track": self._set.segments_per_track,
            "recipe": asdict(recipe),
            "split": self._set.split,
            "versions": versions(),
        }

    def trouble(self) -> str | None:
        """A problem of this node that the user should know; returned once, then None."""
        trouble = self._cache.pop_error()
        note = (
            f"{trouble}: trials on this node compute separately what they would share"
            if trouble
            else self._note
        )
        self._note = None
        return note

    def _placed(self, stream: bool) -> bool | None:
        """Whether the data stays on the host; None to decide by free memory, on a GPU that no other trial uses.

        On a shared GPU, a trial's share of the memory decides, since free memory depends on the other trials.
        """
        if stream or not (self.can_stream and self._set.gpu_shared):
            return stream or None
        parts = [part for part in (self._set.train, self._set.validation) if part is not None]
        total = torch.cuda.get_device_properties(self._device).total_memory
        return sum(part.mels.nbytes for part in parts) > GPU_SHARE * self._set.gpus * total

    def _segments(self, *, stream: bool) -> tuple[Segments, Segments | None]:
        """The data, which is moved if it is not where it should be."""
        if (place := self._placed(stream)) != self._place:
            self._data, self._place = None, place
        if self._data is None:
            train, scored = self._set.train, self._set.validation
            self._data = (
                self._locate(train).to(self._device, stream=place),
                None if scored is None else self._locate(scored).to(self._device, stream=place),
            )
        return self._data

    @property
    def _shape(self) -> DataShape:
        parts = [part.mels.shape for part in (self._set.train, self._set.validation) if part is not None]
        _, channels, mels, frames = parts[0]
        return DataShape(
            segments=sum(part[0] for part in parts),
            channels=channels,
            mels=mels,
            frames=frames,
            genres=len(self._set.genres),
        )

    def _weights_of(self, recipe: Recipe) -> Weights:
        """The recipe's weights: this node's file if it equals that of the head node, otherwise a copy of the latter."""
        path, identity = weights_path(recipe.backbone, recipe.weights), self._set.weights[recipe.backbone]
        if path is None or (path.is_file() and weights_identity(recipe.backbone, recipe.weights) == identity):
            return recipe.weights
        assert self._weights, "weights that are not random need a source"
        name = f"weights-{identity.removesuffix(path.suffix)}{path.suffix}"
        return weight_shipping.shipped(recipe.backbone, name=name, source=self._weights, cache=self._cache)


class TorchTraining:
    """Adapter from a `FineTune` to the engine's `Training`: results as rows, tensors as arrays on the host."""

    def __init__(self, made: FineTune) -> None:
        """Args: the fine-tune before its first epoch."""
        self._fine_tune = made

    @property
    def epochs_done(self) -> int:
        """Number of finished epochs."""
        return self._fine_tune.epochs_done

    @property
    def finished(self) -> bool:
        """Whether all epochs are done or early stopping ended the fine-tune."""
        return self._fine_tune.finished

    @property
    def best_epoch(self) -> int:
        """Epoch with the best validation F1; 0 before the first."""
        return self._fine_tune.best_epoch

    @property
    def facts(self) -> TrainingFacts:
        """Facts about the fine-tune for the trials' table."""
        return TrainingFacts(
            trainable_parameters=self._fine_tune.network.trainable_parameters,
            features=self._fine_tune.features,
            features_seconds=self._fine_tune.features_seconds,
            resident=self._fine_tune.resident,
        )

    def epoch(self, *, trial: int, attempt: int) -> EpochRow:
        """Train an epoch and score it."""
        with _memory_errors():
            self._result = self._fine_tune.epoch()
        return epoch_row(self._result, trial=trial, attempt=attempt)

    def train(self) -> None:
        """Train an epoch without scoring it."""
        with _memory_errors():
            self._fine_tune.train()

    def state(self) -> Arrays:
        """The state that the next epoch depends on and changes; on a CPU without a copy."""
        return on_host(self._fine_tune.state_dict())

    def load(self, state: Arrays) -> None:
        """Restore a state."""
        with _memory_errors():
            self._fine_tune.load_state_dict({name: torch.tensor(array) for name, array in state.items()})

    @property
    def frozen_blocks(self) -> Mapping[str, str]:
        """Frozen block -> digest of its tensors."""
        return self._fine_tune.network.frozen_contents

    def tensors(self, blocks: Collection[str]) -> Arrays:
        """The model's tensors, without those of frozen blocks that are not in `blocks`; on a CPU without a copy."""
        left_out = self.frozen_blocks.keys() - set(blocks)
        state = self._fine_tune.network.flat_state()
        return on_host({name: value for name, value in state.items() if block_of(name) not in left_out})

    def validation(self) -> Mapping[str, Any]:
        """The part of model.json about validation after the last epoch; probabilities are in the order of the split."""
        return {
            "validation": asdict(self._result.scores) | {"loss": self._result.val_loss},
            "validation_probabilities": softmax(self._fine_tune.track_logits, axis=1).tolist(),
        }


def epoch_row(result: EpochResult, *, trial: int, attempt: int) -> EpochRow:
    """An epoch's result as a row of the epochs' table."""
    scores = result.scores
    return EpochRow(
        trial=trial,
        attempt=attempt,
        epoch=result.epoch,
        train_loss=result.train_loss,
        val_loss=result.val_loss,
        val_accuracy=scores.accuracy,
        val_precision=scores.precision,
        val_recall=scores.recall,
        val_f1=scores.f1,
        f1_per_genre=scores.f1_per_genre,
        confusion=scores.confusion,
        predicted=result.predicted,
        learning_rate=result.learning_rate,
        seconds=result.seconds,
        arithmetic_seconds=result.arithmetic_seconds,
        samples_per_second=result.samples_per_second,
    )


def on_host(state: Mapping[str, torch.Tensor]) -> dict[str, NDArray[Any]]:
    """Tensors as contiguous arrays on the host; copied only if necessary."""
    return {name: np.ascontiguousarray(value.detach().cpu().numpy()) for name, value in state.items()}


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Convert PyTorch's errors that the engine handles to the engine's own, with their first line."""
    try:
        yield
    except fine_tune.Diverged as error:
        raise Diverged(f"Diverged: {str(error).splitlines()[0]}") from None
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        raise OutOfMemory(f"{type(error).__name__}: {str(error).splitlines()[0]}") from None


def _is_out_of_memory(error: RuntimeError) -> bool:
    # running out of memory while a graph is captured raises a second error, of the broken capture
    errors = (error, error.__context__)
    return any(
        isinstance(one, torch.OutOfMemoryError) or any(text in str(one) for text in OUT_OF_MEMORY)
        for one in errors
    )
