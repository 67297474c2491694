"""Workers that hang, die, wait or decide at a known moment, however fast the machine is.

Ray sends what is defined here to its workers by value, since they cannot import the tests' modules.
"""

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ray import cloudpickle

from genre_core.training import activation_cache
from genre_core.training.fine_tune import FineTune
from search.evaluate import final_worker
from search.tune.barrier import StartupBarrier
from search.tune.torch_trainer import TorchTrainer
from search.tune.trainable import GenreTrial
from search.tune.wire import assignment_of

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # type: ignore[no-untyped-call]


class HangingTrial(GenreTrial):
    """In place of `search.GenreTrial`: no epoch ends, so that the epoch limit ends the process."""

    def setup(self, config: dict[str, Any], **shared: Any) -> None:  # type: ignore[override]
        """Start the session; the process ends with the search."""
        patch.object(FineTune, "epoch", _hang).start()
        super().setup(config, **shared)


class SteadyTrial(GenreTrial):
    """In place of `search.GenreTrial`: keeps activations without measuring whether that pays."""

    def setup(self, config: dict[str, Any], **shared: Any) -> None:  # type: ignore[override]
        """Start the session; the process ends with the search."""
        patch.object(activation_cache, "caching_is_faster", _always).start()
        super().setup(config, **shared)


class FailingNodeTrial(SteadyTrial):
    """In place of `search.GenreTrial`: the node of the first trial's first worker cannot write any file."""

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next assignment in the same process."""
        assignment = assignment_of(new_config)
        self._fails = assignment.trial == 0 and assignment.attempt == 1
        return super().reset_config(new_config)

    def step(self) -> dict[str, Any]:
        """Report what the session reports."""
        with patch.object(TorchTrainer, "prepare", _disk_full) if self._fails else nullcontext():
            return super().step()


class PatientBarrier(StartupBarrier):
    """In place of `search.StartupBarrier`: waits for the workers as long as they need."""

    def __init__(self, expected: int) -> None:
        """Args: how many workers are to come."""
        super().__init__(expected, clock=float)  # no time passes


def hanging_train(*given: Any) -> Any:
    """In place of `final_worker.train`: no epoch ends, so that the epoch limit ends the process."""
    patch.object(FineTune, "train", _hang).start()
    return final_worker.train(*given)


def dying_train(died: Path) -> Callable[..., Any]:
    """In place of `final_worker.train`: the first worker is killed in its first epoch, and leaves this file."""

    def train(*given: Any) -> Any:
        if not died.exists():
            died.touch()
            patch.object(FineTune, "train", _die).start()
        return final_worker.train(*given)

    return train


def _hang(_: FineTune) -> None:
    threading.Event().wait()


def _disk_full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _die(_: FineTune) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _always(*_: object, **__: object) -> bool:
    return True
