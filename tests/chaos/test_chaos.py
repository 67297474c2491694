"""A search whose driver, workers or nodes die loses and duplicates nothing; the long form is `python tests/chaos`."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from faults import DRIVER, NODE, WORKER, Rhythm, machines
from invariants import check
from scenarios import Outcome, endure
from searches import Search

from genre_core.audio.mel import front_end
from genre_core.corpus import mel_parts
from genre_core.corpus.mel_parts import AudioFile, Transformed
from genre_core.synthetic.corpus import SyntheticCorpus, write
from search.tune.cluster_transform import ClusterTransform

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


@pytest.mark.long
def test_a_corpus_is_decoded_by_all_nodes_although_one_is_replaced(tmp_path: Path) -> None:
    write(SyntheticCorpus(tracks_per_genre=48, seconds=10.0, tracks_per_recording=2), tmp_path / "music")
    files = [AudioFile(location=str(path)) for path in sorted((tmp_path / "music").rglob("*.wav"))]
    setting, said = front_end("mel64"), list[str]()
    done: dict[str, Transformed] = {}
    with machines(nodes=3) as cluster, patch.object(mel_parts, "PART_TRACKS", 16):
        transform = ClusterTransform(cluster.address, retries=3, say=said.append)
        for number, group in enumerate(transform(files, setting)):
            assert not done.keys() & {one.location for one in group}, "a file is transformed once"
            done |= {one.location: one for one in group}
            if number == 5:
                cluster.replace_one(random.Random(0))
    assert "of 4 nodes" in said[0], "the head decodes too"
    assert done.keys() == {file.location for file in files}
    expected = {one.location: one for group in mel_parts.in_threads(files, setting) for one in group}
    for location, one in done.items():
        mel, reference = one.mel, expected[location].mel
        assert mel is not None
        assert reference is not None
        assert np.array_equal(mel, reference)
        assert one.finding == expected[location].finding
