"""Temporary folders: those of killed processes are deleted, those in use are kept, and paths of sockets are short."""

import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import pytest

from genre_core.errors import InputError
from search.errors import SearchErrorCode
from search.tune import scratch

HOLD = "from search.tune.scratch import scratch\nwith scratch() as folder:\n    print(folder, flush=True)\n    input()"
NO_PROCESS = 2**22 + 1
"""Above the largest process id on Linux: like the id of a process in another container, it means nothing here."""


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_a_folder_is_deleted_when_its_context_ends(tmp_path: Path) -> None:
    with scratch.scratch() as folder:
        (folder / "file").touch()
        assert folder.parent == tmp_path
    assert not list(tmp_path.iterdir())


def test_the_folder_of_a_killed_process_is_deleted(tmp_path: Path) -> None:
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


def test_a_folder_that_is_written_to_during_deletion_is_deleted_by_a_later_search(
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


def test_the_folder_of_a_process_in_another_container_is_kept() -> None:
    with scratch.scratch() as folder:
        theirs = folder.rename(folder.with_name(f"genre-search-{NO_PROCESS}-x"))
        with scratch.scratch(), scratch.socket_folder():
            assert theirs.exists()
    with scratch.scratch():
        assert not theirs.exists(), "its process has released the lock"


def test_a_folder_without_a_lock_is_kept(tmp_path: Path) -> None:
    named = [tmp_path / f"genre-search-{NO_PROCESS}-x", tmp_path / "gs-notes"]
    for folder in named:
        folder.mkdir()
    with scratch.scratch(), scratch.socket_folder():
        pass
    assert sorted(tmp_path.iterdir()) == named


def test_sockets_have_a_short_path_even_if_that_of_tmpdir_is_long(
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


def test_if_no_path_is_short_enough_the_message_asks_for_another_tmpdir(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    long = tmp_path / ("long" * 20)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    monkeypatch.setattr(scratch, "_SHORT", ("/proc",))
    with pytest.raises(InputError) as error, scratch.socket_folder():
        pass
    assert error.value.code is SearchErrorCode.TMPDIR_PATH_TOO_LONG
    assert all(words in str(error.value) for words in (str(long), "/proc", "set TMPDIR"))


def test_a_temporary_folder_that_is_not_writable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc")
    with pytest.raises(InputError) as error, scratch.scratch():
        pass
    assert error.value.code is SearchErrorCode.TMPDIR_UNUSABLE
    assert all(words in str(error.value) for words in ("/proc", "set TMPDIR"))


def test_a_machine_without_any_temporary_folder_is_an_error_of_the_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> NoReturn:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", fail)
    with pytest.raises(InputError) as error, scratch.scratch():
        pass
    assert error.value.code is SearchErrorCode.TMPDIR_UNUSABLE
    assert "set TMPDIR" in str(error.value)
