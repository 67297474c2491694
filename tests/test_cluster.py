"""The Ray to run on: how many trials it has room for."""

from typing import Any

import pytest

from genre_core.errors import InputError
from search import cluster


@pytest.mark.usefixtures("small_ray")
@pytest.mark.parametrize(
    ("asked", "workers"),
    [
        ({"cpus_per_trial": 1.0, "workers": None}, 2),
        ({"cpus_per_trial": 0.5, "workers": None}, 4),
        ({"cpus_per_trial": 1.5, "workers": None}, 1),
        ({"cpus_per_trial": 1.0, "workers": 1}, 1),
        ({"cpus_per_trial": 1.0, "workers": 9}, 2),
        ({"cpus_per_trial": 1.0, "workers": 9, "growing": True}, 9),
    ],
)
def test_as_many_trials_run_as_two_cores_hold(asked: dict[str, Any], workers: int) -> None:
    assert cluster.room(**({"trials_per_gpu": "auto", "growing": False} | asked)) == (workers, 0.0)


@pytest.mark.usefixtures("small_ray")
def test_a_cluster_that_grows_takes_fractions_of_gpus_it_does_not_have_yet() -> None:
    assert cluster.room(cpus_per_trial=1.0, trials_per_gpu=4, workers=8, growing=True) == (8, 0.25)
    with pytest.raises(
        InputError, match="--trials-per-gpu must be 0 where the cluster has no GPU, but got 4"
    ):
        cluster.room(cpus_per_trial=1.0, trials_per_gpu=4, workers=8, growing=False)
