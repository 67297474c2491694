"""Canaries: each fails, and says what to do, when a Ray upgrade changes a private part that this project uses."""

import inspect
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import create_autospec

import pytest
import ray
from ray import cloudpickle, tune
from ray._private import utils as ray_utils
from ray._private import worker
from ray._private.authentication import authentication_token_setup
from ray.exceptions import RayActorError, RayTaskError
from ray.tune.error import TuneError
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher
from ray.tune.search.search_generator import SearchGenerator
from ray.tune.utils.object_cache import _ObjectCache

from search.tune import ray_internals

RAY = Path(ray.__file__).parent
READ_BY = {
    "RAY_USAGE_STATS_ENABLED": "_common/usage/usage_constants.py",
    "RAY_AIR_NEW_OUTPUT": "tune/experimental/output.py",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "_private/accelerators/accelerator.py",
    "RAY_TRAIN_COUNT_PREEMPTION_AS_FAILURE": "tune/experiment/trial.py",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "tune/utils/callback.py",
    "TUNE_GLOBAL_CHECKPOINT_S": "tune/execution/tune_controller.py",
    "TUNE_MAX_PENDING_TRIALS_PG": "tune/execution/tune_controller.py",
}
"""Environment variable -> the module of Ray that reads it."""


@contextmanager
def canary(name: str, what_to_do: str) -> Iterator[None]:
    """Turn any failure into a message for the maintainer who upgrades Ray."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  # whatever the upgrade breaks
        pytest.fail(
            f"Ray {ray.__version__} no longer works with search.tune.ray_internals.{name} "
            f"({type(error).__name__}: {error}). {what_to_do}"
        )


@pytest.mark.parametrize("variable", ray_internals.ENVIRONMENT)
def test_canary_ray_reads_each_environment_variable(variable: str) -> None:
    with canary(f"ENVIRONMENT[{variable!r}]", "Find the new name of the setting, or drop it if unnecessary."):
        assert variable in (RAY / READ_BY[variable]).read_text(encoding="utf-8")


def test_canary_a_process_without_a_gpu_sees_none(monkeypatch: pytest.MonkeyPatch) -> None:
    granted = SimpleNamespace(get_accelerator_ids=lambda: {"GPU": []})
    monkeypatch.setattr(ray, "get_runtime_context", lambda: granted)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    name = "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"
    monkeypatch.setenv(name, ray_internals.ENVIRONMENT[name])
    with canary(f"ENVIRONMENT[{name!r}]", "Find how a worker without a GPU is kept from seeing one."):
        ray_utils.set_visible_accelerator_ids()
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


def test_canary_a_local_ray_asks_for_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    enabled: list[bool] = []
    monkeypatch.setattr(authentication_token_setup, "_enable_token_auth", lambda: enabled.append(True))
    with canary("init_local", "Make a local Ray ask for a token, or say in SECURITY.md that it does not."):
        assert authentication_token_setup.enable_token_auth_by_default()
        assert enabled == [True]
        assert "enable_token_auth_by_default()" in inspect.getsource(worker.init)


def test_canary_the_cores_of_a_local_ray_are_those_of_the_machine_or_of_its_container(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with canary("local_cpus", "Find how ray.init counts cores."):
        monkeypatch.setattr(ray_utils, "_get_docker_cpus", lambda: 1.5)
        assert ray_internals.local_cpus() == 1.0, "whole cores"
        monkeypatch.setattr(ray_utils, "_get_docker_cpus", lambda: None)
        assert ray_internals.local_cpus() == multiprocessing.cpu_count()


def test_the_users_environment_variables_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"RAY_USAGE_STATS_ENABLED": "1"})
    ray_internals.set_environment()
    assert os.environ == ray_internals.ENVIRONMENT | {"RAY_USAGE_STATS_ENABLED": "1"}


def test_canary_ray_init_takes_a_folder_for_sockets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def takes_signals(*_: Any, **options: Any) -> None:
        assert options["_temp_dir"] == str(tmp_path)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    with canary(
        "init_local", "Find how to choose the folder of Ray's sockets; /tmp/ray is shared by all users."
    ):
        assert "_temp_dir" in inspect.getsource(ray.init)
        monkeypatch.setattr(ray, "init", takes_signals)
        before = signal.getsignal(signal.SIGTERM)
        ray_internals.init_local(sockets=tmp_path)
        assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.usefixtures("small_ray")
def test_canary_no_socket_of_ray_has_a_longer_path() -> None:
    with canary("LONGEST_SOCKET", "Update it to the longest path below the folder given to ray.init."):
        node = cast(Any, ray)._private.worker._global_node
        folder = Path(node.get_session_dir_path()).parent
        sockets = [path.relative_to(folder) for path in folder.rglob("*") if path.is_socket()]
        assert sockets
        assert max(len(str(path)) for path in sockets) <= len(ray_internals.LONGEST_SOCKET)


def test_canary_the_address_of_a_head_is_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    with canary("resolve_address", "Find how ray.init resolves its address."):
        assert ray_internals.resolve_address("10.1.2.3:6379") == "10.1.2.3:6379"
        monkeypatch.setenv("RAY_ADDRESS", "10.1.2.3:1")
        assert ray_internals.resolve_address("auto") == "10.1.2.3:1"


@pytest.mark.usefixtures("small_ray")
def test_canary_a_running_head_passes_the_check_and_another_port_does_not() -> None:
    with canary("check_head", "Find a way to try a cluster's address once; ray.init retries for minutes."):
        ray_internals.check_head(ray.get_runtime_context().gcs_address)


class Restartable:
    """An actor that reports whether it was restarted and may end its own process."""

    def restarted(self) -> bool:
        """Whether Ray has restarted it."""
        return ray_internals.was_restarted()

    def die(self) -> None:
        """End the process once."""
        if not ray_internals.was_restarted():
            os._exit(1)


@pytest.mark.usefixtures("small_ray")
def test_canary_an_actor_knows_whether_it_was_restarted_and_can_be_terminated() -> None:
    # workers cannot import this module, so the class is sent by value
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # type: ignore[no-untyped-call]
    remote: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=3)(Restartable)
    actor = remote.remote()
    with canary(
        "was_restarted", "Find how an actor learns of its restart; StartupBarrier would wait for nobody."
    ):
        assert not ray_internals.was_restarted()
        assert not ray.get(actor.restarted.remote())
        ray.get(actor.die.remote())
        assert ray.get(actor.restarted.remote())
    with canary("terminate", "Find how to end an actor after its pending calls; ray.kill drops them."):
        pending = actor.restarted.remote()
        ray_internals.terminate(actor)
        assert ray.get(pending)
        with pytest.raises(RayActorError):
            ray.get(actor.restarted.options(max_task_retries=0).remote(), timeout=60)


def test_canary_tune_run_takes_these_arguments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tune_run = create_autospec(tune.run)
    monkeypatch.setattr(tune, "run", tune_run)
    with canary(
        "run_trials", "Adapt the arguments, or move to tune.Tuner if it no longer pickles the searcher."
    ):
        ray_internals.run_trials(
            tune.Trainable,
            resources={"cpu": 1, "gpu": 0},
            searcher=Searcher(),
            scheduler=FIFOScheduler(),  # type: ignore[no-untyped-call]
            stopper=cast(Any, None),
            callbacks=[],
            folder=tmp_path,
        )
        assert tune_run.call_count == 1


def test_canary_tune_sets_up_callbacks_after_its_interrupt_handler() -> None:
    with canary(
        "run_trials", "Find another moment to wrap Tune's SIGINT handler, see search._InterruptAnnouncer."
    ):
        source = inspect.getsource(sys.modules[tune.run.__module__].run)
        assert source.index("_setup_signal_catching()") < source.index(".setup_experiments(")
        assert "_callbacks.setup(" in inspect.getsource(TuneController.setup_experiments)


def test_canary_tune_reuses_a_free_worker_instead_of_one_that_is_starting() -> None:
    with canary(
        "run_trials(reuse_actors=True)",
        "If Tune now keeps the worker that is starting for a trial, StartupBarrier is unnecessary; delete it. "
        "Otherwise adapt this test.",
    ):
        source = inspect.getsource(TuneController._maybe_reuse_cached_actor)
        reuse, remove = source.index("pop_cached_object("), source.index("self._remove_actor(")
        assert reuse < remove
        cache = _ObjectCache(may_keep_one=True)
        assert cache.cache_object("key", "first worker")
        assert not cache.cache_object("key", "second worker"), (
            "Tune now keeps idle workers without pending trials"
        )


def test_canary_tune_ends_a_search_whose_searcher_is_finished() -> None:
    class Done(Searcher):
        def suggest(self, trial_id: str) -> Any:
            return ray_internals.finished()

    with canary("finished", "Find how a searcher ends the search; num_samples=-1 sets no limit."):
        generator: Any = SearchGenerator(Done())
        generator._total_samples, generator._experiment = 1, SimpleNamespace(spec={})
        assert not generator.is_finished()
        assert generator.next_trial() is None
        assert generator.is_finished()


def test_canary_a_tune_error_has_the_original_exception_as_its_context() -> None:
    with canary("cause_of", "Find where Tune keeps the exception; a full disk must be reported as such."):
        assert "raise TuneError(traceback.format_exc())" in inspect.getsource(TuneController)
        with pytest.raises(TuneError) as caught:
            _raise_as_tune_does(OSError(28, "No space left on device"))
        assert isinstance(ray_internals.cause_of(caught.value), OSError)


def _raise_as_tune_does(original: OSError) -> None:
    try:
        raise original
    except OSError:
        raise TuneError(traceback.format_exc())  # noqa: B904


def test_canary_tune_stores_the_exception_of_a_trial_and_its_text(tmp_path: Path) -> None:
    error = RayTaskError("step", "Traceback\nValueError: no", ValueError("no"))  # type: ignore[no-untyped-call]
    with canary(
        "trial_error and trial_traceback", "Find the local files in which Tune stores the error of a trial."
    ):
        trial = Trial("unregistered", stub=True)
        trial_on_disk = cast(
            Trial,
            SimpleNamespace(
                local_path=str(tmp_path),
                run_metadata=trial.run_metadata,
                is_restoring=False,
                _handle_ray_task_error=lambda _: None,
                pickled_error_file=str(tmp_path / "error.pkl"),
                error_file=str(tmp_path / "error.txt"),
            ),
        )
        Trial.handle_error(trial_on_disk, error)
        for name in ("pickled_error_file", "error_file"):
            own = getattr(Trial, name).fget(trial_on_disk)
            assert own == getattr(trial_on_disk, name)
        stored = ray_internals.trial_error(trial_on_disk)
        assert isinstance(stored, RayTaskError)
        assert repr(cast(Any, stored).cause) == "ValueError('no')"
        assert ray_internals.trial_traceback(trial_on_disk).strip().endswith("ValueError: no")
