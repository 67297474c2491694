"""The built-in corpus in the cache: made by one process at a time, and whole where it is."""

import threading
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from genre_core.synthetic import corpus
from genre_core.synthetic.corpus import SyntheticCorpus
from genre_core.system.progress import ProgressCallback
from search.config.schema import SearchConfig, load
from search.data import prepare

TINY_CORPUS = {"synthetic.tracks_per_genre": 1, "synthetic.seconds": 1.0}


class Said:
    """A screen that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.waits = threading.Event()

    def say(self, text: str) -> None:
        self.lines.append(text)
        self.waits.set()

    def progress(self, title: str) -> AbstractContextManager[ProgressCallback]:
        return nullcontext(lambda done, total: None)


@pytest.fixture
def config() -> SearchConfig:
    return load(None, TINY_CORPUS)


def test_two_first_runs_at_once_write_it_once(
    config: SearchConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, begun, other_waits = corpus.write, threading.Event(), Said()
    written: list[Path] = []

    def slowly(spec: SyntheticCorpus, folder: Path, report: ProgressCallback | None = None) -> Path:
        begun.set()
        assert other_waits.waits.wait(60)
        written.append(folder)
        return write(spec, folder, report)

    monkeypatch.setattr(corpus, "write", slowly)
    found: list[Path] = []
    first = threading.Thread(target=lambda: found.append(prepare._source(config, tmp_path, Said())))
    first.start()
    assert begun.wait(60)
    assert {path.suffix for path in (tmp_path / "synthetic").iterdir()} <= {".lock", ".partial"}
    found.append(prepare._source(config, tmp_path, other_waits))
    first.join()
    assert len(written) == 1
    assert found[0] == found[1]
    assert len(list(found[0].glob("*/*.wav"))) == 10


def test_what_a_killed_process_left_of_it_is_written_anew(
    config: SearchConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = prepare._source(config, tmp_path / "whole", Said())
    left = tmp_path / "synthetic" / whole.name
    for folder in (left, left.with_suffix(".partial")):
        (folder / "jazz").mkdir(parents=True)
        (folder / "jazz" / "jazz.00000.wav").write_bytes(b"half")
    again = prepare._source(config, tmp_path, Said())
    names = sorted(path.relative_to(whole) for path in whole.rglob("*"))
    assert names == sorted(path.relative_to(again) for path in again.rglob("*"))
    assert (again / "jazz/jazz.00000.wav").read_bytes() == (whole / "jazz/jazz.00000.wav").read_bytes()
