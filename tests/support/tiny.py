"""A search that takes seconds, and the music that it searches."""

from typing import Any

from genre_core.synthetic.corpus import SyntheticCorpus

MUSIC = SyntheticCorpus(tracks_per_genre=6, seconds=3.2, difficulty=0.0)
"""Ten genres, six tracks of three recordings each, 3.2 s long."""
TINY: dict[str, Any] = {
    "front_end": "mel64",
    "weights": "random",
    "space.backbone": "resnet18",
    "space.learning_rate": {"low": 1e-3, "high": 0.1, "log": True},
    "space.frozen_blocks": {"low": 3, "high": "all"},
    "space.batch_size": 16,
    "training.epochs": 3,
    "trials": 4,
    "workers": 1,
}
"""A search that takes seconds: most of the network frozen, 64 x 64 images, three epochs."""
