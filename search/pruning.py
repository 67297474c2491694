"""What to stop: Ray's scheduler over the Optuna study. Every epoch's F1 is reported, the last one's too."""

import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from search.messages import FAILED, FINISHED, NUMBER
from search.study import Study

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController

REASON_CHARACTERS = 240
"""Of a dead worker Ray tells a long story whose beginning is the reason."""


class StudyScheduler(FIFOScheduler):
    """Reports each epoch to the study and ends a trial as the study, the fine-tune or an error says."""

    def __init__(self, study: Study) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._study = study

    def on_trial_result(self, tune_controller: "TuneController", trial: Trial, result: dict[str, Any]) -> str:
        """Keep the trial or stop it."""
        number = trial.config[NUMBER]
        if reason := result.get(FAILED):
            self._study.fail(number, reason)
            return TrialScheduler.STOP
        pruned = self._study.report(number, epoch=result["epoch"], f1=result["val_f1"])
        if result[FINISHED]:
            self._study.complete(number, f1=result["best_f1"], best_epoch=result["best_epoch"])
            return TrialScheduler.STOP
        if pruned:
            self._study.prune(number)
            return TrialScheduler.STOP
        return TrialScheduler.CONTINUE

    def on_trial_error(self, tune_controller: "TuneController", trial: Trial) -> None:
        """The worker died or raised: the trial fails with the last line of what is known."""
        self._study.fail(trial.config[NUMBER], failure_reason(trial))


def failure_reason(trial: Trial) -> str:
    """The last line of a failed trial's error, which names its kind and its message."""
    file = trial.error_file  # on this machine: Ray's get_error reads the copy in storage, which comes later
    lines = Path(file).read_text(encoding="utf-8").strip().splitlines() if file else []
    last = lines[-1].strip() if lines else "the worker ended without a word"
    named = re.sub(r"^(?:\w+\.)+(\w+: )", r"\1", last)  # an exception's module says little
    return textwrap.shorten(named, REASON_CHARACTERS, placeholder=" …")
