"""A search that was cut off goes on where it was, whatever its folder went through in between."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import torchvision
from conftest import Command
from rich.console import Console
from tiny import TINY
from workers import HangingTrial

from genre_core.errors import InputError
from search.cli.progress import Display
from search.config.schema import SearchConfig, load
from search.run.folder import RunFolder
from search.run.lock import driving, is_driven
from search.run.tables import read_epochs, read_trials
from search.tune import search

Search = Callable[..., pd.DataFrame]
Drive = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "r"


@pytest.fixture
def begin(tiny: Callable[..., SearchConfig], cache: Path, run: Path, small_ray: None) -> Drive:
    """Runs a tiny search with these changes, and gives what it said."""

    def call(**changes: Any) -> str:
        screen = StringIO()
        config = tiny(**{"trials": 2, "training__epochs": 2} | changes)
        search.run(
            config, folder=run, cache=cache, reporter=Display(Console(file=screen), trials=config.trials)
        )
        return screen.getvalue()

    return call


@pytest.fixture(scope="module")
def ended(
    tiny: Callable[..., SearchConfig],
    music: Path,
    cache: Path,
    tmp_path_factory: pytest.TempPathFactory,
    small_ray: None,
) -> Path:
    """The folder of a search of two trials that is over: tests take copies. Beside it are its music and weights."""
    folder = tmp_path_factory.mktemp("ended")
    shutil.copytree(music, folder / "music")
    jazz = folder / "music" / "jazz"
    (jazz / "jazz.00000.wav").write_bytes((jazz / "jazz.00001.wav").read_bytes()[:-2000])
    _write_weights(folder / "w.pth", seed=0)
    config = tiny(data=str(folder / "music"), weights=str(folder / "w.pth"), trials=2, training__epochs=2)
    search.run(config, folder=folder / "r", cache=cache, reporter=Display(Console(file=StringIO())))
    return folder / "r"


def _write_weights(path: Path, *, seed: int) -> None:
    torch.manual_seed(seed)
    state = torchvision.models.resnet18().state_dict()
    torch.save({k: v for k, v in state.items() if not k.startswith("fc.")}, path)


@pytest.fixture
def over(ended: Path, run: Path) -> Path:
    """A copy of that search's folder."""
    shutil.copytree(ended, run)
    return run


@pytest.fixture
def go_on(cache: Path, run: Path) -> Drive:
    """Resumes it with these changes, and gives what it said."""

    def call(**changes: Any) -> str:
        screen = StringIO()
        config = load(run / "config.yaml", changes)
        search.resume(config, folder=run, cache=cache, reporter=Display(Console(file=screen, width=200)))
        return screen.getvalue()

    return call


def test_a_search_that_is_over_is_extended(over: Path, go_on: Drive) -> None:
    before = read_trials(over)
    assert "is at its end" in go_on()
    assert "2 trials have ended" in go_on(trials=4)
    after = read_trials(over)
    assert after["state"].isin(["COMPLETE", "PRUNED"]).tolist() == [True] * 4
    assert after["learning_rate"].nunique() == 4
    columns = ["trial", "state", "val_f1", "finished", "started", "seconds", "attempt"]
    assert after[columns].head(2).to_dict("records") == [
        row | {"finished": pytest.approx(row["finished"], abs=pd.Timedelta(minutes=1))}
        for row in before[columns].to_dict("records")
    ]


def test_a_search_that_is_over_is_copied_to_a_storage(over: Path, go_on: Drive, tmp_path: Path) -> None:
    assert "is at its end" in go_on(storage=(tmp_path / "copies").as_uri())
    copy = tmp_path / "copies" / "r"
    files = {p.relative_to(over) for p in over.rglob("*") if p.is_file() and not p.name.startswith(".")}
    assert {p.relative_to(copy) for p in copy.rglob("*") if p.is_file()} == files


@pytest.mark.usefixtures("over")
def test_damaged_tables_are_made_again_from_the_study(run: Path, go_on: Drive) -> None:
    epochs, trials = read_epochs(run), read_trials(run)
    (run / "results" / "trials.parquet").write_bytes(b"PAR1 half of it")
    os.truncate(RunFolder(run).epochs_of(0), 700)
    (run / "results" / "epochs" / ".trial-00001.parquet.17.partial").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="genre-search resume"):
        read_trials(run)
    with pytest.raises(InputError, match="genre-search resume"):
        read_epochs(run)
    go_on()
    columns = ["trial", "epoch", "val_f1"]
    assert read_epochs(run)[columns].to_dict("records") == epochs[columns].to_dict("records")
    assert read_trials(run)["val_f1"].tolist() == trials["val_f1"].tolist()
    assert not list((run / "results").rglob("*.partial"))


def test_a_second_driver_is_refused(over: Path, go_on: Drive) -> None:
    assert not is_driven(over)
    with driving(over):
        assert is_driven(over)
        with pytest.raises(InputError, match=f"one driver, but process {os.getpid()} on .* drives"):
            go_on(trials=4)


def test_weights_that_have_changed_are_refused(ended: Path, over: Path, go_on: Drive) -> None:
    weights = ended.parent / "w.pth"
    _write_weights(weights, seed=1)
    with pytest.raises(InputError, match="changed for resnet18"):
        go_on(trials=3)
    _write_weights(weights, seed=0)


def test_audio_that_has_changed_is_refused_and_not_needed_where_its_mels_are(
    ended: Path, over: Path, go_on: Drive, tmp_path: Path
) -> None:
    away = (ended.parent / "music").rename(ended.parent / "away")
    go_on(trials=3)
    changes: Any = {"folder": over, "cache": tmp_path / "new", "reporter": Display(Console(file=StringIO()))}
    with pytest.raises(InputError, match=rf"files in {ended.parent / 'music'} .*--data"):
        search.resume(load(over / "config.yaml", {"trials": 4}), **changes)
    try:
        assert search.resume(load(over / "config.yaml", {"trials": 4}), data=away, **changes)
        assert load(over / "config.yaml", {}).data == str(away)
        assert len(read_trials(over)) == 4
    finally:
        away.rename(ended.parent / "music")


def test_a_trial_that_hangs_is_ended_and_fails_with_the_reason(
    begin: Drive, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "GenreTrial", HangingTrial)
    with pytest.raises(search.SearchFailed, match=r"an epoch took longer than epoch_limit, 0\.2 s"):
        begin(epoch_limit="0.2s", retries=1, trials=1)
    assert read_trials(run)[["state", "attempt"]].to_dict("records") == [{"state": "FAIL", "attempt": 2}]


def test_a_run_is_brought_back_from_its_copy(
    begin: Drive, genre_search: Command, run: Path, tmp_path: Path
) -> None:
    copies = (tmp_path / "copies").as_uri()
    said = begin(storage=copies, training__epochs=3, checkpoint_budget=1e-6)
    refused = [line for line in said.splitlines() if "checkpoint_budget=" in line]
    assert len(refused) == 1, "it is said once that there is no room for checkpoints"
    before = read_trials(run)
    shutil.rmtree(run)
    back = genre_search("resume", run, "--trials", 3, "--storage", copies)
    assert back.returncode == 0, back.stderr
    assert read_trials(run)["val_f1"].head(2).tolist() == before["val_f1"].tolist()
    assert len(read_trials(run)) == len(read_trials(tmp_path / "copies" / "r")) == 3


def test_a_full_disk_ends_the_search_in_a_line_and_with_room_it_goes_on(
    music: Path, cache: Path, go_on: Drive, tmp_path: Path
) -> None:
    """The disk is a small one of its own, which a process may have that sees its own mounts."""
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small disk")
    small, saved = tmp_path / "small", tmp_path / "saved"
    small.mkdir()
    command = [str(Path(sys.executable).parent / "genre-search"), "run", "--data", str(music)]
    command += [f"--set={key}={json.dumps(value)}" for key, value in TINY.items()]
    command += ["--set=keep_models=0", "--set=checkpoint_budget=0", "--set=pruner=none"]
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
    assert str(small) in full.stderr
    assert "genre-search resume" in full.stderr
    assert full.stderr.count("\n") == 1
    ended = read_epochs(saved)
    assert len(ended)
    (saved).rename(tmp_path / "r")
    known = read_trials(tmp_path / "r")["state"].ne("RUNNING").sum()
    go_on(trials=int(known) + 3)
    assert set(read_trials(tmp_path / "r")["state"]) == {"COMPLETE"}
    again = read_epochs(tmp_path / "r")
    columns = ["trial", "epoch", "val_f1"]
    assert again.merge(ended[columns], on=columns).shape[0] == len(ended), "nothing that was there is lost"
