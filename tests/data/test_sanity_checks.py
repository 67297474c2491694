"""Implausible test scores are reported, and others are not."""

from dataclasses import replace
from typing import Any

import pytest
from corpora import flat

from genre_core.corpus.tracks import Corpus
from genre_core.synthetic.styles import GENRES
from search.data.sanity_checks import implausible_scores, missing_groups_warning

GTZAN, OTHER = (
    Corpus(tuple(replace(track, split="test") for track in flat(**tracks).tracks))
    for tracks in (dict.fromkeys(GENRES, 3), {"jazz": 3, "soul": 3})
)
PLAUSIBLE: dict[str, Any] = {
    "accuracy": 0.7,
    "val_f1": 0.75,
    "test_f1": 0.7,
    "test_f1_low": 0.6,
    "generated": False,
}


@pytest.mark.parametrize(
    ("corpus", "changed", "values"),
    [
        (GTZAN, {}, []),
        (GTZAN, {"accuracy": 0.95}, ["0.950"]),
        (GTZAN, {"accuracy": 0.9}, ["0.900"]),
        (GTZAN, {"accuracy": 0.95, "generated": True}, []),
        (OTHER, {"accuracy": 0.95}, []),
        (OTHER, {"accuracy": 1.0}, ["all 6"]),
        (GTZAN, {"accuracy": 1.0}, ["1.000", "all 30"]),
        (OTHER, {"test_f1": 0.9, "test_f1_low": 0.8}, ["0.900"]),
        (OTHER, {"test_f1": 0.9, "test_f1_low": 0.7}, []),  # the interval includes the validation F1
        (OTHER, {"test_f1": 0.79, "test_f1_low": 0.76}, []),  # more training tracks explain the difference
    ],
)
def test_implausible_scores_are_reported_with_their_value(
    corpus: Corpus, changed: dict[str, Any], values: list[str]
) -> None:
    found = implausible_scores(corpus.genres, test_tracks=len(corpus.part("test")), **PLAUSIBLE | changed)
    assert len(found) == len(values)
    assert all(value in reason for value, reason in zip(values, found, strict=True))
    assert not any("\n" in reason for reason in found)


def test_a_corpus_without_groups_is_reported() -> None:
    assert missing_groups_warning(["Bill", "Nina", "Miles"]) is not None
    assert missing_groups_warning(["Bill", "Bill", "Nina"]) is None
