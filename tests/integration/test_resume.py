"""A search that has ended or was interrupted is resumed from its folder, whatever happened to that in between."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import torchvision
from conftest import Command, sets
from refusals import refused
from reporters import unseen_display
from rich.console import Console
from small_disks import small_disk
from without_ray import searches_in_process

from genre_core.errors import InputError
from search.config.schema import SearchConfig, load
from search.display.progress import Display
from search.errors import SearchErrorCode
from search.run.folder import RunFolder
from search.run.lock import driving, is_driven
from search.run.tables import read_epochs, read_trials
from search.study.journal import own_trials
from search.tune import search

Resume = Callable[..., str]


@pytest.fixture(scope="module", autouse=True)
def without_ray() -> Iterator[None]:
    """Searches of this process train nothing and need no Ray."""
    with searches_in_process():
        yield


@pytest.fixture(scope="module")
def ended(
    tiny: Callable[..., SearchConfig], music: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a finished search of two trials, next to its music and weights; tests take copies."""
    folder = tmp_path_factory.mktemp("ended")
    shutil.copytree(music, folder / "music")
    jazz = folder / "music" / "jazz"
    (jazz / "jazz.00000.wav").write_bytes((jazz / "jazz.00001.wav").read_bytes()[:-2000])
    _write_weights(folder / "w.pth", seed=0)
    config = tiny(data=str(folder / "music"), weights=str(folder / "w.pth"), trials=2, training__epochs=2)
    search.run(config, folder=folder / "r", cache=cache, reporter=unseen_display())
    return folder / "r"


def _write_weights(path: Path, *, seed: int) -> None:
    torch.manual_seed(seed)
    state = torchvision.models.resnet18().state_dict()
    torch.save({k: v for k, v in state.items() if not k.startswith("fc.")}, path)


@pytest.fixture
def folder(ended: Path, tmp_path: Path) -> Path:
    """A copy of that search's folder."""
    return Path(shutil.copytree(ended, tmp_path / "r"))


@pytest.fixture
def resume(cache: Path, folder: Path) -> Resume:
    """Resume the search in `folder` with these changes; return what was shown."""

    def call(**changes: Any) -> str:
        return _resume(folder, cache, **changes)

    return call


def _resume(folder: Path, cache: Path, *, data: Path | None = None, **changes: Any) -> str:
    screen = StringIO()
    display = Display(Console(file=screen, width=200))
    search.resume(
        load(folder / "config.yaml", changes), folder=folder, cache=cache, reporter=display, data=data
    )
    return screen.getvalue()


def test_a_finished_search_is_extended(folder: Path, resume: Resume) -> None:
    before = read_trials(folder)
    said = resume()
    assert "--trials" in said
    assert "above 2" in said
    resume(trials=4)
    after = read_trials(folder)
    assert after["state"].tolist() == ["COMPLETE"] * 4
    assert after["learning_rate"].nunique() == 4
    columns = ["trial", "state", "val_f1", "finished", "started", "seconds", "attempt"]
    assert after[columns].head(2).to_dict("records") == [
        row | {"finished": pytest.approx(row["finished"], abs=pd.Timedelta(minutes=1))}
        for row in before[columns].to_dict("records")
    ]


def test_a_finished_search_is_copied_to_a_storage(folder: Path, resume: Resume, tmp_path: Path) -> None:
    resume(storage=(tmp_path / "copies").as_uri())
    copy = tmp_path / "copies" / "r"
    files = {p.relative_to(folder) for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")}
    assert {p.relative_to(copy) for p in copy.rglob("*") if p.is_file()} == files


def test_damaged_tables_are_rebuilt_from_the_study(folder: Path, resume: Resume) -> None:
    epochs, trials = read_epochs(folder), read_trials(folder)
    (folder / "results" / "trials.parquet").write_bytes(b"PAR1 half of it")
    os.truncate(RunFolder(folder).epochs_of(0), 700)
    (folder / "results" / "epochs" / ".trial-00001.parquet.17.partial").write_bytes(b"PAR1")
    for read in (read_trials, read_epochs):
        with pytest.raises(InputError) as damaged:
            read(folder)
        assert "genre-search resume" in str(damaged.value)
    resume()
    columns = ["trial", "epoch", "val_f1"]
    assert read_epochs(folder)[columns].to_dict("records") == epochs[columns].to_dict("records")
    assert read_trials(folder)["val_f1"].tolist() == trials["val_f1"].tolist()
    assert not list((folder / "results").rglob("*.partial"))


def test_a_second_driver_is_refused(folder: Path, resume: Resume) -> None:
    assert not is_driven(folder)
    with driving(folder):
        assert is_driven(folder)
        with refused(SearchErrorCode.RUN_IS_DRIVEN, os.getpid(), folder):
            resume(trials=4)


def test_changed_weights_are_refused(ended: Path, resume: Resume) -> None:
    weights = ended.parent / "w.pth"
    _write_weights(weights, seed=1)
    with refused(SearchErrorCode.WEIGHTS_CHANGED, "resnet18"):
        resume(trials=3)
    _write_weights(weights, seed=0)


def test_missing_music_is_refused_unless_its_spectrograms_are_cached_or_its_new_place_is_given(
    ended: Path, folder: Path, resume: Resume, tmp_path: Path
) -> None:
    away = (ended.parent / "music").rename(ended.parent / "away")
    try:
        resume(trials=3)
        with refused(SearchErrorCode.AUDIO_CHANGED, ended.parent / "music", "--data"):
            _resume(folder, tmp_path / "new cache", trials=4)
        _resume(folder, tmp_path / "new cache", trials=4, data=away)
        assert load(folder / "config.yaml", {}).data == str(away)
        assert len(read_trials(folder)) == 4
    finally:
        away.rename(ended.parent / "music")


def test_a_lost_run_is_restored_from_its_storage_and_resumed(
    tiny: Callable[..., SearchConfig], cache: Path, genre_search: Command, tmp_path: Path
) -> None:
    run, copies = tmp_path / "r", (tmp_path / "copies").as_uri()
    screen = StringIO()
    config = tiny(storage=copies, trials=2, checkpoint_budget=1e-9)
    search.run(config, folder=run, cache=cache, reporter=Display(Console(file=screen, width=300)))
    assert screen.getvalue().count("checkpoint_budget=") == 1, "a lack of space is reported once"
    before = read_trials(run)
    shutil.rmtree(run)
    back = genre_search("resume", run, "--trials", 3, "--storage", copies)
    assert back.returncode == 0, back.stderr
    assert read_trials(run)["val_f1"].head(2).tolist() == before["val_f1"].tolist()
    assert len(read_trials(run)) == len(read_trials(tmp_path / "copies" / "r")) == 3


SETTINGS = sets(keep_models=0, checkpoint_budget=0, pruner="none", sampler="random")


def test_a_full_disk_ends_a_search_in_one_line_and_it_resumes_once_there_is_space(
    music: Path, cache: Path, genre_search: Command, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "small", 250_000) as small:
        full = genre_search(
            "run", "--data", music, "--runs", small, "--name", "r", *SETTINGS, "--trials", 4000
        )
        shutil.copytree(small / "r", tmp_path / "r")
    assert full.returncode == 2, full.stderr
    _require_resumable(full.stderr, small, tmp_path / "r", cache)


def _require_resumable(errors: str, disk: Path, run: Path, cache: Path) -> None:
    """A search that ended on a full disk said so in one line, and its folder, now on another disk, is resumed."""
    assert str(disk) in errors
    assert "genre-search resume" in errors
    assert errors.count("\n") == 1
    ended = read_epochs(run)
    assert len(ended)
    _resume(run, cache, trials=len(own_trials(run)) + 3)
    assert set(read_trials(run)["state"]) == {"COMPLETE"}
    columns = ["trial", "epoch", "val_f1"]
    assert read_epochs(run).merge(ended[columns], on=columns).shape[0] == len(ended), "nothing is lost"


@pytest.mark.long
def test_a_full_disk_ends_a_search_on_ray(music: Path, cache: Path, tmp_path: Path) -> None:
    """The disk is mounted in a namespace of its own, which needs fewer rights."""
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small disk")
    small, saved = tmp_path / "small", tmp_path / "r"
    small.mkdir()
    command = [str(Path(sys.executable).parent / "genre-search"), "run", "--data", str(music), *SETTINGS]
    command += ["--trials", "4000", "--name", "r", "--runs", str(small)]
    script = 'mount -t tmpfs -o size=250k none "$1" && shift && "$@"; code=$?; cp -a "$SMALL/r" "$SAVED"; exit $code'
    full = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", str(small), *command],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | {"SMALL": str(small), "SAVED": str(saved), "GENRE_SEARCH_CACHE": str(cache)},
    )
    assert full.returncode == 2, full.stderr
    _require_resumable(full.stderr, small, saved, cache)
