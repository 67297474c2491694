"""Shared fixtures: one small Ray, one small corpus with its cache, one finished search, and the command line."""

import os

# As in a worker of a search. Torch, NumPy and Ray read it when they are loaded; more threads than cores wait actively.
os.environ["OMP_NUM_THREADS"] = "1"

import functools
import json
import logging
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from command_line import Done, in_own_process, in_process
from filelock import FileLock
from hypothesis import HealthCheck, settings
from tiny import MUSIC, TINY
from xdist.scheduler import LoadScopeScheduling

from genre_core.synthetic.corpus import write
from search.config.schema import SearchConfig, load

if TYPE_CHECKING:
    from s3_server import Server

settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any speed")

Command = Callable[..., Done]

TRIALS = 8
"""Number of trials of the finished search that tests share."""

WORKER = "PYTEST_XDIST_WORKER"
"""Environment variable that pytest-xdist sets in its workers."""


RAY_FIXTURE = "small_ray"


class OneRay(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """Assigns whole files to the workers of pytest-xdist; the files that use the shared Ray all go to one worker.

    `--dist loadgroup` is meant for this, but with pytest 9.2 pytest-xdist 3.8 no longer sees the groups.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return RAY_FIXTURE if _uses_ray(self.config.rootpath / file) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneRay:
    """Replace the scheduler of pytest-xdist."""
    return OneRay(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the files that use the shared Ray, which take longest."""
    items.sort(key=lambda item: not _uses_ray(item.path))


@functools.cache
def _uses_ray(file: Path) -> bool:
    return RAY_FIXTURE in file.read_text(encoding="utf-8")


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> Iterator[None]:
    """Ctrl-C interrupts tests and their subprocesses even if a shell ignores SIGINT for them, as it does with `&`."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session", autouse=True)
def unsynced() -> Iterator[None]:
    """Skip fsync: the tests need not survive a power failure."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of pytest-xdist share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if WORKER in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


def made_once(folder: Path, make: Callable[[Path], object]) -> Path:
    """A folder that the first worker of pytest-xdist to need it makes, while the others wait."""
    done = folder.with_name(f"{folder.name}.done")
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if not done.exists():
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def music(shared: Path) -> Path:
    """A folder of generated music: ten genres, six tracks of three recordings each, 3.2 s long."""
    return made_once(shared / "corpus", lambda folder: write(MUSIC, folder))


@pytest.fixture(scope="session")
def cache(shared: Path) -> Path:
    """One cache for all tests."""
    (shared / "cache").mkdir(exist_ok=True)
    return shared / "cache"


@pytest.fixture(scope="session")
def tiny(music: Path) -> Callable[..., SearchConfig]:
    """Configuration of a tiny search, with changes by dotted key."""

    def make(**changes: Any) -> SearchConfig:
        return load(None, TINY | {"data": str(music)} | {k.replace("__", "."): v for k, v in changes.items()})

    return make


@pytest.fixture(scope="session")
def small_ray() -> Iterator[None]:
    """A Ray with two cores for all tests of a session."""
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
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Server"]:
    """An S3 server; tests that share its bucket use names of their own."""
    from s3_server import Server

    server = Server(tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def command_environment(cache: Path) -> dict[str, str]:
    """The environment variables of commands: the shared cache and a screen of 80 columns."""
    return {"GENRE_SEARCH_CACHE": str(cache), "COLUMNS": "80"}


@pytest.fixture(scope="session")
def genre_search(command_environment: dict[str, str]) -> Command:
    """Run a command in this process; a search uses the Ray of `small_ray` if that was started."""

    def call(*arguments: object, env: dict[str, str] | None = None, **options: Any) -> Done:
        return in_process(*arguments, env=command_environment | (env or {}), **options)

    return call


@pytest.fixture(scope="session")
def genre_search_process(command_environment: dict[str, str]) -> Command:
    """Run the installed command in a process of its own: for signals, pipes and locales."""

    def call(*arguments: object, env: dict[str, str] | None = None, **options: Any) -> Done:
        return in_own_process(*arguments, env=command_environment | (env or {}), **options)

    return call


def named(value: Any) -> str:
    """The name of a case, in which a set has the same order in every process."""
    return " ".join(sorted(value)) if isinstance(value, set) else str(value)


def sets(**changes: object) -> list[str]:
    """Options for a tiny search, with changes by dotted key."""
    settings = TINY | {key.replace("__", "."): value for key, value in changes.items()}
    return [part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")]


@pytest.fixture(scope="session")
def run(request: pytest.FixtureRequest, music: Path, genre_search: Command, shared: Path) -> Path:
    """The folder of a finished search that prunes; tests share it and must not change it."""
    pruner = {"name": "median", "n_startup_trials": 2, "n_warmup_steps": 0}

    def search(runs: Path) -> None:
        # with xdist this worker may not be the one of the Ray tests: then the search starts and stops its own Ray
        if WORKER not in os.environ:
            request.getfixturevalue(RAY_FIXTURE)
        done = genre_search(
            *("run", "--data", music, "--runs", runs, "--name", "tiny", "--trials", TRIALS),
            *sets(pruner=pruner, training__epochs=4, keep_models=2, workers=2),
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("trial ") >= TRIALS

    return made_once(shared / "runs", search) / "tiny"
