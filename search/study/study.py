"""The Optuna study of a search, in a journal file: the single source of truth of what was tried."""

from collections.abc import Mapping
from pathlib import Path

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from genre_core.system.atomic import sync_folder
from search.run.identity import RUN_ID

ERROR = "error"
"""User attribute of a failed trial: why."""
STOPPED = "stopped"
"""User attribute of a trial that was cut off for good, and is PRUNED: by what."""
TIME_BUDGET = "time budget"
"""What STOPPED says of a trial that still ran when the search's time was over."""
REPEAT = "repeat"
"""User attribute of a trial whose configuration was tried before with other seeds: how many."""
BEST_EPOCH = "best_epoch"
"""User attribute: the epoch whose F1 is the trial's value."""
WARM_START = "warm_start"
"""User attribute of a trial of an earlier search: the folder it is from, and its number there."""


class Study:
    """An Optuna study by trial number: ask, report, and tell once how each trial ended.

    What an earlier search tried may stand in it too, for the sampler and the pruner alone: it counts nowhere.
    """

    def __init__(self, journal: Path, *, name: str, sampler: BaseSampler, pruner: BasePruner) -> None:
        """Open the study in this journal file, or create it: it maximises validation F1.

        Trials that a dead driver left running are running still, to be reported and told as those asked for here.
        """
        self._study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(journal))),
            study_name=name,
            direction="maximize",
            sampler=sampler,
            pruner=pruner,
            load_if_exists=True,
        )
        sync_folder(journal.parent)  # Optuna syncs the journal's lines, but not the name of a new one
        self._running: dict[int, Trial] = {}
        self._scores: dict[int, dict[int, float]] = {}
        self._states: dict[int, str] = {}
        self._errors: dict[int, str] = {}
        self._stopped: dict[int, str] = {}
        for trial in self.trials:
            if trial.state.is_finished():
                self._states[trial.number] = trial.state.name
                if ERROR in trial.user_attrs:
                    self._errors[trial.number] = trial.user_attrs[ERROR]
                if STOPPED in trial.user_attrs:
                    self._stopped[trial.number] = trial.user_attrs[STOPPED]
            elif trial.state == TrialState.RUNNING:
                self._running[trial.number] = Trial(self._study, trial._trial_id)
                self._scores[trial.number] = dict(trial.intermediate_values)

    def claim(self, run_id: str) -> None:
        """Record whose study this is, should the journal ever hold another."""
        if self._study.user_attrs.get(RUN_ID) != run_id:
            self._study.set_user_attr(RUN_ID, run_id)

    def use(self, sampler: BaseSampler) -> None:
        """Sample with this one from now on."""
        self._study.sampler = sampler

    @property
    def running(self) -> tuple[int, ...]:
        """Numbers of the trials that were asked for and not yet told."""
        return tuple(self._running)

    @property
    def asked(self) -> int:
        """How many trials were asked for."""
        return len(self._states) + len(self._running)

    @property
    def ended(self) -> int:
        """How many trials were told how they ended."""
        return len(self._states)

    @property
    def trials(self) -> list[FrozenTrial]:
        """The search's own trials, as Optuna has them."""
        return [
            trial for trial in self._study.get_trials(deepcopy=False) if WARM_START not in trial.user_attrs
        ]

    @property
    def known(self) -> set[tuple[str, int]]:
        """Folder and number of each trial of an earlier search."""
        every = self._study.get_trials(deepcopy=False)
        return {tuple(trial.user_attrs[WARM_START]) for trial in every if WARM_START in trial.user_attrs}

    def learn(self, trial: FrozenTrial) -> None:
        """Let the sampler and the pruner know of a trial that an earlier search ended."""
        self._study.add_trial(trial)

    def trial(self, number: int) -> Trial:
        """A running trial, which gives its parameters again when they are suggested again."""
        return self._running[number]

    def state(self, number: int) -> str:
        """RUNNING, COMPLETE, PRUNED or FAIL."""
        return self._states.get(number, TrialState.RUNNING.name)

    def error(self, number: int) -> str | None:
        """Why a trial failed."""
        return self._errors.get(number)

    def stopped(self, number: int) -> str | None:
        """What cut a trial off for good; None where nothing did."""
        return self._stopped.get(number)

    def all_failed(self) -> str | None:
        """The first failure's reason where every trial failed, else None."""
        failed = all(state == TrialState.FAIL.name for state in self._states.values())
        return next(iter(self._errors.values()), None) if failed else None

    def ask(self) -> Trial:
        """A new trial, to suggest its parameters from."""
        trial = self._study.ask()
        self._running[trial.number] = trial
        self._scores[trial.number] = {}
        return trial

    def knows(self, number: int, epoch: int) -> bool:
        """Whether this epoch of a running trial is on record."""
        return epoch in self._scores[number]

    def report(self, number: int, *, epoch: int, f1: float) -> bool:
        """Put an epoch's validation F1 on record, if it is not; whether the pruner wants the trial to end."""
        trial = self._running[number]
        if not self.knows(number, epoch):
            trial.report(f1, epoch)
            self._scores[number][epoch] = f1
        return trial.should_prune()

    def complete(self, number: int) -> None:
        """The trial ran to its own end; its value is its best epoch's F1."""
        best = best_epoch(self._scores[number])
        self._running[number].set_user_attr(BEST_EPOCH, best)
        self._tell(number, TrialState.COMPLETE, self._scores[number][best])

    def prune(self, number: int) -> None:
        """The trial was ended by the pruner; Optuna takes its last reported F1 as its value."""
        self._tell(number, TrialState.PRUNED)

    def stop(self, number: int, reason: str) -> None:
        """The trial was cut off for good, for this reason: PRUNED, so that the sampler knows its curve.

        Optuna takes its last reported F1 as its value. Without an epoch it has none, and TPE ranks it last.
        """
        self._running[number].set_user_attr(STOPPED, reason)
        self._stopped[number] = reason
        self._tell(number, TrialState.PRUNED)

    def fail(self, number: int, reason: str) -> None:
        """The trial came to nothing, for this reason."""
        self._running[number].set_user_attr(ERROR, reason)
        self._errors[number] = reason
        self._tell(number, TrialState.FAIL)

    def _tell(self, number: int, state: TrialState, value: float | None = None) -> None:
        self._study.tell(self._running.pop(number), value, state=state)
        del self._scores[number]
        self._states[number] = state.name


def best_epoch(scores: Mapping[int, float]) -> int:
    """The epoch of the best F1, the first of equal ones."""
    return max(scores, key=lambda epoch: (scores[epoch], -epoch))
