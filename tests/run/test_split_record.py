"""The split in a model's card: listed for usual corpora, a digest and a table for large ones."""

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from corpora import flat

from genre_core.corpus.corpus_table import write_corpus
from genre_core.corpus.tracks import SPLITS, Corpus, Track
from search.run import split_record as module
from search.run.split_record import SPLIT_TABLE, sizes, split_record, tracks_of, write_split


def _corpus() -> Corpus:
    parts = [*SPLITS, "train", "train", "validation"]
    tracks = [replace(track, split=part) for track, part in zip(flat(jazz=6).tracks, parts, strict=True)]
    bad = replace(tracks[0], track_id="bad", excluded_reason="silent", split=None)
    return Corpus((*tracks, bad))


@pytest.mark.parametrize("listed", [6, 5], ids=["small", "large"])
def test_a_card_has_the_split_whatever_the_size_of_the_corpus(
    listed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LISTED_TRACKS", listed)
    corpus = _corpus()
    record = split_record(corpus)
    assert sizes(record) == {"train": 3, "validation": 2, "test": 1}
    assert tracks_of(record, "validation", corpus) == list(corpus.part("validation"))
    assert all(isinstance(own, list) for own in record.values()) is (listed == 6)
    write_corpus(corpus, tmp_path / "corpus.parquet")
    write_split(record, tmp_path / "corpus.parquet", tmp_path)
    if listed == 6:
        assert record["validation"] == [track.track_id for track in corpus.part("validation")]
        assert not (tmp_path / SPLIT_TABLE).exists()
    else:
        table = pq.read_table(tmp_path / SPLIT_TABLE).to_pylist()
        assert table == [{"track_id": track.track_id, "split": track.split} for track in corpus.usable]


def test_a_digest_is_not_taken_for_the_tracks_of_another_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LISTED_TRACKS", 0)
    corpus = _corpus()

    def renamed(track: Track) -> Track:
        return replace(track, track_id=f"other/{track.track_id}")

    other = Corpus(tuple(map(renamed, corpus.tracks)))
    assert tracks_of(split_record(corpus), "validation", other) == []
