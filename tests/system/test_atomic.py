"""Files that cannot be computed again survive a power failure once their writer returns."""

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from made_runs import epoch_report, trial_row

from genre_core.audio.mel import front_end
from genre_core.corpus.corpus_table import write_corpus
from genre_core.corpus.spectrogram_store import mel_parts, open_or_build
from genre_core.corpus.tracks import Corpus, Track
from genre_core.system.atomic import atomic_file, atomic_folder, make_folder, sync_folder
from genre_core.system.disk_cache import NodeCache
from search.run.checkpoints import CheckpointStore
from search.run.folder import RunFolder
from search.run.model_store import write_model
from search.run.tables import ResultsWriter, write_finish, write_test_tracks
from search.study.pruners import make_pruner
from search.study.samplers import make_sampler
from search.study.study import Study

Write = Callable[[Path], object]


class Disk:
    """Records what is synced, and which files had their final name at that time."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._moments: list[tuple[int, frozenset[tuple[Path, int]]]] = []

    def sync(self, descriptor: int) -> None:
        """Replaces os.fsync."""
        files = frozenset((path, path.stat().st_ino) for path in self._root.rglob("*"))
        self._moments.append((os.fstat(descriptor).st_ino, files))

    @property
    def synced(self) -> list[int]:
        """Inodes of the synced files and folders, in order."""
        return [inode for inode, _ in self._moments]

    def survives(self, path: Path) -> bool:
        """Whether a file was synced before it got its name, and its folder afterwards."""
        inode, folder = path.stat().st_ino, path.parent.stat().st_ino
        named = [(path, inode) in files for _, files in self._moments]
        content = [n for n, (synced, _) in enumerate(self._moments) if synced == inode]
        names = [n for n, (synced, _) in enumerate(self._moments) if synced == folder and named[n]]
        return bool(content and names) and not named[content[0]] and content[0] < names[-1]


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk(tmp_path)
    monkeypatch.setattr(os, "fsync", disk.sync)
    return disk


def _tables(run: Path) -> ResultsWriter:
    return ResultsWriter(run)


def _epoch(run: Path) -> None:
    _tables(run).add_epoch(epoch_report(0, [0.5]).row, trial_row(0))


def _finish(run: Path, write: Callable[[Path, list[Any]], None]) -> None:
    _tables(run).flush()
    (run / "config.yaml").touch()
    write(run, [])


def _corpus(run: Path) -> None:
    run.mkdir()
    write_corpus(Corpus((Track(track_id="a", location="a.wav", genre="jazz", group="a"),)), run / "c.parquet")


def _text(run: Path) -> None:
    run.mkdir()
    with atomic_file(run / "config.yaml") as partial:
        partial.write_text("trials: 1\n")


TENSORS = {"head.bias": np.zeros(3, np.float32)}

DURABLE: dict[str, tuple[Write, tuple[str, ...]]] = {
    "a file": (_text, ("config.yaml",)),
    "the corpus": (_corpus, ("c.parquet",)),
    "an epoch": (_epoch, (RunFolder(Path()).epochs_of(0).as_posix(),)),
    "the trials at the end of the search": (lambda run: _tables(run).flush(), ("results/trials.parquet",)),
    "the final models' table": (lambda run: _finish(run, write_finish), ("results/finish.parquet",)),
    "the scores on the test set": (
        lambda run: _finish(run, write_test_tracks),
        ("results/test_tracks.parquet",),
    ),
}
CACHED: dict[str, Write] = {
    "a file of a node's cache": lambda run: _cached(run),
    "a running trial's checkpoint": lambda run: _checkpoint(run),
}


def _checkpoint(folder: Path) -> None:
    folder.mkdir()
    CheckpointStore(folder, 10_000).put(0, 1, TENSORS, {})


def _cached(folder: Path) -> None:
    with NodeCache(folder, budget_bytes=100).reserve("a", 1) as partial:
        assert partial is not None
        partial.touch()


@pytest.mark.parametrize("case", DURABLE)
def test_results_survive_a_power_failure(case: str, disk: Disk, tmp_path: Path) -> None:
    write, names = DURABLE[case]
    write(tmp_path / "r")
    assert all(disk.survives(tmp_path / "r" / name) for name in names)


@pytest.mark.parametrize("case", CACHED)
def test_caches_are_not_synced(case: str, disk: Disk, tmp_path: Path) -> None:
    CACHED[case](tmp_path / "r")
    assert any((tmp_path / "r").iterdir())
    assert not disk.synced


def test_a_model_survives_a_power_failure_with_all_its_files(disk: Disk, tmp_path: Path) -> None:
    write_model(tmp_path / "model", TENSORS, {"trial": 0})
    files = [path.stat().st_ino for path in (tmp_path / "model").iterdir()]
    assert len(files) == 2
    assert disk.synced[-1] == tmp_path.stat().st_ino, "its name comes last"
    assert {*files, (tmp_path / "model").stat().st_ino} <= set(disk.synced[:-1])


def test_a_spectrogram_store_survives_a_power_failure(disk: Disk, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 22_050), 22_050)
    digest = hashlib.sha256((tmp_path / "a.wav").read_bytes()).hexdigest()
    location = str(tmp_path / "a.wav")
    track = Track(track_id="a", location=location, genre="jazz", group="a", file_hash=digest)
    store = open_or_build([track], front_end("mel64"), cache=tmp_path / "cache")
    assert track in store
    parts = mel_parts(front_end("mel64"), tmp_path / "cache").folder
    for folder in (store.folder, parts):
        files = list(folder.iterdir())
        assert files
        assert all(path.stat().st_ino in disk.synced for path in (*files, folder))


def test_a_trials_row_is_not_synced_during_the_search(disk: Disk, tmp_path: Path) -> None:
    tables = _tables(tmp_path / "r")
    before = disk.synced
    tables.put_trial(trial_row(0))
    assert (tmp_path / "r" / "results" / "trials.parquet").exists()
    assert disk.synced == before


def test_each_line_of_the_journal_survives_a_power_failure(disk: Disk, tmp_path: Path) -> None:
    journal = tmp_path / "study.journal"
    sampler, pruner = make_sampler("random", {}, seed=0), make_pruner("none", {}, epochs=2)
    study = Study(journal, name="r", sampler=sampler, pruner=pruner)
    assert disk.synced[-1] == tmp_path.stat().st_ino
    number = study.ask().number
    for epoch in (1, 2):
        before = len(disk.synced)
        study.report(number, epoch=epoch, f1=0.5)
        assert journal.stat().st_ino in disk.synced[before:]


def test_new_folders_and_their_parents_survive_a_power_failure(disk: Disk, tmp_path: Path) -> None:
    make_folder(tmp_path / "runs" / "r")
    assert disk.synced == [
        tmp_path.stat().st_ino,
        (tmp_path / "runs").stat().st_ino,
    ]
    make_folder(tmp_path / "runs" / "r")
    assert len(disk.synced) == 2


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_failed_sync_keeps_the_earlier_file(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text("earlier")

    def fails(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError) as error, atomic_file(tmp_path / "a") as partial:  # noqa: PT011
        partial.write_text("later")
    assert error.value.errno == code
    assert (tmp_path / "a").read_text() == "earlier"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_system_that_cannot_sync_folders_is_supported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", fails)
    sync_folder(tmp_path)
    with atomic_file(tmp_path / "a") as partial:
        partial.write_text("here")
    with atomic_folder(tmp_path / "b") as partial:
        (partial / "c").write_text("here")
    assert (tmp_path / "a").read_text() == (tmp_path / "b" / "c").read_text() == "here"
