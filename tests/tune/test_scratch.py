"""Temporary folders: what is left by the killed is deleted, what is in use is not, and sockets find short paths."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from genre_core.errors import InputError
from search.tune import scratch

HOLD = "from search.tune.scratch import scratch\nwith scratch() as folder:\n    print(folder, flush=True)\n    input()"
NO_PROCESS = 2**22 + 1
"""Larger than any process's number on Linux: what one is called in another container says nothing here."""


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_a_folder_goes_with_its_context(tmp_path: Path) -> None:
    with scratch.scratch() as folder:
        (folder / "file").touch()
        assert folder.parent == tmp_path
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_deleted(tmp_path: Path) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        with scratch.scratch():
            assert left.exists()
        process.send_signal(signal.SIGKILL)
        process.wait()
    with scratch.scratch() as folder:
        assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_what_is_written_to_while_it_is_deleted_is_deleted_by_a_later_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(scratch, "_PAUSE_SECONDS", 0.0)
    delete = shutil.rmtree

    def delete_while_a_process_writes(folder: Path, **options: Any) -> None:
        delete(folder, **options)
        (folder / "session" / "logs").mkdir(parents=True)

    with monkeypatch.context() as writing:
        writing.setattr(shutil, "rmtree", delete_while_a_process_writes)
        with scratch.scratch() as left:
            pass
    assert left.exists()
    with scratch.scratch() as folder:
        assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    assert not list(tmp_path.iterdir())


def test_a_folder_of_a_process_that_has_no_number_here_stays() -> None:
    with scratch.scratch() as folder:
        theirs = folder.rename(folder.with_name(f"genre-search-{NO_PROCESS}-x"))
        with scratch.scratch(), scratch.socket_folder():
            assert theirs.exists()
    with scratch.scratch():
        assert not theirs.exists(), "its process has given it up"


def test_a_folder_that_only_has_the_name_stays(tmp_path: Path) -> None:
    named = [tmp_path / f"genre-search-{NO_PROCESS}-x", tmp_path / "gs-notes"]
    for folder in named:
        folder.mkdir()
    with scratch.scratch(), scratch.socket_folder():
        pass
    assert sorted(tmp_path.iterdir()) == named


def test_sockets_have_a_short_path_where_tmpdir_has_a_long_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("long" * 20)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with scratch.socket_folder() as folder, socket.socket(socket.AF_UNIX) as probe:
        path = folder / "session_2026-11-25_22-46-00_123456_1234567" / "sockets" / "plasma_store"
        path.parent.mkdir(parents=True)
        probe.bind(str(path))
    assert not folder.exists()
    assert not list(long.iterdir())


def test_where_no_path_is_short_tmpdir_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    long = tmp_path / ("long" * 20)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    monkeypatch.setattr(scratch, "_SHORT", ("/proc",))
    with pytest.raises(InputError, match=f"TMPDIR must .*{long}, /proc.*set TMPDIR"), scratch.socket_folder():
        pass


def test_a_temporary_folder_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc")
    with (
        pytest.raises(InputError, match=r"TMPDIR must be a folder that can be written, .*/proc"),
        scratch.scratch(),
    ):
        pass
