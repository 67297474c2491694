"""What the workers of a run are given: the data, and the processes on the head that serve them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.actor import ActorHandle

from genre_core.audio.mel import front_end
from genre_core.corpus.tracks import Corpus
from genre_core.models.pretrained import weights_path
from genre_core.training.segments import SegmentArrays
from search.config.schema import SearchConfig
from search.tune.place import Place
from search.tune.torch_trainer import WorkingSet
from search.tune.weight_shipping import WeightsFiles

GIB = 1024**3


def working_set(
    config: SearchConfig,
    tracks: Corpus,
    place: Place,
    *,
    cache: Path,
    train: SegmentArrays,
    validation: SegmentArrays | None,
    weights: Mapping[str, str],
) -> WorkingSet:
    """The data of a run for its workers, with the settings that are the same for all trials."""
    return WorkingSet(
        corpus=tracks,
        train=train,
        validation=validation,
        front_end=front_end(config.front_end, level=config.level),
        segments_per_track=config.segments_per_track,
        weights=weights,
        cache=cache.absolute(),
        cache_bytes=int(config.feature_cache * GIB),
        threads=max(1, int(config.cpus_per_trial)),
        device=place.device,
        gpu_shared=0 < place.gpus < 1,
        epoch_limit=config.epoch_limit,
        checkpoints=config.checkpoint_budget > 0,
    )


def weights_files(config: SearchConfig, place: Place) -> ActorHandle[Any] | None:
    """Who reads weights for nodes that lack their file; None where all weights are random."""
    places = {backbone: weights_path(backbone, config.weights_of(backbone)) for backbone in config.backbones}
    paths = {backbone: path for backbone, path in places.items() if path}
    return place.process(WeightsFiles, paths) if paths else None
