"""A search whose driver, workers or nodes die loses and duplicates nothing; the long form is `python tests/chaos`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults import DRIVER, NODE, WORKER, Rhythm, machines
from invariants import check
from scenarios import Outcome, endure
from searches import Search

MakeSearch = Callable[..., Search]

SETTINGS = {"space.frozen_blocks": 3, "training.epochs": 6}
"""Even on a fast machine many epochs are still to come after the first one, so that there is time for faults."""
AT_ONCE = (0.0, 0.05)
"""Interval between faults, and from the first epoch to the first fault, in seconds."""
KILL_SOON = 37
"""A seed with which the driver is killed 0.2 s after its first epoch."""


@pytest.fixture
def search(music: Path, cache: Path, tmp_path: Path) -> MakeSearch:
    """Make a tiny search in a folder of its own."""

    def make(**changes: Any) -> Search:
        usual: dict[str, Any] = {"folder": tmp_path, "music": music, "cache": cache, "trials": 4}
        return Search(**(usual | {"settings": SETTINGS} | changes))

    return make


def _check(outcome: Outcome, search: Search) -> None:
    found = check(search.run, trials=search.trials, keep_models=search.keep_models)
    assert found.failed == 0
    assert found.epochs_repeated <= outcome.most_repeated


def test_a_killed_search_is_resumed_under_another_name_while_a_worker_dies(search: MakeSearch) -> None:
    tiny = search()
    dying = Rhythm(every=AT_ONCE, at_most=2)
    outcome = endure(
        "driver and workers", tiny, seed=KILL_SOON, driver_kills=1, renamed=True, workers_die=dying
    )
    assert outcome.times(DRIVER) >= 1
    assert outcome.times(WORKER) >= 1
    _check(outcome, tiny)


@pytest.mark.long
def test_a_search_survives_the_loss_of_a_node(search: MakeSearch) -> None:
    with machines(nodes=2) as cluster:
        tiny = search(address=cluster.address, trials=8)
        going = Rhythm(every=AT_ONCE, at_most=1)
        outcome = endure("nodes", tiny, seed=2, nodes_go=going, machines=cluster)
    assert outcome.times(NODE) >= 1
    _check(outcome, tiny)
