"""Workers that hang, die or fail at a known moment, however fast the machine is.

Ray pickles what is defined here by value, because its workers cannot import the tests' modules.
"""

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ray import cloudpickle

from genre_core.system.watchdog import Watchdog
from genre_core.training.fine_tune import FineTune
from search.evaluate import final_worker
from search.tune.actors import StartupBarrier
from search.tune.torch_trainer import TorchTrainer, WorkingSet
from search.tune.trainable import Actors, GenreTrial
from search.tune.wire_format import assignment_of

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # type: ignore[no-untyped-call]


HANG_SECONDS = 0.2
"""Time limit of an epoch that hangs on purpose."""
HOURS = 10_000.0
"""In seconds: longer than any test."""


class FaultyTrial(GenreTrial):
    """In place of `search.GenreTrial`: the first four trials fail in different ways, in this order.

    The node of the first one's first worker cannot write any file, the second one hangs, the third one raises an
    error, and the fourth one diverges.
    """

    def setup(  # type: ignore[override]
        self, config: dict[str, Any], working_set: WorkingSet, actors: Actors
    ) -> None:
        """Start the session; only an epoch that hangs on purpose takes too long, however slow the machine is."""
        super().setup(config, replace(working_set, epoch_limit=HOURS), actors)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next assignment in the same process."""
        self._given = assignment_of(new_config)
        if self._given.trial == 3:
            new_config = new_config | {"recipe": new_config["recipe"] | {"learning_rate": 1e30}}
        return super().reset_config(new_config)

    def step(self) -> dict[str, Any]:
        """Report what the session reports."""
        with ExitStack() as faults:
            match self._given.trial:
                case 0 if self._given.attempt == 1:
                    faults.enter_context(patch.object(TorchTrainer, "prepare", _disk_full))
                case 1:
                    faults.enter_context(patch.object(FineTune, "epoch", _hang))
                    faults.enter_context(patch.object(Watchdog, "guard", _short_guard))
                case 2:
                    faults.enter_context(patch.object(FineTune, "epoch", _raise))
            return super().step()


class PatientBarrier(StartupBarrier):
    """In place of `search.StartupBarrier`: waits for the workers without a time limit."""

    def __init__(self, expected: int) -> None:
        """Args: the number of workers."""
        super().__init__(expected, clock=float)  # no time passes


def hanging_train(*given: Any) -> Any:
    """In place of `final_worker.train`: no epoch ends, so the epoch limit ends the process."""
    patch.object(FineTune, "train", _hang).start()
    return final_worker.train(*given)


def dying_train(died: Path) -> Callable[..., Any]:
    """In place of `final_worker.train`: the first worker creates this file and is killed in its first epoch."""

    def train(*given: Any) -> Any:
        if not died.exists():
            died.touch()
            patch.object(FineTune, "train", _die).start()
        return final_worker.train(*given)

    return train


def _hang(_: FineTune) -> None:
    threading.Event().wait()


_guard = Watchdog.guard


def _short_guard(_: Watchdog) -> AbstractContextManager[None]:
    return _guard(Watchdog(HANG_SECONDS))


def _raise(_: FineTune) -> None:
    raise RuntimeError("broken on purpose")


def _disk_full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _die(_: FineTune) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
