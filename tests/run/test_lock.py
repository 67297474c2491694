"""A run has one driver at a time, and whoever looks for one does not stand in its way."""

import json
import multiprocessing
import os
import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from genre_core.errors import InputError
from search.run.lock import driving, is_driven


def _drive_until_killed(run: Path, ready: Any) -> None:
    with driving(run):
        ready.send(os.getpid())
        signal.pause()


def test_the_lock_file_stays_the_same_file(tmp_path: Path) -> None:
    with driving(tmp_path):
        first = (tmp_path / ".driver").stat().st_ino
    with driving(tmp_path):
        assert (tmp_path / ".driver").stat().st_ino == first
    assert [path.name for path in tmp_path.iterdir()] == [".driver"]


def test_a_driver_refuses_a_second_one_until_it_is_killed(tmp_path: Path) -> None:
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_drive_until_killed, args=(tmp_path, there))
    process.start()
    try:
        pid = here.recv()
        assert is_driven(tmp_path)
        with pytest.raises(InputError, match=f"process {pid} on {os.uname().nodename}"), driving(tmp_path):
            pass
        copy = shutil.copytree(tmp_path, tmp_path.with_name("copy"))
        assert not is_driven(copy), "a copy has no driver"
        with driving(copy):
            assert is_driven(copy)
    finally:
        process.kill()
        process.join()
    assert not is_driven(tmp_path)
    with driving(tmp_path):
        assert is_driven(tmp_path)


def test_looking_never_refuses_a_driver(tmp_path: Path) -> None:
    enough = threading.Event()

    def look() -> None:
        while not enough.is_set():
            is_driven(tmp_path)

    looker = threading.Thread(target=look)
    looker.start()
    try:
        for _ in range(200):
            with driving(tmp_path):
                pass
    finally:
        enough.set()
        looker.join()


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"pid": 1}'])
def test_a_damaged_note_of_the_holder_is_none(tmp_path: Path, text: str) -> None:
    with driving(tmp_path):
        pass
    (tmp_path / ".driver.json").write_text(text)
    assert not is_driven(tmp_path)


def test_another_process_of_the_same_number_is_not_the_driver(tmp_path: Path) -> None:
    with driving(tmp_path):
        note = json.loads((tmp_path / ".driver.json").read_text())
    (tmp_path / ".driver.json").write_text(json.dumps(note))
    assert is_driven(tmp_path)
    (tmp_path / ".driver.json").write_text(json.dumps(note | {"started": note["started"] - 60}))
    assert not is_driven(tmp_path)
