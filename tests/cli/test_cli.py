"""The command line: mistakes are one line and exit code 2, Ctrl-C keeps what there is."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import optuna
import psutil
import pytest
import ray
import soundfile
from conftest import Command
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from rich.console import Console
from tiny import TINY

from genre_core.errors import InputError
from search.cli.progress import Display
from search.config.schema import SearchConfig
from search.data import prepare
from search.run.commands import command
from search.run.tables import read_epochs, read_trials
from search.tune import search
from search.tune.interruption import STOPPING


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["run", "--trials", "many"],
            "trials: input should be a valid integer, unable to parse string as an integer, but got trials='many'",
        ),
        (["run", "--trails", "3"], "No such option: --trails"),
        (["run", "--trials", "0"], "trials: input should be greater than or equal to 1, but got trials=0"),
        (["run", "--set", "trials"], "--set must be key=value, but got --set trials"),
        (["run", "--set", "space.momentun=0.9"], "space.momentun is not a setting; did you mean momentum?"),
        (["run", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["run", "--data", "nowhere", "--set", "weights=random"], "nowhere is neither"),
        (["search"], "No such command 'search'"),
        (["results", "nowhere"], "RUN must be the folder of a search"),
        (["best", "nowhere"], "RUN must be the folder of a search"),
        (["data", "check", "nowhere"], "nowhere is neither"),
        (
            ["data", "make", "new", "--difficulty", "2"],
            "difficulty must be between 0 and 1, but got difficulty=2.0",
        ),
        (["data", "make", "."], "DIR must be new or empty"),
        (["data", "make", "something/new"], "cannot be used: Not a directory"),
    ],
    ids=lambda case: " ".join(case) if isinstance(case, list) else "",
)
def test_a_mistake_is_one_line_on_standard_error(
    arguments: list[str], words: str, genre_search: Command, tmp_path: Path
) -> None:
    (tmp_path / "something").touch()
    done = genre_search(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_made_corpus_is_all_good_and_a_spoilt_file_is_named(genre_search: Command, tmp_path: Path) -> None:
    made = genre_search("data", "make", tmp_path / "m", "--tracks-per-genre", 5, "--seconds", 3)
    assert made.returncode == 0, made.stderr
    good = genre_search("data", "check", tmp_path / "m")
    assert good.returncode == 0
    assert good.stdout.splitlines()[-1].startswith("50 files in 10 genres, all good")
    clipped = np.sign(np.sin(0.1 * np.arange(70_000)))
    soundfile.write(tmp_path / "m" / "jazz" / "jazz.00000.wav", clipped, 22_050)
    warned = genre_search("data", "check", tmp_path / "m")
    assert warned.returncode == 0
    assert "'jazz/jazz.00000.wav': warning: clipped" in warned.stdout
    assert "warning" in warned.stdout.splitlines()[-1]
    soundfile.write(tmp_path / "m" / "jazz" / "jazz.00001.wav", np.zeros(70_000), 22_050)
    (tmp_path / "m" / "rock" / "rock.00000.wav").write_text("not audio")
    bad = genre_search("data", "check", tmp_path / "m")
    assert bad.returncode == 1
    assert "'jazz/jazz.00001.wav': silent" in bad.stdout
    assert "'rock/rock.00000.wav': unreadable" in bad.stdout
    assert bad.stdout.splitlines()[-1].startswith("2 of 50 files left out: ")


@pytest.mark.parametrize("address", ["127.0.0.1:9", "nowhere"])
def test_an_address_where_nothing_answers_is_refused_at_once(
    address: str, music: Path, genre_search: Command, tmp_path: Path
) -> None:
    settings = [f"--set={key}={value}" for key, value in TINY.items() if key != "space.learning_rate"]
    done = genre_search("run", "--data", music, "--address", address, *settings, cwd=tmp_path)
    assert done.returncode == 2
    assert f"`auto` or the HOST:PORT of a running Ray cluster, but got {address}: " in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


REFUSED_AT_ONCE = [
    ({"data": "/nowhere"}, "/nowhere is neither"),
    ({"segment_seconds": 0.01}, "segment_seconds must"),
    ({"sampler": "tea"}, "tea"),
    ({"warm_start": ["/nowhere"]}, "/nowhere"),
    ({"address": "127.0.0.1:9"}, "--address must be .* got 127.0.0.1:9"),
    ({"cpus_per_trial": 10_000}, "--cpus-per-trial must be at most .* got 10000"),
    ({"trials_per_gpu": 7, "cpus_per_trial": 10_000}, "--(trials-per-gpu|cpus-per-trial) must be"),
    ({"storage": "nowhere://bucket"}, "--storage must be .* got nowhere://bucket"),
    ({"storage": "file:///dev/null/x"}, "--storage must be .* got file:///dev/null/x"),
]


@pytest.mark.parametrize(
    ("changes", "words"), REFUSED_AT_ONCE, ids=lambda case: "-".join(case) if isinstance(case, dict) else ""
)
def test_what_is_cheap_is_checked_before_anything_is_spent_and_leaves_no_folder(
    changes: dict[str, Any],
    words: str,
    tiny: Callable[..., SearchConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def spent(*_: object, **__: object) -> NoReturn:
        raise AssertionError("weights were fetched or audio was decoded")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    for costly in ("check_weights", "audit"):
        monkeypatch.setattr(prepare, costly, spent)
    folder = tmp_path / "runs" / "refused"
    with pytest.raises(InputError, match=words):
        search.run(
            tiny(**changes), folder=folder, cache=tmp_path / "cache", screen=Display(Console(file=StringIO()))
        )
    assert not list(tmp_path.iterdir())


def test_a_storage_that_can_be_used_is_left_as_it_was_by_a_start_that_is_refused_later(
    tiny: Callable[..., SearchConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    (tmp_path / "copy").mkdir()
    config = tiny(weights=str(tmp_path / "nowhere.pth"), storage=(tmp_path / "copy").as_uri())
    screen = Display(Console(file=StringIO()))
    with pytest.raises(InputError, match=r"nowhere\.pth"):
        search.run(config, folder=tmp_path / "runs" / "refused", cache=tmp_path / "cache", screen=screen)
    assert [path.name for path in tmp_path.rglob("*")] == ["copy"]


def test_a_folder_that_was_there_stays(tiny: Callable[..., SearchConfig], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    screen = Display(Console(file=StringIO()))
    with pytest.raises(InputError, match="neither"):
        search.run(tiny(data="/nowhere"), folder=tmp_path / "mine", cache=tmp_path / "cache", screen=screen)
    assert (tmp_path / "mine" / "notes.txt").exists()


def test_a_reader_that_goes_away_is_no_error(genre_search: Command, tmp_path: Path) -> None:
    command = f"{Path(sys.executable).parent / 'genre-search'} version | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=150, check=False)
    assert done.stderr == ""


def test_version_names_every_package_and_device(genre_search: Command) -> None:
    shown = genre_search("version").stdout
    assert all(name in shown for name in ("genre-search", "torch", "torchaudio", "ray", "optuna", "cpu, "))


def _children(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def _started(music: Path, cache: Path, folder: Path, temporary: Path) -> "subprocess.Popen[str]":
    """A search of very many trials into this folder."""
    settings = TINY | {"trials": 5000, "space.learning_rate": 0.01}
    return subprocess.Popen(
        [
            *(Path(sys.executable).parent / "genre-search", "run", "--data", music),
            *("--runs", folder.parent, "--name", folder.name),
            *(f"--set={key}={json.dumps(value)}" for key, value in settings.items()),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"GENRE_SEARCH_CACHE": str(cache), "TMPDIR": str(temporary)},
        start_new_session=True,
    )


def _until(process: "subprocess.Popen[str]", word: str) -> None:
    """Read what the process says until a line has the word."""
    assert process.stdout is not None
    assert any(word in line for line in process.stdout)


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_start_says_that_nothing_was_started(
    signal_number: signal.Signals, music: Path, cache: Path, tmp_path: Path
) -> None:
    process = _started(music, cache, tmp_path / "runs" / "cut", tmp_path)
    _until(process, "Search cut")
    process.send_signal(signal_number)
    said, errors = process.communicate(timeout=100)
    assert (process.returncode, errors) == (130, "")
    assert "nothing was started" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_a_second_interrupt_ends_at_once_and_says_how_to_go_on(
    music: Path, cache: Path, tmp_path: Path
) -> None:
    process = _started(music, cache, tmp_path / "cut", tmp_path)
    _until(process, "COMPLETE")
    process.send_signal(signal.SIGINT)
    _until(process, STOPPING)
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=100)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert command("resume", tmp_path / "cut") in said
    assert not [*tmp_path.glob("genre-search*"), *tmp_path.glob("gs-*")]


@pytest.mark.parametrize(
    "signal_number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)]
)
def test_an_interrupted_search_keeps_its_results_and_leaves_no_process(
    signal_number: signal.Signals, music: Path, cache: Path, tmp_path: Path
) -> None:
    temporary = tmp_path / ("long" * 20)  # longer than what Ray's sockets leave of a path
    temporary.mkdir()
    process = _started(music, cache, tmp_path / "cut", temporary)
    _until(process, "COMPLETE")
    started = _children(process)
    assert started
    time.sleep(0.5)  # into the next trial; any moment will do
    os.killpg(process.pid, signal_number) if signal_number == signal.SIGINT else process.send_signal(
        signal_number
    )
    said, errors = process.communicate(timeout=200)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    _, alive = psutil.wait_procs(started, timeout=60)
    assert not alive
    assert not [*temporary.glob("genre-search*"), *temporary.glob("gs-*")]
    trials = read_trials(tmp_path / "cut")
    assert set(trials["state"]) <= {"COMPLETE", "PRUNED", "RUNNING"}, "what was running is to be gone on with"
    assert STOPPING in said
    assert command("resume", tmp_path / "cut") in said
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "cut" / "study.journal")))
    study = optuna.load_study(study_name="cut", storage=storage)
    assert [trial.state.name for trial in study.trials] == trials["state"].tolist()
    reported = sum(len(trial.intermediate_values) for trial in study.trials)
    assert len(read_epochs(tmp_path / "cut")) == reported
