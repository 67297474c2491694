"""Estimate of the GPU memory of a trial, for kinds of trials that were not measured yet, and what a kind is."""

from collections.abc import Callable
from dataclasses import dataclass

from genre_core.models.block_costs import CHUNK, block_values, trainable_parameters
from genre_core.models.registry import is_own
from genre_core.recipe import SGD, Recipe, state_bytes
from genre_core.system.memory import ACTIVATIONS_GPU_SHARE

CONTEXT_BYTES = 600 * 1024**2
"""GPU memory that a process uses in addition to its tensors."""
WORKSPACE_BYTES = 256 * 1024**2
"""GPU memory for the buffers of cuBLAS and cuDNN, and for what PyTorch's allocator rounds up."""
SAFETY = 1.25
"""Safety factor for memory that the estimate leaves out, such as fragmentation and cuDNN's choice of algorithms."""
LIVE_TENSORS = 3
"""Tensors of the largest size that a forward pass holds at a time."""
STEPS_HELD = 2
"""Training steps whose memory is held: that of eager steps, and that of the captured one."""
_FLOAT_BYTES = 4
_HALF_BYTES = 2
_INPUT_COPIES = 4
"""Copies of a batch of segments as float32: normalized, mixed and masked."""


@dataclass(frozen=True, kw_only=True)
class DataShape:
    """The properties of a search's data that the memory use of a trial depends on."""

    segments: int
    """Of training and validation."""
    channels: int
    mels: int
    frames: int
    genres: int

    @property
    def pixels(self) -> int:
        """Of a channel of a segment."""
        return self.mels * self.frames

    @property
    def bytes(self) -> int:
        """Bytes of all segments, as float16."""
        return _HALF_BYTES * self.segments * self.channels * self.pixels

    def kind(self, *, resident: bool) -> str:
        """A key for the shape and the place of the data."""
        where = "" if resident else "/streamed"
        return f"{self.channels}x{self.mels}x{self.frames}/{self.segments}{where}"


@dataclass(frozen=True, kw_only=True)
class Demand:
    """A trial's demand for GPU memory."""

    kind: str
    """Equal for trials that take the same memory."""
    estimate: int | None
    """Estimated bytes, including those of its process, used until its kind is measured; None if unknown."""


def demand_of(recipe: Recipe, data: DataShape, *, resident: bool, capacity: int) -> Demand:
    """The demand of a trial.

    Args:
        recipe: of the trial.
        data: of its search.
        resident: whether the data is stored on the GPU.
        capacity: bytes of the GPU.
    """
    return Demand(
        kind=f"{kind_of(recipe)}/{data.kind(resident=resident)}",
        estimate=_estimate(recipe, data, lambda: _training_bytes(recipe, data, capacity), resident=resident),
    )


def prediction_demand(recipe: Recipe, data: DataShape, *, resident: bool) -> Demand:
    """The demand of predicting all segments with the model of a trial; for the arguments, see `demand_of`."""
    return Demand(
        kind=f"predict/{recipe.backbone}/{recipe.precision}/{data.kind(resident=resident)}",
        estimate=_estimate(recipe, data, lambda: _prediction_bytes(recipe, data), resident=resident),
    )


def kind_of(recipe: Recipe) -> str:
    """A key for the settings that the memory use of a trial depends on."""
    common = f"{recipe.backbone}/{recipe.frozen_blocks}/{recipe.batch_size}/{recipe.precision}"
    options = [recipe.optimizer] * (recipe.optimizer != SGD) + ["mixup"] * bool(recipe.mixup)
    options += ["masking"] * bool(recipe.masking) + ["input"] * recipe.augments_input
    options += ["probe"] * (recipe.head_init == "probe")
    return "/".join([common, *options])


def _estimate(
    recipe: Recipe, data: DataShape, tensor_bytes: Callable[[], int], *, resident: bool
) -> int | None:
    try:
        tensors = tensor_bytes()
    except Exception:
        if not is_own(recipe.backbone):
            raise
        return None  # a user's backbone may not run on shapes alone: the trial gets the whole GPU
    return int(SAFETY * tensors) + WORKSPACE_BYTES + CONTEXT_BYTES + resident * data.bytes


def _training_bytes(recipe: Recipe, data: DataShape, capacity: int) -> int:
    return _parameter_bytes(recipe, data) + _activation_bytes(recipe, data, capacity)


def _prediction_bytes(recipe: Recipe, data: DataShape) -> int:
    """Bytes of the parameters and of the forward pass of a batch."""
    parameters = trainable_parameters(recipe.backbone, 0, n_genres=data.genres)
    passing = _passing_bytes(recipe, data) + CHUNK["cuda"] * _input_bytes(data)
    return int((_FLOAT_BYTES + _copy_bytes(recipe)) * parameters + passing)


def _width(recipe: Recipe) -> int:
    """Bytes of an activation."""
    return _HALF_BYTES if recipe.precision == "bfloat16" else _FLOAT_BYTES


def _copy_bytes(recipe: Recipe) -> int:
    """Bytes of the copy of a parameter as bfloat16."""
    return _HALF_BYTES if recipe.precision == "bfloat16" else 0


def _input_bytes(data: DataShape) -> int:
    """Bytes of the copies of a segment."""
    return _FLOAT_BYTES * _INPUT_COPIES * data.channels * data.pixels


def _passing_bytes(recipe: Recipe, data: DataShape) -> float:
    """Bytes of the activations that the forward pass of a batch holds at a time, without the inputs."""
    largest = max(largest for _, largest, _ in block_values(recipe.backbone, pixels=data.pixels))
    return CHUNK["cuda"] * LIVE_TENSORS * largest * _width(recipe)


def _parameter_bytes(recipe: Recipe, data: DataShape) -> int:
    """Bytes of parameters, of what the optimizer keeps for them, of gradients, and of copies as bfloat16."""
    count = trainable_parameters(recipe.backbone, recipe.frozen_blocks, n_genres=data.genres)
    every = trainable_parameters(recipe.backbone, 0, n_genres=data.genres)
    kept = state_bytes(recipe.optimizer) - _FLOAT_BYTES
    return _FLOAT_BYTES * every + count * (kept + STEPS_HELD * (_FLOAT_BYTES + _copy_bytes(recipe)))


def _activation_bytes(recipe: Recipe, data: DataShape, capacity: int) -> int:
    """Bytes of activations: saved for the backward pass, of a forward pass, and cached ones of frozen blocks."""
    width, blocks = _width(recipe), block_values(recipe.backbone, pixels=data.pixels)
    trained = blocks[recipe.frozen_blocks :]
    saved = sum(saved for saved, _, _ in trained) + max((largest for _, largest, _ in trained), default=0.0)
    kept = 0.0
    if recipe.frozen_blocks and not recipe.augments_input:
        of_segment = blocks[recipe.frozen_blocks - 1][2]
        kept = min(data.segments * of_segment * width, ACTIVATIONS_GPU_SHARE * capacity)
    step = recipe.batch_size * (saved * width + _input_bytes(data))
    return int(STEPS_HELD * step + _passing_bytes(recipe, data) + kept)
