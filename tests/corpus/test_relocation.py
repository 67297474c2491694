"""Music that has moved since a search began is found again, by name or by what it decodes to."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from made_runs import Quiet, make_run

from genre_core.corpus.audit import audit
from genre_core.corpus.relocation import relocated, relocated_by_name
from genre_core.corpus.tracks import Corpus, load_corpus, read_corpus, write_corpus
from genre_core.errors import InputError
from search.config.schema import load
from search.data.prepare import reopen_store
from search.tune.search import its_music


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


def test_a_folder_that_moved_is_found_by_name(corpus: Corpus, here: Path, tmp_path: Path) -> None:
    there = here.rename(tmp_path / "there")
    moved = relocated(corpus, there, cache=tmp_path / "cache")
    assert _paths(moved) == set(there.rglob("*.wav"))
    same = [replace(track, path=old.path) for track, old in zip(moved.tracks, corpus.tracks, strict=True)]
    assert tuple(same) == corpus.tracks, "nothing but the paths is another"
    assert _paths(relocated_by_name(corpus, there)) == _paths(moved)


def test_files_that_were_renamed_are_found_by_content(corpus: Corpus, here: Path, tmp_path: Path) -> None:
    there = here.rename(tmp_path / "there")
    (there / "blues" / "an artist").mkdir()
    for number, path in enumerate(sorted((there / "blues").glob("*.wav"))[:3]):
        path.rename(there / "blues" / "an artist" / f"song {number}.wav")
    contents = {track.content for track in corpus.usable}
    moved = relocated(corpus, there, cache=tmp_path / "new")
    assert _paths(moved) == set(there.rglob("*.wav"))
    again = audit(moved, minimum_seconds=1.0, cache=tmp_path / "another")
    assert {track.content for track in again.usable} == contents


def test_a_manifest_names_the_new_place(corpus: Corpus, here: Path, tmp_path: Path) -> None:
    there = here.rename(tmp_path / "there")
    lines = [f"{path.relative_to(there)},{path.parent.name}" for path in there.rglob("*.wav")]
    (there / "list.csv").write_text("\n".join(["path,genre", *lines]))
    assert _paths(relocated(corpus, there / "list.csv", cache=tmp_path / "c")) == set(there.rglob("*.wav"))


def test_music_that_lacks_tracks_is_refused(corpus: Corpus, here: Path, tmp_path: Path) -> None:
    gone = sorted(here.rglob("*.wav"))[0]
    gone.unlink()
    with pytest.raises(InputError, match=rf"{here} lacks 1 of 12 tracks, '{gone.relative_to(here)}'"):
        relocated(corpus, here, cache=tmp_path / "cache")


def test_a_run_names_the_new_place_once_its_music_has_proved_the_same(
    corpus: Corpus, here: Path, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "r")
    write_corpus(corpus, run / "corpus.parquet")
    there = here.rename(tmp_path / "there")
    config = load(run / "config.yaml", {"segment_seconds": 1.0})
    screen = _Silent()
    changed = next(there.rglob("*.wav"))
    content = changed.read_bytes()
    changed.write_bytes(content[:-3000])
    with pytest.raises(InputError, match=rf"1 of 12 files in {there}"):
        its_music(config, run, there, cache=tmp_path / "cache", screen=screen)
    assert load_corpus(run / "corpus.parquet") == corpus
    changed.write_bytes(content)
    config, tracks = its_music(config, run, there, cache=tmp_path / "cache", screen=screen)
    assert config.data == str(there) == load(run / "config.yaml", {}).data
    assert _paths(tracks) == _paths(load_corpus(run / "corpus.parquet")) == set(there.rglob("*.wav"))


def test_a_lost_store_whose_files_are_gone_is_one_line(corpus: Corpus, here: Path, tmp_path: Path) -> None:
    config = load(None, {"data": str(here), "segment_seconds": 1.0, "front_end": "mel64"})
    store = reopen_store(config, corpus, cache=tmp_path / "cache", reporter=_Silent())
    shutil.rmtree(store.folder)
    here.rename(tmp_path / "there")
    with pytest.raises(InputError, match=rf"12 of 12 files in {here} .*--data"):
        reopen_store(config, corpus, cache=tmp_path / "cache", reporter=_Silent())


class _Silent(Quiet):
    """A screen that shows no progress."""

    def progress(self, title: str) -> "_Silent":
        return self

    def __enter__(self) -> "_Silent":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is shown."""

    def __call__(self, done: int, total: int) -> None:
        """Nothing is shown."""
