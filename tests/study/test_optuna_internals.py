"""Canaries: each fails, and says what to do, when an Optuna upgrade changes a private part that this project uses."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution
from optuna.pruners import HyperbandPruner
from optuna.samplers import RandomSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial

from search.study import optuna_internals


@contextmanager
def canary(function: str, what_to_do: str) -> Iterator[None]:
    """Turns any failure into a message for whoever upgrades Optuna."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  # whatever the upgrade breaks
        pytest.fail(
            f"Optuna {optuna.__version__} no longer works with search.study.optuna_internals.{function} "
            f"({type(error).__name__}: {error}). {what_to_do}"
        )


def _study(journal: Path, sampler: Any = None, pruner: Any = None) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(journal)))
    return optuna.create_study(
        storage=storage,
        study_name="s",
        load_if_exists=True,
        sampler=sampler or RandomSampler(seed=0),
        pruner=pruner,
    )


def test_a_running_trial_is_reopened_with_its_parameters_and_can_be_reported_and_told(tmp_path: Path) -> None:
    with canary(
        "reopen_trial",
        "Find how a Trial is constructed from a stored one; Study uses it to resume running trials.",
    ):
        trial = _study(tmp_path / "j").ask()
        x = trial.suggest_float("x", 0, 1)
        trial.report(0.5, 1)
        again = _study(tmp_path / "j", RandomSampler(seed=1))
        reopened = optuna_internals.reopen_trial(again, again.get_trials()[0])
        assert reopened.suggest_float("x", 0, 1) == x
        assert 0 <= reopened.suggest_float("y", 0, 1) <= 1
        reopened.report(0.75, 2)
        again.tell(reopened, 0.75)
        (stored,) = _study(tmp_path / "j").get_trials()
        assert (stored.intermediate_values, stored.value) == ({1: 0.5, 2: 0.75}, 0.75)


def test_the_parameters_of_an_enqueued_trial_are_known_before_it_is_sampled(tmp_path: Path) -> None:
    with canary(
        "fixed_parameters",
        "Find where Study.enqueue_trial stores them; samplers draw only the other parameters around them.",
    ):
        study = _study(tmp_path / "j")
        study.enqueue_trial({"x": 0.25})
        (waiting,) = study.get_trials()
        assert optuna_internals.fixed_parameters(waiting) == {"x": 0.25}
        begun = study.ask()
        assert begun.suggest_float("x", 0, 1) == 0.25
        assert optuna_internals.fixed_parameters(study.get_trials()[0]) == {"x": 0.25}
        assert optuna_internals.fixed_parameters(study.ask({})._get_latest_trial()) == {}


def test_a_sampler_hook_sets_a_user_attribute(tmp_path: Path) -> None:
    class Marks(RandomSampler):
        def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
            optuna_internals.set_user_attr(study, trial, "repeat", 1)
            assert trial.user_attrs == {"repeat": 1}

    with canary(
        "set_user_attr",
        "Find how samplers set attributes of a trial; WithoutRepeats chooses the seed of a trial in before_trial.",
    ):
        trial = _study(tmp_path / "j", Marks()).ask()
        assert trial.user_attrs == {"repeat": 1}
        assert _study(tmp_path / "j").get_trials()[0].user_attrs == {"repeat": 1}


def test_a_sampler_hook_sees_the_trials_of_all_hyperband_brackets(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    class Counts(RandomSampler):
        def sample_independent(
            self, study: optuna.Study, trial: FrozenTrial, name: str, distribution: BaseDistribution
        ) -> Any:
            seen.append((len(optuna_internals.all_trials(study)), len(study.get_trials())))
            return super().sample_independent(study, trial, name, distribution)

    with canary(
        "all_trials",
        "Find how a sampler gets all trials in spite of hyperband; WithoutRepeats would repeat configurations.",
    ):
        study = _study(
            tmp_path / "j", Counts(), HyperbandPruner(min_resource=1, max_resource=9, reduction_factor=3)
        )
        for number in range(8):
            trial = study.ask()
            trial.suggest_float("x", 0, 1)
            trial.report(number, 1)
            trial.should_prune()  # creates the brackets
            study.tell(trial, number)
        assert [every for every, _ in seen] == list(range(1, 9))
        assert any(bracket < every for every, bracket in seen), "a bracket's study hides no trials any more"


@pytest.mark.parametrize("renamed", [False, True])
def test_a_stale_lock_is_removed(tmp_path: Path, renamed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with canary(
        "remove_stale_lock",
        "Find the names of lock files; otherwise a resumed search waits 30 s for a dead process.",
    ):
        journal = tmp_path / "j"
        _study(journal)
        lock = JournalFileSymlinkLock(str(journal))
        assert lock.acquire()
        if renamed:
            with monkeypatch.context() as patch:
                patch.setattr("os.unlink", lambda path: None)
                lock.release()
        assert len(list(tmp_path.iterdir())) == 2
        optuna_internals.remove_stale_lock(journal)
        assert list(tmp_path.iterdir()) == [journal]


def test_an_incomplete_line_is_removed_from_a_journal(tmp_path: Path) -> None:
    with canary(
        "truncate_incomplete_line",
        "Find the format of journals; a resumed search could not read one whose writer was killed.",
    ):
        journal = tmp_path / "j"
        trial = _study(journal).ask()
        trial.suggest_float("x", 0, 1)
        complete = journal.read_bytes()
        lines = complete.splitlines(keepends=True)
        assert all(line.endswith(b"\n") and isinstance(json.loads(line), dict) for line in lines)
        journal.write_bytes(complete + lines[-1][:-9])
        optuna_internals.truncate_incomplete_line(journal)
        assert journal.read_bytes() == complete
        trial.report(0.5, 1)
        assert _study(journal).get_trials()[0].intermediate_values == {1: 0.5}
