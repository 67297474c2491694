"""The tasks of `finish` on a worker: a fine-tune on train and validation, and the predictions of a model."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genre_core.models.artifact import SHARED_BLOCKS
from genre_core.recipe import Recipe
from search.engine.messages import Assignment
from search.engine.ports import Arrays, Diverged
from search.tune.torch_trainer import WorkingSet
from search.tune.trainable import Actors, session

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
class Job:
    """Inputs that all training tasks, or all prediction tasks, share."""

    working_set: WorkingSet
    actors: Actors


def train(model: FinalModel, job: Job) -> tuple[Arrays, Card]:
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


def predict(model: FinalModel, tensors: Arrays, job: Job) -> NDArray[np.float32]:
    """Predict the test tracks with a final model; returns mean logits, [tracks, genres].

    Raises:
        OutOfMemory: the model does not fit on the device.
    """
    worker = session(job.working_set, job.actors)
    worker.begin(Assignment(trial=model.trial, recipe=model.recipe))
    return worker.predict(tensors)
