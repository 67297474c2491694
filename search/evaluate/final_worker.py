"""The tasks of `finish` on a worker: a fine-tune on train and validation, and the predictions of a model."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from genre_core.models.artifact import SHARED_BLOCKS
from genre_core.models.network import allow_tf32, restore
from genre_core.recipe import Recipe
from genre_core.system.disk_cache import NodeCache
from genre_core.system.node_folder import node_folder
from genre_core.training.activation_cache import ActivationCache
from genre_core.training.fine_tune import track_logits
from genre_core.training.segments import SegmentArrays
from search.engine.messages import Assignment
from search.engine.ports import Arrays, Diverged
from search.tune.torch_trainer import WorkingSet
from search.tune.trainable import Actors, data_locator, session

TRAINED_ON = ("train", "validation")
"""Parts of the split that final models are trained on."""

Card = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class FinalModel:
    """A configuration found by the search, to be trained again with a new seed."""

    trial: int
    epochs: int
    """Number of epochs to train: up to the trial's best epoch, with the learning rates of the trial."""
    recipe: Recipe

    def is_of(self, card: Card) -> bool:
        """Whether a card belongs to this model."""
        lacking = {"head_init": Recipe.head_init, "optimizer": Recipe.optimizer}  # in an older card
        recipe = lacking | card["recipe"]
        return (self.trial, self.epochs, asdict(self.recipe)) == (card["trial"], card["epoch"], recipe)


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """Shared inputs of all training tasks."""

    working_set: WorkingSet
    actors: Actors


@dataclass(frozen=True, kw_only=True)
class PredictionJob:
    """Shared inputs of all prediction tasks."""

    test: SegmentArrays
    device: str
    """`cpu` or `cuda`."""
    threads: int
    cache: Path
    """The folder on each node for files that its workers share."""
    data_cache_bytes: int
    actors: Actors


def train(model: FinalModel, job: TrainingJob) -> tuple[Arrays, Card]:
    """Train a final model; returns its tensors and its card.

    Raises:
        Diverged, OutOfMemory: the model could not be trained.
    """
    started = time.perf_counter()
    worker = session(job.working_set, job.actors)
    worker.begin(Assignment(trial=model.trial, recipe=model.recipe))
    tensors, blocks = worker.train_unscored(model.epochs)
    if not all(np.isfinite(array).all() for array in tensors.values()):
        raise Diverged(f"Diverged: diverged in epoch {model.epochs}, the last one")
    card = worker.card(epoch=model.epochs)
    card |= {SHARED_BLOCKS: dict(blocks)}
    return tensors, card | {"trained_on": TRAINED_ON, "seconds": time.perf_counter() - started}


def predict(tensors: Arrays, recipe: Recipe, job: PredictionJob) -> NDArray[np.float32]:
    """Predict the test tracks with a final model; returns mean logits, [tracks, genres]."""
    torch.set_num_threads(job.threads)
    allow_tf32(recipe.precision != "float32")
    device = torch.device(job.device)
    state = {name: torch.tensor(array) for name, array in tensors.items()}
    network = restore(recipe.backbone, state, precision=recipe.precision, device=device)
    locate = data_locator(node_folder(job.cache).path, job.actors, budget_bytes=job.data_cache_bytes)
    segments = locate(job.test).to(device)
    features = ActivationCache(network, segments, node_cache=NodeCache(Path(), budget_bytes=0), epochs=1)
    return track_logits(network, segments, features).numpy()
