"""Workers that hang, die, wait or decide at a known moment, however fast the machine is.

Ray sends what is defined here to its workers by value, since they cannot import the tests' modules.
"""

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ray import cloudpickle

from genre_core.training import activation_cache
from genre_core.training.fine_tune import FineTune
from search.engine.messages import CUT_OFF, NUMBER
from search.evaluate import final_worker
from search.tune import barrier
from search.tune.trainable import GenreTrial

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # type: ignore[no-untyped-call]

HOURS = 10_000.0
"""In seconds: longer than any test."""


class HangingTrial(GenreTrial):
    """In place of `launch.GenreTrial`: no epoch ends, so that the epoch limit ends the process."""

    def setup(self, config: dict[str, Any], **shared: Any) -> None:  # type: ignore[override]
        """Get ready, but for hanging."""
        patch.object(FineTune, "epoch", _hang).start()
        super().setup(config, **shared)


class SteadyTrial(GenreTrial):
    """In place of `launch.GenreTrial`: nothing that it does depends on how long something takes.

    It waits for the other workers as long as they need, and keeps features without measuring whether that pays.
    """

    def setup(self, config: dict[str, Any], **shared: Any) -> None:  # type: ignore[override]
        """Get ready; the process ends with the search."""
        patch.object(barrier, "LONGEST_WAIT_SECONDS", HOURS).start()
        patch.object(activation_cache, "caching_is_faster", _always).start()
        super().setup(config, **shared)


class FailingNodeTrial(SteadyTrial):
    """In place of `launch.GenreTrial`: the node of the first trial's first worker can write no file."""

    def _begin(self, config: dict[str, Any]) -> None:
        self._fails = config[NUMBER] == 0 and not config[CUT_OFF]
        super()._begin(config)

    def _next_epoch(self) -> dict[str, Any]:
        if self._fails:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super()._next_epoch()


def hanging_train(*given: Any) -> Any:
    """In place of `final_trial.train`: no epoch ends, so that the epoch limit ends the process."""
    patch.object(FineTune, "train", _hang).start()
    return final_worker.train(*given)


def dying_train(died: Path) -> Callable[..., Any]:
    """In place of `final_trial.train`: the first worker is killed in its first epoch, and leaves this file."""

    def train(*given: Any) -> Any:
        if not died.exists():
            died.touch()
            patch.object(FineTune, "train", _die).start()
        return final_worker.train(*given)

    return train


def _hang(_: FineTune) -> None:
    threading.Event().wait()


def _die(_: FineTune) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _always(*_: object, **__: object) -> bool:
    return True
