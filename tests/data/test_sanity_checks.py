"""Scores that are too good to be true are doubted, and others are not."""

from typing import Any

import pytest
from corpora import corpus_of, flat

from genre_core.corpus.tracks import Corpus
from genre_core.synthetic.styles import GENRES
from search.data.sanity_checks import implausible_scores, missing_groups_warning

GTZAN, OTHER = flat(**dict.fromkeys(GENRES, 3)), flat(jazz=3, soul=3)
HONEST: dict[str, Any] = {
    "accuracy": 0.7,
    "val_f1": 0.75,
    "test_f1": 0.7,
    "test_f1_low": 0.6,
    "generated": False,
}


@pytest.mark.parametrize(
    ("corpus", "changed", "words"),
    [
        (GTZAN, {}, []),
        (GTZAN, {"accuracy": 0.95}, ["0.950 is above 0.945, where a perfect classifier ends on GTZAN"]),
        (GTZAN, {"accuracy": 0.9}, ["0.900 is above 0.84, the best published"]),
        (GTZAN, {"accuracy": 0.95, "generated": True}, []),
        (OTHER, {"accuracy": 0.95}, []),
        (OTHER, {"accuracy": 1.0}, ["test tracks are right, every time"]),
        (GTZAN, {"accuracy": 1.0}, ["above 0.945", "test tracks are right, every time"]),
        (OTHER, {"test_f1": 0.9, "test_f1_low": 0.8}, ["0.900 is far above validation's 0.750"]),
        (OTHER, {"test_f1": 0.9, "test_f1_low": 0.7}, []),  # the interval reaches down to it
        (OTHER, {"test_f1": 0.79, "test_f1_low": 0.76}, []),  # more tracks to train on explain so much
    ],
)
def test_what_is_too_good_is_doubted(corpus: Corpus, changed: dict[str, Any], words: list[str]) -> None:
    found = implausible_scores(corpus, **HONEST | changed)
    assert len(found) == len(words)
    assert all(said in doubt for said, doubt in zip(words, found, strict=True))
    assert not any("\n" in doubt for doubt in found)


def test_groups_of_one_track_each_are_doubted_and_others_are_not() -> None:
    assert "every track is a group of its own" in str(missing_groups_warning(OTHER))
    assert missing_groups_warning(corpus_of(("jazz", "Bill"), ("jazz", "Bill"), ("soul", "Nina"))) is None
