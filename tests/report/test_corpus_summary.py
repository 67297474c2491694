"""The summary of a corpus is that of its tracks."""

from dataclasses import replace
from pathlib import Path

from corpora import flat

from genre_core.corpus.corpus_table import write_corpus
from genre_core.corpus.splits import split_corpus
from genre_core.corpus.tracks import SPLITS, Corpus
from search.report.corpus_summary import CorpusSummary


def test_a_summary_counts_tracks_seconds_and_excluded_files(tmp_path: Path) -> None:
    split = split_corpus(flat(jazz=6, soul=9), validation=0.2, test=0.2, seed=0).tracks
    tracks = [replace(track, seconds=1.1 * n) for n, track in enumerate(split)]
    bad = [replace(tracks[n], split=None, excluded_reason=why) for n, why in ((1, "silent: x"), (8, "empty"))]
    corpus = Corpus((*tracks, *bad, replace(bad[0], excluded_reason="silent: y")))
    write_corpus(corpus, tmp_path / "corpus.parquet")
    found = CorpusSummary.read(tmp_path / "corpus.parquet")
    assert (found.files, found.usable, found.excluded) == (18, 15, corpus.excluded)
    assert list(found.reasons.items()) == [("silent", 2), ("empty", 1)]
    assert found.genres == ("jazz", "soul")
    for split_name in SPLITS:
        part = corpus.part(split_name)
        assert found.splits[split_name] == (len(part), sum(track.seconds or 0.0 for track in part))
        for genre in found.genres:
            assert found.tracks[genre][split_name] == sum(track.genre == genre for track in part)
