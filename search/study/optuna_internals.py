"""Everything that relies on private or undocumented parts of Optuna, one function each.

Where Optuna has a public API for the same purpose, it is used instead. tests/study/test_optuna_internals.py fails with
instructions when an Optuna upgrade changes one of these parts.
"""

from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal._file import LOCK_FILE_SUFFIX
from optuna.trial import FrozenTrial, Trial


def reopen_trial(study: optuna.Study, trial: FrozenTrial) -> Trial:
    """A running trial as the Trial object that `Study.ask` returned in an earlier process.

    Optuna resumes studies, but not trials: reporting to a trial needs a Trial, and a Trial needs the private id.
    """
    return Trial(study, trial._trial_id)


def set_user_attr(study: optuna.Study, trial: FrozenTrial, key: str, value: Any) -> None:
    """Set a user attribute of a trial that a sampler hook is called with.

    `Trial.set_user_attr` is not available there: constructing a Trial would call the hook again.
    """
    study._storage.set_trial_user_attr(trial._trial_id, key, value)
    trial.user_attrs[key] = value


def fixed_parameters(trial: FrozenTrial) -> dict[str, Any]:
    """The parameters with which a trial was enqueued; empty for other trials."""
    fixed: dict[str, Any] = trial.system_attrs.get("fixed_params", {})
    return fixed


def all_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Every trial of the study that a sampler hook is called with; they are not copied.

    With hyperband this study is a view of one bracket, whose public methods hide the trials of other brackets.
    """
    return study._storage.get_all_trials(study._study_id, deepcopy=False)


def remove_stale_lock(journal: Path) -> None:
    """Remove the lock that a killed process left on a journal; Optuna itself would wait 30 s for it.

    `JournalFileSymlinkLock.release` renames the lock before it deletes it, so a renamed one may be left too.
    """
    for lock in journal.parent.glob(f"{journal.name}{LOCK_FILE_SUFFIX}*"):
        lock.unlink()


def truncate_incomplete_line(journal: Path) -> None:
    """Remove the last line of a journal if it was written only in part: Optuna would append to it and fail to read it.

    A journal has one JSON document per line, and a line counts once its line break is written.
    """
    with journal.open("rb+") as file:
        file.truncate(file.read().rfind(b"\n") + 1)
