"""The table of a corpus: round trips, earlier versions, damage, and reading only some columns or rows."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import flat
from refusals import refused

from genre_core.corpus import corpus_table
from genre_core.corpus.corpus_table import (
    load_corpus,
    load_excluded,
    read_columns,
    read_genres,
    require_corpus,
    write_corpus,
)
from genre_core.corpus.splits import split_corpus
from genre_core.corpus.tracks import SPLITS, Corpus
from genre_core.errors import ErrorCode

READERS: list[Callable[[Path], object]] = [
    load_corpus,
    lambda path: load_corpus(path, part="test"),
    load_excluded,
    lambda path: read_columns(path, "genre"),
    read_genres,
    require_corpus,
]


@pytest.fixture
def corpus() -> Corpus:
    """A split corpus; one track is excluded, and the only one of its genre."""
    first, *others = split_corpus(flat(jazz=4, soul=4), validation=0.25, test=0.25, seed=0).tracks
    full = replace(first, seconds=29.97, content="ab12", file_hash="cd34", track_id="ü\n")
    bad = replace(first, genre="pop", excluded_reason="silent", split=None)
    return Corpus((full, *others[:3], bad, *others[3:]))


@pytest.fixture
def path(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its table, of several batches."""
    monkeypatch.setattr(corpus_table, "ROWS", 2)
    write_corpus(corpus, tmp_path / "corpus.parquet")
    return tmp_path / "corpus.parquet"


def as_earlier_version(path: Path) -> None:
    table = pq.read_table(path).drop_columns(["file_hash"])
    pq.write_table(table.replace_schema_metadata({"schema_version": "1"}), path)


def test_a_corpus_survives_a_round_trip_and_its_table_states_units(corpus: Corpus, tmp_path: Path) -> None:
    path = tmp_path / "lr=0.1" / "corpus.parquet"  # looks like a partition but is not one
    path.parent.mkdir()
    write_corpus(corpus, path)
    write_corpus(corpus, path)
    assert load_corpus(path) == corpus
    assert [child.name for child in path.parent.iterdir()] == ["corpus.parquet"]
    schema = pq.read_schema(path)
    assert schema.field("seconds").metadata == {b"unit": b"s"}
    assert schema.metadata[b"schema_version"] == b"2"


@pytest.mark.parametrize("of_earlier_version", [False, True])
def test_the_rows_of_a_part_and_the_excluded_ones_are_those_of_the_whole_corpus(
    path: Path, *, of_earlier_version: bool
) -> None:
    if of_earlier_version:
        as_earlier_version(path)
    corpus = load_corpus(path)
    assert [load_corpus(path, part=part).tracks for part in SPLITS] == [corpus.part(part) for part in SPLITS]
    assert load_excluded(path).tracks == corpus.excluded
    assert read_genres(path) == corpus.genres == ("jazz", "soul")
    for part, tracks in [(None, corpus.usable), *((part, corpus.part(part)) for part in SPLITS)]:
        assert read_columns(path, "group", "file_hash", "path", part=part) == {
            "group": [track.group for track in tracks],
            "file_hash": [track.file_hash for track in tracks],
            "path": [track.location for track in tracks],
        }


def test_a_table_of_an_earlier_version_has_no_hashes_of_files(corpus: Corpus, path: Path) -> None:
    as_earlier_version(path)
    assert load_corpus(path).tracks == tuple(replace(track, file_hash=None) for track in corpus.tracks)


def test_columns_that_are_not_asked_for_are_not_read(corpus: Corpus, path: Path) -> None:
    """A damaged column does no harm to a reader of others."""
    pq.write_table(pq.read_table(path), path)
    metadata = pq.read_metadata(path)
    damaged = metadata.row_group(0).column(metadata.schema.names.index("content"))
    data = bytearray(path.read_bytes())
    first = damaged.dictionary_page_offset or damaged.data_page_offset
    data[first : first + damaged.total_compressed_size] = bytes(damaged.total_compressed_size)
    path.write_bytes(data)
    assert read_columns(path, "genre") == {"genre": [track.genre for track in corpus.usable]}
    with refused(ErrorCode.CORPUS_TABLE_UNREADABLE, path):
        load_corpus(path)


@pytest.mark.parametrize("read", READERS)
def test_a_file_that_is_not_a_corpus_table_is_refused(read: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / "corpus.parquet"
    with refused(ErrorCode.CORPUS_TABLE_UNREADABLE, path):
        read(path)
    path.write_text("PAR1")
    with refused(ErrorCode.CORPUS_TABLE_UNREADABLE, path):
        read(path)
    pq.write_table(pa.table({"track_id": ["a"]}), path)
    with refused(ErrorCode.CORPUS_TABLE_VERSION, path, "version 1 or 2"):
        read(path)


def test_tracks_share_the_names_of_their_genres_groups_and_ids(tmp_path: Path) -> None:
    tracks = flat(jazz=3, soul=3).tracks
    alone = [replace(track, group=track.track_id) for track in tracks[:2]]
    write_corpus(Corpus((*alone, *(replace(t, group="Queen") for t in tracks[2:]))), tmp_path / "c")
    loaded = load_corpus(tmp_path / "c").tracks
    assert len({id(track.genre) for track in loaded}) == 2
    assert len({id(track.group) for track in loaded}) == 3
    assert all(track.group is track.track_id for track in loaded[:2])
