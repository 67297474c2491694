"""The GPU benchmark's parts that have no GPU yet: they run on a CPU, and MPS's daemon never outlives them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CONTROL = """#!/bin/sh
{ echo "$0 $* in $CUDA_MPS_PIPE_DIRECTORY $CUDA_MPS_LOG_DIRECTORY"; [ "$1" = -d ] || cat; } >> "$MPS_CALLS"
exit "${MPS_EXIT:-0}"
"""
"""A fake of nvidia-cuda-mps-control, which notes its arguments, its environment and its commands."""
DAEMON = """
import os, signal, sys, time
from pathlib import Path
from mps import mps_daemon
with mps_daemon(Path(sys.argv[1])):
    print(os.environ["CUDA_MPS_PIPE_DIRECTORY"], flush=True)
    exec(sys.argv[2])
assert "CUDA_MPS_PIPE_DIRECTORY" not in os.environ
"""


def _environment(folder: Path, **changes: str) -> dict[str, str]:
    """The environment of a process that finds the fake."""
    control = folder / "bin" / "nvidia-cuda-mps-control"
    control.parent.mkdir()
    control.write_text(CONTROL)
    control.chmod(0o755)
    own = {name: value for name, value in os.environ.items() if not name.startswith("CUDA_MPS")}
    return own | {
        "PATH": f"{control.parent}{os.pathsep}{own['PATH']}",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'benchmarks'}",
        "MPS_CALLS": str(folder / "calls"),
        **changes,
    }


def _calls(folder: Path) -> list[str]:
    """The fake's notes without the folders."""
    lines = (folder / "calls").read_text().splitlines()
    return [
        line.replace(str(folder), "").removeprefix("/bin/nvidia-cuda-mps-control").strip() for line in lines
    ]


STARTED_AND_STOPPED = [
    "-d in /own/cuda_mps_pipe_directory /own/cuda_mps_log_directory",
    "in /own/cuda_mps_pipe_directory /own/cuda_mps_log_directory",
    "quit",
]
ENDS = {"a result": ("pass", 0), "an error": ("raise ValueError", 1), "SIGTERM": ("time.sleep(60)", 143)}
"""How the work ends -> what it does, and the exit status."""


@pytest.mark.parametrize("end", ENDS)
def test_the_daemon_of_mps_is_stopped_however_the_work_ends(end: str, tmp_path: Path) -> None:
    work, status = ENDS[end]
    (tmp_path / "own").mkdir()
    command = [sys.executable, "-c", DAEMON, str(tmp_path / "own"), work]
    with subprocess.Popen(
        command, env=_environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == str(tmp_path / "own" / "cuda_mps_pipe_directory")
        if end == "SIGTERM":
            process.terminate()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == status, errors
    assert _calls(tmp_path) == STARTED_AND_STOPPED


def test_work_does_not_begin_without_the_daemon(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    command = [sys.executable, "-c", DAEMON, str(tmp_path / "own"), "print('working')"]
    done = subprocess.run(
        command, env=_environment(tmp_path, MPS_EXIT="1"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert _calls(tmp_path) == STARTED_AND_STOPPED[:1]


def _benchmark(folder: Path, *options: str) -> dict[str, Any]:
    """The results of the benchmark on a CPU, with few segments."""
    command = [sys.executable, str(ROOT / "benchmarks/gpu.py"), "--device", "cpu", "--quick"]
    common = ["--segments", "64", "--precision", "float32", "--results", str(folder / "found.json")]
    subprocess.run([*command, *common, *options], env=_environment(folder), check=True, timeout=500)
    found: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return found


@pytest.mark.long
def test_processes_are_measured_without_and_with_mps(tmp_path: Path) -> None:
    options = ["--families", "resnet18", "--parts", "processes", "--processes", "1", "--mps"]
    found = _benchmark(tmp_path, *options)
    for part in ("side_by_side", "side_by_side_mps"):
        assert [row["processes"] for row in found[part]] == [1]
        assert found[part][0]["trials"] > 0
    assert [line.split(" ")[0] for line in _calls(tmp_path)] == ["-d", "in", "quit"]


@pytest.mark.long
def test_stacks_and_convolutions_are_measured_on_a_cpu(tmp_path: Path) -> None:
    found = _benchmark(
        tmp_path, "--families", "resnet18", "--parts", "fused", "convolutions", "--stacks", "1", "4"
    )
    (heads,) = found["fused"]
    assert [own["trials"] for own in heads["stacked"]] == [1, 4]
    assert all(own["per_hour"] > 0 for own in heads["stacked"])
    assert {row["trials"] for row in found["convolutions"]} == {4, 16}
    assert all(row[way] > 0 for row in found["convolutions"] for way in ("alone", "groups", "vmap"))
