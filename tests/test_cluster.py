"""The Ray to run on: how many trials it has room for, and that it can be told to stop."""

import signal
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
    usual: dict[str, Any] = {"trials_per_gpu": "auto", "growing": False}
    assert cluster.room(**(usual | asked)) == (workers, 0.0)


@pytest.mark.usefixtures("small_ray")
def test_a_cluster_that_grows_takes_fractions_of_gpus_it_does_not_have_yet() -> None:
    assert cluster.room(cpus_per_trial=1.0, trials_per_gpu=4, workers=8, growing=True) == (8, 0.25)
    with pytest.raises(
        InputError, match="--trials-per-gpu must be 0 where the cluster has no GPU, but got 4"
    ):
        cluster.room(cpus_per_trial=1.0, trials_per_gpu=4, workers=8, growing=False)


@pytest.mark.parametrize("interrupt", [signal.SIG_IGN, signal.default_int_handler])
def test_a_polite_kill_interrupts_also_where_a_shell_has_had_interrupts_ignored(interrupt: Any) -> None:
    terminated = signal.getsignal(signal.SIGTERM)
    earlier = signal.signal(signal.SIGINT, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt), cluster.termination_as_interrupt():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGINT, earlier)
    assert signal.getsignal(signal.SIGTERM) == terminated
