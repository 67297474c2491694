"""What tests share: one small Ray, one small corpus with its cache, and a command line to call."""

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from tiny import MUSIC, TINY

from genre_core.synthetic.corpus import write
from search.config.schema import SearchConfig, load

settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any speed")

Command = Callable[..., "subprocess.CompletedProcess[str]"]

TRIALS = 8
"""Of the finished search that tests share."""


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> Iterator[None]:
    """Ctrl-C interrupts tests and what they start, also where a shell has had it ignored, as for what is run with &."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As many of torch's as a worker has here: with others, sums come out in another order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def unsynced() -> Iterator[None]:
    """Tests wait for no disk: no power cut is to be survived."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of generated music: ten genres, six tracks of three recordings each, 3.2 s long."""
    folder = tmp_path_factory.mktemp("corpus")
    write(MUSIC, folder)
    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def tiny(music: Path) -> Callable[..., SearchConfig]:
    """Makes a tiny search's configuration, with changes by dotted key."""

    def make(**changes: Any) -> SearchConfig:
        return load(None, TINY | {"data": str(music)} | {k.replace("__", "."): v for k, v in changes.items()})

    return make


@pytest.fixture(scope="session")
def small_ray() -> Iterator[None]:
    """A Ray with two cores that all tests of a session share."""
    import ray

    with tempfile.TemporaryDirectory(prefix="gs", dir="/tmp") as folder:
        ray.init(
            address="local",
            num_cpus=2,
            num_gpus=0,
            include_dashboard=False,
            object_store_memory=256 * 1024**2,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=folder,
        )
        yield
        ray.shutdown()


@pytest.fixture(scope="session")
def genre_search(cache: Path) -> Command:
    """Calls the installed command as a user would, in a process of its own."""

    def call(*arguments: object, **options: Any) -> "subprocess.CompletedProcess[str]":
        command = [str(Path(sys.executable).parent / "genre-search"), *map(str, arguments)]
        environment = os.environ | {"GENRE_SEARCH_CACHE": str(cache), "COLUMNS": "80"}
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=300, check=False, **options
        )

    return call


def sets(**changes: object) -> list[str]:
    """The options that make a search tiny, with changes by dotted key."""
    settings = TINY | {key.replace("__", "."): value for key, value in changes.items()}
    return [part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")]


@pytest.fixture(scope="session")
def run(music: Path, genre_search: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished search that prunes; tests share it and leave it as it is."""
    runs = tmp_path_factory.mktemp("runs")
    pruner = {"name": "median", "n_startup_trials": 2, "n_warmup_steps": 0}
    done = genre_search(
        *("run", "--data", music, "--runs", runs, "--name", "tiny", "--trials", TRIALS),
        *sets(pruner=pruner, training__epochs=4, keep_models=2, workers=2),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trial ") >= TRIALS
    return runs / "tiny"
