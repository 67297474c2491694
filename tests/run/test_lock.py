"""A run has one driver at a time, and checking for a driver never blocks one."""

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
from search.errors import SearchErrorCode
from search.run.lock import driving, is_driven


def _drive_until_killed(run: Path, ready: Any) -> None:
    with driving(run):
        ready.send(os.getpid())
        signal.pause()


def test_the_lock_file_is_never_replaced(tmp_path: Path) -> None:
    with driving(tmp_path):
        first = (tmp_path / ".driver").stat().st_ino
    with driving(tmp_path):
        assert (tmp_path / ".driver").stat().st_ino == first
    assert [path.name for path in tmp_path.iterdir()] == [".driver"]


def test_a_second_driver_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_drive_until_killed, args=(tmp_path, there))
    process.start()
    try:
        pid = here.recv()
        assert is_driven(tmp_path)
        with pytest.raises(InputError) as refused, driving(tmp_path):
            pass
        assert refused.value.code is SearchErrorCode.RUN_IS_DRIVEN
        assert all(word in str(refused.value) for word in (str(pid), os.uname().nodename, str(tmp_path)))
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


def test_checking_for_a_driver_never_blocks_one(tmp_path: Path) -> None:
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
def test_a_damaged_record_of_the_holder_counts_as_no_driver(tmp_path: Path, text: str) -> None:
    with driving(tmp_path):
        pass
    (tmp_path / ".driver.json").write_text(text)
    assert not is_driven(tmp_path)


def test_another_process_with_the_same_pid_is_not_the_driver(tmp_path: Path) -> None:
    with driving(tmp_path):
        record = json.loads((tmp_path / ".driver.json").read_text())
    (tmp_path / ".driver.json").write_text(json.dumps(record))
    assert is_driven(tmp_path)
    (tmp_path / ".driver.json").write_text(json.dumps(record | {"started": record["started"] - 60}))
    assert not is_driven(tmp_path)
