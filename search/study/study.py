"""The Optuna study of a search, in a journal file: the single source of truth of what was tried."""

import inspect
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import LOCK_FILE_SUFFIX
from optuna.trial import FrozenTrial, Trial, TrialState

from genre_core.errors import InputError
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

SAMPLERS: dict[str, type[BaseSampler]] = {
    "tpe": optuna.samplers.TPESampler,
    "random": optuna.samplers.RandomSampler,
    "qmc": optuna.samplers.QMCSampler,
    "gp": optuna.samplers.GPSampler,
    "cmaes": optuna.samplers.CmaEsSampler,
}
PRUNERS: dict[str, type[BasePruner]] = {
    "none": optuna.pruners.NopPruner,
    "median": optuna.pruners.MedianPruner,
    "percentile": optuna.pruners.PercentilePruner,
    "successive_halving": optuna.pruners.SuccessiveHalvingPruner,
    "hyperband": optuna.pruners.HyperbandPruner,
    "patient": optuna.pruners.PatientPruner,
}
_NO_LONGER = {"wilcoxon": "compares instances of a problem, not epochs"}
"""Pruners that earlier versions offered, and why they are not offered any more."""

# The frozen depth depends on the drawn backbone, so the space is conditional. TPE models each branch as a
# group of its own; the others draw a conditional parameter independently, which needs no warning a trial.
_SAMPLER_DEFAULTS: dict[str, dict[str, Any]] = {
    "tpe": {"group": True, "multivariate": True},
    "qmc": {"warn_independent_sampling": False, "warn_asynchronous_seeding": False},
    "gp": {"warn_independent_sampling": False},
    "cmaes": {"warn_independent_sampling": False},
}


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


def mend_journal(journal: Path) -> None:
    """Make a journal whole whose writer died: its last line, where it is cut, and a lock that nobody holds, go.

    Only for who drives the run: nobody else may be writing to it.
    """
    for lock in journal.parent.glob(f"{journal.name}{LOCK_FILE_SUFFIX}*"):
        lock.unlink()
    if not journal.exists():
        return
    with journal.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


def make_sampler(name: str, parameters: Mapping[str, Any], *, seed: int, asked: int = 0) -> BaseSampler:
    """One of Optuna's samplers by name, with Optuna's own parameters.

    Args:
        name: in SAMPLERS.
        parameters: of Optuna's class.
        seed: of the search.
        asked: trials that the study has already. The sampler then has another seed, or it would draw the same ones
            again; `qmc` finds its place in its sequence by itself, but not in what it draws outside of it.

    Raises:
        InputError: no such sampler, or it does not take these parameters.
    """
    fresh = int(np.random.SeedSequence([seed, asked]).generate_state(1)[0]) if asked else seed
    given = {"seed": fresh, **_SAMPLER_DEFAULTS.get(name, {}), **parameters}
    if name == "qmc" and asked:
        given = {"independent_sampler": optuna.samplers.RandomSampler(seed=fresh)} | given | {"seed": seed}
    sampler: BaseSampler = _make("sampler", name, SAMPLERS, given)
    return sampler


def make_pruner(name: str, parameters: Mapping[str, Any], *, epochs: int) -> BasePruner:
    """One of Optuna's pruners by name, with Optuna's own parameters; its steps are epochs.

    `patient` wraps another: `{name: patient, patience: 2, wrapped_pruner: {name: median}}`.

    Raises:
        InputError: no such pruner, or it does not take these parameters.
    """
    if name in _NO_LONGER:
        raise InputError(
            f"pruner.name must be one of {', '.join(PRUNERS)}, but got pruner.name={name!r}, which "
            f"{_NO_LONGER[name]}; begin a new search with another pruner and --warm-start RUN"
        )
    given = dict(parameters)
    if name == "hyperband":
        given.setdefault("max_resource", epochs)
    if name == "patient":
        wrapped = given.get("wrapped_pruner")
        wrapped = {"name": wrapped} if isinstance(wrapped, str) else wrapped
        if wrapped is not None and not (isinstance(wrapped, dict) and "name" in wrapped):
            raise InputError(f"pruner.wrapped_pruner must be a pruner with a name, but got {wrapped!r}")
        inner = dict(wrapped) if wrapped else {}
        given["wrapped_pruner"] = make_pruner(inner.pop("name"), inner, epochs=epochs) if wrapped else None
    pruner: BasePruner = _make("pruner", name, PRUNERS, given)
    return pruner


def _make(kind: str, name: str, known: Mapping[str, type[Any]], given: Mapping[str, Any]) -> Any:
    if name not in known:
        raise InputError(f"{kind}.name must be one of {', '.join(known)}, but got {kind}.name={name!r}")
    maker = known[name]
    legal = inspect.signature(maker).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in legal.values())
    if unknown := [key for key in given if key not in legal or takes_any]:
        own = ", ".join(key for key in legal if key not in ("seed", "args", "kwargs")) or "no parameters"
        raise InputError(f"{kind} {name} takes {own}, but got {kind}.{unknown[0]}={given[unknown[0]]!r}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return maker(**given)
    except (TypeError, ValueError) as error:
        raise InputError(f"{kind} {name} refuses its parameters: {error}") from error
    except ImportError as error:
        raise InputError(
            f"{kind} {name} needs a package that is not installed: {error}; pip install {name}"
        ) from error
