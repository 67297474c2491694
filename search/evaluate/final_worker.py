"""What runs on a worker when a search is finished: a fine-tune on train and validation, or a model's predictions."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from genre_core.models.network import ToImage, allow_tf32, restore
from genre_core.recipe import Recipe
from genre_core.system import allocator
from genre_core.system.disk_cache import NodeCache
from genre_core.training.activation_cache import ActivationCache
from genre_core.training.fine_tune import Diverged, track_logits
from genre_core.training.segments import SegmentArrays, level_statistics
from search.tune.node_folder import node_folder
from search.tune.trainable import (
    WorkingSet,
    cut_and_prepared,
    ended_if_it_hangs,
    gpu_memory,
    kind_of,
    model_card,
    on_host,
)

TRAINED_ON = ("train", "validation")
"""Parts of the split that a final model is trained on."""

Arrays = dict[str, NDArray[Any]]
Card = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class FinalModel:
    """A configuration that the search found, to be trained once more with a seed of its own."""

    trial: int
    epochs: int
    """To train: up to the trial's best one, at the learning rates that the trial had."""
    recipe: Recipe

    def is_of(self, card: Card) -> bool:
        """Whether a kept model is this one."""
        return (self.trial, self.epochs, asdict(self.recipe)) == (
            card["trial"],
            card["epoch"],
            card["recipe"],
        )


def train(model: FinalModel, working_set: WorkingSet, weights_files: Any) -> tuple[Arrays, Card]:
    """The model's tensors, and its card.

    Raises:
        Diverged: there is no model to keep.
    """
    began = time.perf_counter()
    allocator.keep_freed_memory()
    torch.set_num_threads(working_set.threads)
    cache = node_folder(working_set.cache).path
    tensors = _with_memory(model, working_set, weights_files, cache)
    if not all(np.isfinite(array).all() for array in tensors.values()):
        raise Diverged(f"diverged in epoch {model.epochs}, its last")
    return tensors, model_card(model.trial, model.epochs, model.recipe, working_set) | {
        "trained_on": TRAINED_ON,
        "seconds": time.perf_counter() - began,
    }


def predict(
    tensors: Arrays, recipe: Recipe, test: SegmentArrays, device: str, threads: int
) -> NDArray[np.float32]:
    """A kept model's mean logits of each track of the test part, [tracks, genres]."""
    torch.set_num_threads(threads)
    allow_tf32(recipe.precision != "float32")
    place = torch.device(device)
    state = {name: torch.tensor(array) for name, array in tensors.items()}
    network = restore(recipe.backbone, state, precision=recipe.precision, device=place)
    segments = test.to(place)
    features = ActivationCache(network, segments, node_cache=NodeCache(Path(), budget_bytes=0), epochs=1)
    return track_logits(network, segments, features).numpy()


def _with_memory(model: FinalModel, working_set: WorkingSet, weights_files: Any, cache: Path) -> Arrays:
    """The trained tensors; where a GPU's memory ran out beside others, once more with the GPU to itself."""
    if not working_set.gpu_shared:
        return _tensors(model, working_set, weights_files, cache)
    gpu, kind = gpu_memory(cache), kind_of(model.recipe)
    try:
        if not gpu.ask(kind):
            gpu.wait()
        try:
            return _tensors(model, working_set, weights_files, cache)
        except torch.OutOfMemoryError:
            pass
        torch.cuda.empty_cache()
        if not gpu.ask(kind, alone=True):
            gpu.wait()
        return _tensors(model, working_set, weights_files, cache)
    finally:
        gpu.give_back()


def _tensors(model: FinalModel, working_set: WorkingSet, weights_files: Any, cache: Path) -> Arrays:
    """Trained from the start to the model's last epoch."""
    device = torch.device(working_set.device)
    segments = working_set.train.to(device)
    with ended_if_it_hangs(working_set.epoch_limit):
        fine_tune = cut_and_prepared(
            model.recipe,
            working_set,
            weights_files,
            train=segments,
            validation=None,
            image=ToImage(*level_statistics(segments)),
            node_cache=NodeCache(cache / "shared", budget_bytes=working_set.cache_bytes),
            device=device,
        )
    for _ in range(model.epochs):
        with ended_if_it_hangs(working_set.epoch_limit):
            fine_tune.train()
    return on_host(fine_tune.network.flat_state())
