"""`init` writes settings that fit the corpus and the machine."""

from dataclasses import replace
from pathlib import Path

import pytest
from refusals import refused

from genre_core.corpus.tracks import Corpus, Track
from search.config.schema import load
from search.data.starting_point import starting_point
from search.errors import SearchErrorCode


def _corpus(counts: dict[str, int], *, seconds: float = 30.0, split: tuple[str, ...] = ()) -> Corpus:
    """Tracks of groups of their own; with `split`, parts in turn."""
    tracks = [
        Track(
            track_id=f"{genre}/{number}.wav",
            location=f"/music/{genre}/{number}.wav",
            genre=genre,
            group=f"{genre}{number}",
            seconds=seconds,
            content=f"{genre}{number}",
            split=split[number % len(split)] if split else None,
        )
        for genre, count in counts.items()
        for number in range(count)
    ]
    return Corpus(tuple(tracks))


EVEN = {"rock": 20, "jazz": 20}


@pytest.mark.parametrize(
    ("corpus", "device", "settings"),
    [
        (_corpus(EVEN), "cpu", {"front_end": "mel64", "time_budget": 7200, "segments_per_track": 10}),
        (_corpus(EVEN), "cuda", {"front_end": "mel128", "time_budget": 14400}),
        (_corpus(EVEN, seconds=8.9), "cpu", {"segments_per_track": 2}),
        (_corpus(EVEN, seconds=3.0), "cpu", {"segments_per_track": 1}),
        (_corpus(EVEN), "cpu", {"training.class_weights": "none", "split.draw_validation": False}),
        (_corpus({"rock": 60, "jazz": 20}), "cpu", {"training.class_weights": "balanced"}),
        (_corpus(EVEN, split=("train", "train", "test")), "cpu", {"split.draw_validation": True}),
    ],
)
def test_settings_fit_the_corpus_and_the_machine(
    corpus: Corpus, device: str, settings: dict[str, object], tmp_path: Path
) -> None:
    file = tmp_path / "search.yaml"
    file.write_text(starting_point(corpus, data=Path("/music"), workers=2, device=device))
    config = load(file, {})
    assert config.data == "/music"
    for key, value in settings.items():
        found: object = config
        for name in key.split("."):
            found = getattr(found, name)
        assert (key, found) == (key, value)


def test_a_corpus_that_cannot_be_split_is_named(tmp_path: Path) -> None:
    file = tmp_path / "search.yaml"
    file.write_text(
        starting_point(_corpus({"rock": 2, "jazz": 20}), data=Path("/m"), workers=1, device="cpu")
    )
    assert "run would reject this corpus" in file.read_text()
    load(file, {})


def test_a_corpus_without_usable_tracks_is_refused() -> None:
    bad = Corpus(tuple(replace(t, excluded_reason="unreadable") for t in _corpus(EVEN).tracks))
    with refused(SearchErrorCode.NO_USABLE_TRACK, "/music", "data check"):
        starting_point(bad, data=Path("/music"), workers=1, device="cpu")
