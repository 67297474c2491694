"""The built-in corpus is generated once by one process, and is complete or absent."""

import threading
from pathlib import Path

import pytest
from reporters import RecordingReporter

from genre_core.synthetic import corpus
from genre_core.synthetic.corpus import SyntheticCorpus
from genre_core.system.progress import ProgressCallback
from search.data.builtin_corpus import cached

TINY_CORPUS = SyntheticCorpus(tracks_per_genre=1, seconds=1.0)


class WaitingReporter(RecordingReporter):
    """Signals its first message: that it waits for another process."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = threading.Event()

    def say(self, text: str) -> None:
        super().say(text)
        self.waits.set()


def test_two_concurrent_runs_generate_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, begun, other_waits = corpus.write, threading.Event(), WaitingReporter()
    written: list[Path] = []

    def slowly(spec: SyntheticCorpus, folder: Path, report: ProgressCallback | None = None) -> Path:
        begun.set()
        assert other_waits.waits.wait(60)
        written.append(folder)
        return write(spec, folder, report)

    monkeypatch.setattr(corpus, "write", slowly)
    found: list[Path] = []
    first = threading.Thread(target=lambda: found.append(cached(TINY_CORPUS, tmp_path, RecordingReporter())))
    first.start()
    assert begun.wait(60)
    assert {path.suffix for path in (tmp_path / "synthetic").iterdir()} <= {".lock", ".partial"}
    found.append(cached(TINY_CORPUS, tmp_path, other_waits))
    first.join()
    assert len(written) == 1
    assert found[0] == found[1]
    assert len(list(found[0].glob("*/*.wav"))) == 10


def test_the_files_of_a_killed_process_are_replaced(tmp_path: Path) -> None:
    whole = cached(TINY_CORPUS, tmp_path / "whole", RecordingReporter())
    left = tmp_path / "synthetic" / whole.name
    for folder in (left, left.with_suffix(".partial")):
        (folder / "jazz").mkdir(parents=True)
        (folder / "jazz" / "jazz.00000.wav").write_bytes(b"half")
    again = cached(TINY_CORPUS, tmp_path, RecordingReporter())
    names = sorted(path.relative_to(whole) for path in whole.rglob("*"))
    assert names == sorted(path.relative_to(again) for path in again.rglob("*"))
    assert (again / "jazz/jazz.00000.wav").read_bytes() == (whole / "jazz/jazz.00000.wav").read_bytes()
