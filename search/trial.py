"""What runs on one worker: Ray's trainable, which does one epoch of one fine-tune a step."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray
import torch
from numpy.typing import NDArray
from ray import tune

from genre_core.backbones import ToImage, build
from genre_core.corpus import SPLITS, Corpus, load_corpus
from genre_core.mel import front_end
from genre_core.recipe import Recipe
from genre_core.segments import level_statistics
from genre_core.spectrograms import open_store
from genre_core.training import Diverged, EpochResult, FineTune, epoch_row
from search.messages import FAILED, FINISHED, NUMBER, RECIPE
from search.versions import versions


@dataclass(frozen=True, kw_only=True)
class WorkingSet:
    """Where a worker finds its data, and how much of the machine it may use."""

    corpus: Path
    """corpus.parquet, with the split."""
    store: Path
    """The folder of the spectrogram store."""
    front_end: str
    segment_frames: int
    segments_per_track: int
    feature_bytes: int
    threads: int
    device: str
    """`cpu` or `cuda`."""


class GenreTrial(tune.Trainable):
    """One fine-tune at a time, an epoch a step. The process and its data stay for the next one."""

    _fine_tune: FineTune | None
    _number: int
    _recipe: Recipe
    _seconds: float
    _peak_memory: int

    def setup(  # type: ignore[override]  # Ray passes the rest: tune.with_parameters
        self, config: dict[str, Any], working_set: WorkingSet, shelf: Any
    ) -> None:
        """Load the training and validation segments, once for all trials of this process."""
        torch.set_num_threads(working_set.threads)
        self._set = working_set
        self._shelf = shelf  # the ModelShelf, in a process of its own
        self._device = torch.device(working_set.device)
        corpus = load_corpus(working_set.corpus)
        self._corpus = corpus
        store = open_store(working_set.store, front_end(working_set.front_end))
        self._train, self._validation = (
            store.segments(
                corpus.part(part),
                genres=corpus.genres,
                segment_frames=working_set.segment_frames,
                segments_per_track=working_set.segments_per_track,
                device=self._device,
            )
            for part in ("train", "validation")
        )
        self._levels = level_statistics(self._train)
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial in the same process."""
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """One epoch; divergence and lack of memory are results that say so: they leave the worker alive."""
        started = time.perf_counter()
        try:
            fine_tune = self._fine_tune or self._prepare()
            result = fine_tune.epoch()
        except (Diverged, torch.OutOfMemoryError) as error:
            self._fine_tune = None
            return {FAILED: f"{type(error).__name__}: {str(error).splitlines()[0]}"}
        self._keep_if_best(fine_tune, result)
        self._seconds += time.perf_counter() - started
        self._peak_memory = max(self._peak_memory, _memory_bytes(self._device))
        return epoch_row(result) | {
            FINISHED: fine_tune.finished,
            "best_f1": fine_tune.best_f1,
            "best_epoch": fine_tune.best_epoch,
            "trainable_parameters": fine_tune.network.trainable_parameters,
            "features": fine_tune.features,
            "features_seconds": fine_tune.features_seconds,
            "total_seconds": self._seconds,
            "peak_memory_bytes": self._peak_memory,
            "device": torch.cuda.get_device_name() if self._device.type == "cuda" else "cpu",
        }

    def cleanup(self) -> None:
        """Let go of the network when the process ends."""
        self._fine_tune = None

    def _begin(self, config: dict[str, Any]) -> None:
        """Forget the last trial, so that its memory is free before the next one takes any."""
        self._fine_tune = None
        self._number = config[NUMBER]
        self._recipe = Recipe(**config[RECIPE])
        self._seconds = 0.0
        self._peak_memory = 0
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def _prepare(self) -> FineTune:
        """The network cut at the recipe's depth, with its activations there."""
        network = build(
            self._recipe.backbone,
            weights=self._recipe.weights,
            n_genres=len(self._corpus.genres),
            frozen_blocks=self._recipe.frozen_blocks,
            image=ToImage(*self._levels),
            seed=self._recipe.seed,
        )
        fine_tune = FineTune(
            network.to(self._device),
            self._recipe,
            train=self._train,
            validation=self._validation,
            feature_bytes=self._set.feature_bytes,
        )
        self._fine_tune = fine_tune
        return fine_tune

    def _keep_if_best(self, fine_tune: FineTune, result: EpochResult) -> None:
        """Offer the model where this epoch is the trial's best and the trial among the search's best."""
        if fine_tune.best_epoch != result.epoch:
            return
        f1 = result.scores.f1
        if ray.get(self._shelf.wants.remote(self._number, f1)):
            tensors = {name: _array(value) for name, value in fine_tune.network.flat_state().items()}
            card = model_card(self._number, self._recipe, self._set, self._corpus, result)
            ray.get(self._shelf.offer.remote(self._number, f1, tensors, card))


def model_card(
    trial: int, recipe: Recipe, working_set: WorkingSet, corpus: Corpus, result: EpochResult
) -> dict[str, Any]:
    """Everything about a model that its tensors do not say: model.json."""
    return {
        "trial": trial,
        "epoch": result.epoch,
        "genres": corpus.genres,
        "front_end": asdict(front_end(working_set.front_end)),
        "segment_frames": working_set.segment_frames,
        "segments_per_track": working_set.segments_per_track,
        "recipe": asdict(recipe),
        "validation": asdict(result.scores) | {"loss": result.val_loss},
        "split": {part: [track.track_id for track in corpus.part(part)] for part in SPLITS},
        "versions": versions(),
    }


def _array(value: torch.Tensor) -> NDArray[Any]:
    return np.asarray(value.cpu().numpy())


def _memory_bytes(device: torch.device) -> int:
    """The trial's peak on a GPU; on CPU the process's resident memory now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return int(psutil.Process().memory_info().rss)
