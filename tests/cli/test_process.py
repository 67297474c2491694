"""Commands in a process of their own: pipes, signals, and a Ray that they start and stop."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import optuna
import psutil
import pytest
from command_line import PROGRAM
from conftest import Command, sets
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from tiny import TINY

from genre_core.system.interruption import STOPPING
from search.cli.output import FAILED, INTERRUPTED, USER_MISTAKE
from search.run.commands import command
from search.run.tables import read_epochs, read_trials


def test_a_closed_pipe_ends_a_command_quietly(run: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [PROGRAM, "results", run, "--csv"], stdout=writer, stderr=subprocess.PIPE, timeout=150, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (FAILED, b"")


def test_an_address_without_a_cluster_is_one_line_whatever_native_code_prints(
    music: Path, genre_search_process: Command, tmp_path: Path
) -> None:
    done = genre_search_process("run", "--data", music, "--address", "127.0.0.1:9", *sets(), cwd=tmp_path)
    assert done.returncode == USER_MISTAKE
    assert "--address" in done.stderr
    assert "127.0.0.1:9" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def _children(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def _started(music: Path, cache: Path, folder: Path, temporary: Path) -> "subprocess.Popen[str]":
    """Start a search of very many trials into a run folder."""
    settings = TINY | {"trials": 5000, "space.learning_rate": 0.01}
    return subprocess.Popen(
        [
            *(PROGRAM, "run", "--data", music),
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
    """Read the output of a process up to a line that contains the word."""
    assert process.stdout is not None
    assert any(word in line for line in process.stdout)


@pytest.mark.parametrize(
    "signal_number", [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGTERM]
)
def test_an_interrupt_before_the_first_trial_leaves_no_file(
    signal_number: signal.Signals, music: Path, cache: Path, tmp_path: Path
) -> None:
    process = _started(music, cache, tmp_path / "runs" / "cut", tmp_path)
    _until(process, "Search cut")
    process.send_signal(signal_number)
    said, errors = process.communicate(timeout=100)
    assert (process.returncode, errors) == (INTERRUPTED, "")
    assert "interrupted" in said
    assert "genre-search resume" not in said
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_a_second_interrupt_stops_at_once_and_prints_how_to_resume(
    music: Path, cache: Path, tmp_path: Path
) -> None:
    process = _started(music, cache, tmp_path / "cut", tmp_path)
    _until(process, "COMPLETE")
    process.send_signal(signal.SIGINT)
    _until(process, STOPPING)
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=100)
    assert process.returncode == INTERRUPTED, errors
    assert "Traceback" not in errors
    assert command("resume", tmp_path / "cut") in said
    assert not [*tmp_path.glob("genre-search*"), *tmp_path.glob("gs-*")]


@pytest.mark.parametrize(
    "signal_number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)]
)
def test_an_interrupted_search_keeps_its_results_and_leaves_no_process(
    signal_number: signal.Signals, music: Path, cache: Path, tmp_path: Path
) -> None:
    temporary = tmp_path / ("long" * 20)  # too long for the paths of Ray's sockets
    temporary.mkdir()
    process = _started(music, cache, tmp_path / "cut", temporary)
    _until(process, "COMPLETE")
    started = _children(process)
    assert started
    time.sleep(0.5)  # some time into the next trial
    if signal_number == signal.SIGINT:  # a terminal sends it to all processes of the group
        os.killpg(process.pid, signal_number)
    else:
        process.send_signal(signal_number)
    said, errors = process.communicate(timeout=200)
    assert process.returncode == INTERRUPTED, errors
    assert "Traceback" not in errors
    _, alive = psutil.wait_procs(started, timeout=60)
    assert not alive
    assert not [*temporary.glob("genre-search*"), *temporary.glob("gs-*")]
    trials = read_trials(tmp_path / "cut")
    assert set(trials["state"]) <= {"COMPLETE", "PRUNED", "RUNNING"}, (
        "interrupted trials stay RUNNING, to be resumed"
    )
    assert STOPPING in said
    assert command("resume", tmp_path / "cut") in said
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "cut" / "study.journal")))
    study = optuna.load_study(study_name="cut", storage=storage)
    assert [trial.state.name for trial in study.trials] == trials["state"].tolist()
    reported = sum(len(trial.intermediate_values) for trial in study.trials)
    assert len(read_epochs(tmp_path / "cut")) == reported
