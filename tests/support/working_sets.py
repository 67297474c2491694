"""Data of a search without a corpus on disk, for trainers in tests."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from noise import arrays

from genre_core.audio.mel import front_end
from genre_core.corpus.tracks import SPLITS
from genre_core.models.registry import BLOCKS
from search.tune.torch_trainer import WorkingSet


def working_set(cache: Path, **changes: Any) -> WorkingSet:
    """Noise and random weights on one CPU thread, with nothing kept in the cache; with these fields changed."""
    given = WorkingSet(
        genres=("a", "b", "c"),
        split={part: [] for part in SPLITS},
        train=arrays(21),
        validation=arrays(11, seed=1),
        front_end=front_end("mel64"),
        segments_per_track=1,
        weights=dict.fromkeys(BLOCKS, "random"),
        cache=cache,
        cache_bytes=0,
        data_cache_bytes=0,
        threads=1,
        device="cpu",
        gpu_shared=False,
        epoch_limit=60.0,
        checkpoints=True,
    )
    return replace(given, **changes)
