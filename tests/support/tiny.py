"""Settings of a search that takes seconds, and its music."""

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
"""Most of the network is frozen, images are 64 x 64, trials have three epochs."""
