"""Relocation of moved music by name or by content."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from made_runs import Quiet, make_run
from refusals import refused

from genre_core.corpus.audit import audit
from genre_core.corpus.corpus_table import load_corpus, write_corpus
from genre_core.corpus.relocation import relocate_corpus, relocate_corpus_by_name
from genre_core.corpus.tracks import Corpus, read_corpus
from genre_core.errors import ErrorCode
from search.config.schema import load
from search.data.music import locate_music
from search.data.prepare import reopen_store
from search.errors import SearchErrorCode


@pytest.fixture
def here(music: Path, tmp_path: Path) -> Path:
    """Two genres of the shared music, without its manifest."""
    for genre in ("blues", "jazz"):
        shutil.copytree(music / genre, tmp_path / "music" / genre)
    return tmp_path / "music"


@pytest.fixture
def corpus(here: Path, tmp_path: Path) -> Corpus:
    found = audit(read_corpus(here), minimum_seconds=1.0, cache=tmp_path / "cache")
    assert len(found.usable) == 12
    return found


def _paths(corpus: Corpus) -> set[Path]:
    return {track.path for track in corpus.usable}


def test_moved_files_are_found_by_name(corpus: Corpus, here: Path, tmp_path: Path) -> None:
    there = here.rename(tmp_path / "there")
    moved = relocate_corpus(corpus, there, cache=tmp_path / "cache")
    assert _paths(moved) == set(there.rglob("*.wav"))
    same = [replace(t, location=old.location) for t, old in zip(moved.tracks, corpus.tracks, strict=True)]
    assert tuple(same) == corpus.tracks, "only the paths change"
    assert _paths(relocate_corpus_by_name(corpus, there)) == _paths(moved)


def test_renamed_files_are_found_by_content(corpus: Corpus, here: Path, tmp_path: Path) -> None:
    there = here.rename(tmp_path / "there")
    (there / "blues" / "an artist").mkdir()
    for number, path in enumerate(sorted((there / "blues").glob("*.wav"))[:3]):
        path.rename(there / "blues" / "an artist" / f"song {number}.wav")
    contents = {track.content for track in corpus.usable}
    moved = relocate_corpus(corpus, there, cache=tmp_path / "new")
    assert _paths(moved) == set(there.rglob("*.wav"))
    again = audit(moved, minimum_seconds=1.0, cache=tmp_path / "another")
    assert {track.content for track in again.usable} == contents


def test_moved_files_are_found_through_a_manifest(corpus: Corpus, here: Path, tmp_path: Path) -> None:
    there = here.rename(tmp_path / "there")
    lines = [f"{path.relative_to(there)},{path.parent.name}" for path in there.rglob("*.wav")]
    (there / "list.csv").write_text("\n".join(["path,genre", *lines]))
    assert _paths(relocate_corpus(corpus, there / "list.csv", cache=tmp_path / "c")) == set(
        there.rglob("*.wav")
    )


def test_a_folder_that_lacks_tracks_is_refused(corpus: Corpus, here: Path, tmp_path: Path) -> None:
    gone = sorted(here.rglob("*.wav"))[0]
    gone.unlink()
    with refused(
        ErrorCode.TRACKS_NOT_FOUND, "--data", f"{here} ", "1 of 12", repr(str(gone.relative_to(here)))
    ):
        relocate_corpus(corpus, here, cache=tmp_path / "cache")


def test_a_run_stores_the_new_path_once_locate_music_is_verified(
    corpus: Corpus, here: Path, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "r")
    write_corpus(corpus, run / "corpus.parquet")
    there = here.rename(tmp_path / "there")
    config = load(run / "config.yaml", {"segment_seconds": 1.0})
    reporter = _Silent()
    changed = next(there.rglob("*.wav"))
    content = changed.read_bytes()
    changed.write_bytes(content[:-3000])
    with refused(SearchErrorCode.AUDIO_CHANGED, f"1 of 12 files in {there}"):
        locate_music(config, run, there, cache=tmp_path / "cache", reporter=reporter)
    assert load_corpus(run / "corpus.parquet") == corpus
    changed.write_bytes(content)
    config, tracks = locate_music(config, run, there, cache=tmp_path / "cache", reporter=reporter)
    assert config.data == str(there) == load(run / "config.yaml", {}).data
    assert _paths(tracks) == _paths(load_corpus(run / "corpus.parquet")) == set(there.rglob("*.wav"))


def test_a_lost_store_whose_files_are_gone_is_refused_with_the_option_data(
    corpus: Corpus, here: Path, tmp_path: Path
) -> None:
    config = load(None, {"data": str(here), "segment_seconds": 1.0, "front_end": "mel64"})
    store = reopen_store(config, corpus, cache=tmp_path / "cache", reporter=_Silent())
    shutil.rmtree(store.folder)
    here.rename(tmp_path / "there")
    with refused(SearchErrorCode.AUDIO_CHANGED, f"12 of 12 files in {here}", "--data"):
        reopen_store(config, corpus, cache=tmp_path / "cache", reporter=_Silent())


class _Silent(Quiet):
    """A reporter that shows no progress."""

    def progress(self, title: str) -> "_Silent":
        return self

    def __enter__(self) -> "_Silent":
        return self

    def __exit__(self, *_: object) -> None:
        """Show nothing."""

    def __call__(self, done: int, total: int) -> None:
        """Show nothing."""
