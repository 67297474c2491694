"""The work of a finish on a worker: a fine-tune on train and validation, or a model's predictions."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from genre_core.models.network import allow_tf32, restore
from genre_core.recipe import Recipe
from genre_core.system.disk_cache import NodeCache
from genre_core.training.activation_cache import ActivationCache
from genre_core.training.fine_tune import track_logits
from genre_core.training.segments import SegmentArrays
from search.engine.messages import Assignment
from search.engine.ports import Arrays, Diverged
from search.tune.torch_trainer import WorkingSet
from search.tune.trainable import Actors, session

TRAINED_ON = ("train", "validation")
"""Parts of the split that a final model is trained on."""

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


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """What all final models are trained with."""

    working_set: WorkingSet
    actors: Actors


@dataclass(frozen=True, kw_only=True)
class PredictionJob:
    """What all final models predict, and how."""

    test: SegmentArrays
    device: str
    """`cpu` or `cuda`."""
    threads: int


def train(model: FinalModel, job: TrainingJob) -> tuple[Arrays, Card]:
    """The model's tensors, and its card.

    Raises:
        Diverged, OutOfMemory: there is no model to keep.
    """
    began = time.perf_counter()
    worker = session(job.working_set, job.actors)
    worker.begin(Assignment(trial=model.trial, recipe=model.recipe))
    tensors = worker.train_unscored(model.epochs)
    if not all(np.isfinite(array).all() for array in tensors.values()):
        raise Diverged(f"Diverged: diverged in epoch {model.epochs}, its last")
    card = worker.card(epoch=model.epochs)
    return tensors, card | {"trained_on": TRAINED_ON, "seconds": time.perf_counter() - began}


def predict(tensors: Arrays, recipe: Recipe, job: PredictionJob) -> NDArray[np.float32]:
    """A kept model's mean logits of each track of the test part, [tracks, genres]."""
    torch.set_num_threads(job.threads)
    allow_tf32(recipe.precision != "float32")
    device = torch.device(job.device)
    state = {name: torch.tensor(array) for name, array in tensors.items()}
    network = restore(recipe.backbone, state, precision=recipe.precision, device=device)
    segments = job.test.to(device)
    features = ActivationCache(network, segments, node_cache=NodeCache(Path(), budget_bytes=0), epochs=1)
    return track_logits(network, segments, features).numpy()
