"""The Optuna study of a search, stored in a journal file: the single source of truth about its trials."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from genre_core.system.atomic import sync_folder
from search.run.identity import RUN_ID
from search.study.optuna_internals import reopen_trial

ERROR = "error"
"""User attribute of a failed trial: the reason."""
STOPPED = "stopped"
"""User attribute of a trial that was stopped for good and is PRUNED, but not by the pruner: the reason."""
TIME_BUDGET = "time budget"
"""Value of STOPPED for trials that were running when the time budget was used up."""
WORKER_BUDGET = "worker budget"
"""Value of STOPPED for trials that were running when the workers' time was used up."""
CHECKPOINT_BUDGET = "checkpoint budget"
"""Value of STOPPED for paused trials that were given up because checkpoints took too much space."""
REPEAT = "repeat"
"""User attribute of a trial whose configuration was tried before with other seeds: how many times."""
ENQUEUED = "enqueued"
"""User attribute of a trial of an enqueued configuration: the configuration as in the settings."""
BEST_EPOCH = "best_epoch"
"""User attribute: the epoch whose F1 is the value of the trial."""
WARM_START = "warm_start"
"""User attribute of a trial of an earlier search: the folder of that search and the trial's number in it."""


class Study:
    """An Optuna study with trials addressed by number: ask for a trial, report its epochs, end it exactly once.

    The study may also hold trials of earlier searches, and enqueued ones that wait to be asked for. Only the sampler
    and the pruner see them: they are not counted.
    """

    def __init__(self, journal: Path | None, *, name: str, sampler: BaseSampler, pruner: BasePruner) -> None:
        """Open the study in this journal file, or create it; it maximises validation F1.

        Trials that were running when an earlier driver died are still running: they can be reported to and ended.

        Args:
            journal: the journal file; None for a study in memory.
            name: the name of the study in the journal.
            sampler: samples new trials.
            pruner: decides after each epoch whether a trial should end.
        """
        self._study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(journal))) if journal else InMemoryStorage(),
            study_name=name,
            direction="maximize",
            sampler=sampler,
            pruner=pruner,
            load_if_exists=True,
        )
        if journal:
            sync_folder(
                journal.parent
            )  # Optuna syncs the lines of a new journal, but not its directory entry
        self._running: dict[int, Trial] = {}
        self._scores: dict[int, dict[int, float]] = {}
        self._states: dict[int, str] = {}
        self._errors: dict[int, str] = {}
        self._stopped: dict[int, str] = {}
        for trial in self.trials:
            self._restore(trial)

    def claim(self, run_id: str) -> None:
        """Record the id of the run that owns this study, in case its journal ever holds another one."""
        if self._study.user_attrs.get(RUN_ID) != run_id:
            self._study.set_user_attr(RUN_ID, run_id)

    def use(self, sampler: BaseSampler, pruner: BasePruner | None = None) -> None:
        """Replace the sampler, and the pruner if one is given."""
        self._study.sampler = sampler  # public: Optuna's own PartialFixedSampler is set in this way
        self._study.pruner = pruner or self._study.pruner

    @property
    def of_optuna(self) -> optuna.Study:
        """The Optuna study, for strategies that read all of its trials; only the other methods change it."""
        return self._study

    @property
    def running(self) -> tuple[int, ...]:
        """Numbers of the running trials."""
        return tuple(self._running)

    def epochs(self, number: int) -> int:
        """Number of epochs of a running trial that were reported."""
        return len(self._scores[number])

    @property
    def asked(self) -> int:
        """Number of trials, running and ended."""
        return len(self._states) + len(self._running)

    @property
    def ended(self) -> int:
        """Number of trials that have ended."""
        return len(self._states)

    @property
    def trials(self) -> list[FrozenTrial]:
        """The search's own trials that have begun, not copied."""
        return [trial for trial in self._own if trial.state != TrialState.WAITING]

    @property
    def waiting(self) -> int:
        """Number of enqueued trials that have not begun."""
        return sum(trial.state == TrialState.WAITING for trial in self._own)

    @property
    def enqueued(self) -> list[dict[str, Any]]:
        """The configurations that were enqueued, as in the settings, whether their trials have begun or not."""
        return [trial.user_attrs[ENQUEUED] for trial in self._own if ENQUEUED in trial.user_attrs]

    @property
    def _own(self) -> list[FrozenTrial]:
        every = self._study.get_trials(deepcopy=False)
        return [trial for trial in every if WARM_START not in trial.user_attrs]

    @property
    def known(self) -> set[tuple[str, int]]:
        """Folder and number of each trial of an earlier search."""
        every = self._study.get_trials(deepcopy=False)
        return {tuple(trial.user_attrs[WARM_START]) for trial in every if WARM_START in trial.user_attrs}

    def learn(self, trial: FrozenTrial) -> None:
        """Add an ended trial of an earlier search, for the sampler and the pruner to learn from."""
        self._study.add_trial(trial)

    def enqueue(self, parameters: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """Let one of the next trials have these parameters; the sampler samples the others when it is asked for.

        Args:
            parameters: values by Optuna's names.
            settings: the same configuration as in the settings, by which `enqueued` knows it.
        """
        self._study.enqueue_trial(dict(parameters), user_attrs={ENQUEUED: dict(settings)})

    def trial(self, number: int) -> Trial:
        """A running trial; parameters that were suggested before keep their values when suggested again."""
        return self._running[number]

    def state(self, number: int) -> str:
        """The state of a trial: RUNNING, COMPLETE, PRUNED or FAIL."""
        return self._states.get(number, TrialState.RUNNING.name)

    def error(self, number: int) -> str | None:
        """The reason why a trial failed; None if it did not."""
        return self._errors.get(number)

    def stopped(self, number: int) -> str | None:
        """The reason why a trial was stopped for good; None if it was not."""
        return self._stopped.get(number)

    def all_failed(self) -> str | None:
        """The reason of the first failure if every ended trial failed, else None."""
        failed = all(state == TrialState.FAIL.name for state in self._states.values())
        return next(iter(self._errors.values()), None) if failed else None

    def ask(self) -> Trial:
        """Begin the next enqueued trial, or create a new one, from which its parameters are then sampled."""
        trial = self._study.ask()
        self._running[trial.number] = trial
        self._scores[trial.number] = {}
        return trial

    def knows(self, number: int, epoch: int) -> bool:
        """Whether this epoch of a running trial was reported before."""
        return epoch in self._scores[number]

    def report(self, number: int, *, epoch: int, f1: float) -> None:
        """Report the validation F1 of an epoch, unless that epoch was reported before."""
        if not self.knows(number, epoch):
            self._running[number].report(f1, epoch)
            self._scores[number][epoch] = f1

    def should_prune(self, number: int) -> bool:
        """Whether the pruner wants a running trial to end after its last reported epoch."""
        return self._running[number].should_prune()

    def complete(self, number: int) -> None:
        """End a trial that ran to its own end; its value is the F1 of its best epoch."""
        best = best_epoch(self._scores[number])
        self._running[number].set_user_attr(BEST_EPOCH, best)
        self._end(number, TrialState.COMPLETE, self._scores[number][best])

    def prune(self, number: int) -> None:
        """End a trial because the pruner wants it; Optuna makes the last reported F1 its value."""
        self._end(number, TrialState.PRUNED)

    def stop(self, number: int, reason: str) -> None:
        """End a trial for another reason than the pruner's, as PRUNED, so that the sampler uses its curve.

        Optuna makes the last reported F1 its value. A trial without an epoch has no value, and TPE ranks it last.
        """
        self._running[number].set_user_attr(STOPPED, reason)
        self._stopped[number] = reason
        self._end(number, TrialState.PRUNED)

    def fail(self, number: int, reason: str) -> None:
        """End a trial that failed."""
        self._running[number].set_user_attr(ERROR, reason)
        self._errors[number] = reason
        self._end(number, TrialState.FAIL)

    def _restore(self, trial: FrozenTrial) -> None:
        """Take over a trial that was stored before."""
        if trial.state.is_finished():
            self._states[trial.number] = trial.state.name
            if (reason := error_of(trial)) is not None:
                self._errors[trial.number] = reason
            if (reason := stopped_by(trial)) is not None:
                self._stopped[trial.number] = reason
        elif trial.state == TrialState.RUNNING:
            self._running[trial.number] = reopen_trial(self._study, trial)
            self._scores[trial.number] = dict(trial.intermediate_values)

    def _end(self, number: int, state: TrialState, value: float | None = None) -> None:
        self._study.tell(self._running.pop(number), value, state=state)
        del self._scores[number]
        self._states[number] = state.name


def error_of(trial: FrozenTrial) -> str | None:
    """The reason why a trial failed, else None, also if the driver died after it had set the attribute."""
    reason: str | None = trial.user_attrs.get(ERROR) if trial.state == TrialState.FAIL else None
    return reason


def stopped_by(trial: FrozenTrial) -> str | None:
    """The reason why a trial was stopped for good, else None, as for one that its pruner ended."""
    reason: str | None = trial.user_attrs.get(STOPPED) if trial.state == TrialState.PRUNED else None
    return reason


def best_epoch(scores: Mapping[int, float]) -> int:
    """The epoch with the highest F1; ties go to the first."""
    return max(scores, key=lambda epoch: (scores[epoch], -epoch))
