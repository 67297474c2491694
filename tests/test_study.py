"""The study, its samplers and pruners: Optuna's own, by name, with Optuna's own parameters."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from genre_core.errors import InputError
from genre_core.families import block_names
from search.config import load
from search.sampling import sample
from search.study import PRUNERS, SAMPLERS, Study, make_pruner, make_sampler

WILD = load(
    None,
    {
        "space.batch_size": {"low": 8, "high": 64, "log": True},
        "space.weight_decay": [0.0, 1e-4],
        "space.nesterov": [True, False],
        "space.label_smoothing": {"low": 0.0, "high": 0.2, "step": 0.1},
    },
)
PARAMETERS: dict[str, dict[str, Any]] = {
    "percentile": {"percentile": 25.0},
    "patient": {"patience": 1, "wrapped_pruner": {"name": "median", "n_startup_trials": 2}},
    "successive_halving": {"min_resource": 1, "reduction_factor": 2},
}


def _study(path: Path, *, sampler: str = "random", pruner: str = "median", **parameters: Any) -> Study:
    return Study(
        path / "study.journal",
        name="s",
        sampler=make_sampler(sampler, {}, seed=0),
        pruner=make_pruner(pruner, PARAMETERS.get(pruner, {}) | parameters, epochs=8),
    )


def _f1(learning_rate: float, epoch: int) -> float:
    """Larger rates learn faster here."""
    return min(1.0, learning_rate * epoch)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_draws_legal_recipes_from_the_conditional_space(sampler: str, tmp_path: Path) -> None:
    study = _study(tmp_path, sampler=sampler, pruner="none")
    recipes = []
    for _ in range(14):
        trial = study.ask()
        recipes.append(sample(trial, WILD))  # a Recipe checks itself
        study.complete(trial.number, f1=_f1(recipes[-1].learning_rate, 8), best_epoch=8)
    assert all(0 <= r.frozen_blocks <= len(block_names(r.backbone)) for r in recipes)
    assert len({recipe.backbone for recipe in recipes}) > 1
    assert len({recipe.learning_rate for recipe in recipes}) > 7


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_seed_draws_the_same_recipes(sampler: str, tmp_path: Path) -> None:
    drawn = []
    for attempt in ("a", "b"):
        (tmp_path / attempt).mkdir()
        study = _study(tmp_path / attempt, sampler=sampler, pruner="none")
        for n in range(12):
            trial = study.ask()
            drawn.append(sample(trial, WILD))
            study.complete(trial.number, f1=n / 12, best_epoch=1)
    assert drawn[:12] == drawn[12:]


@pytest.mark.parametrize("pruner", [name for name in PRUNERS if name != "none"])
def test_every_pruner_ends_the_worse_of_many_trials(pruner: str, tmp_path: Path) -> None:
    study = _study(tmp_path, pruner=pruner)
    pruned = 0
    for n in range(16):
        number, rate = study.ask().number, (1 + n % 4) / 40
        decay = n % 4 == 0  # falls, for the pruner that waits for standstill
        for epoch in range(1, 9):
            if study.report(number, epoch=epoch, f1=rate / epoch if decay else _f1(rate, epoch)):
                study.prune(number)
                pruned += 1
                break
        else:
            study.complete(number, f1=_f1(rate, 8), best_epoch=8)
    assert pruned
    assert sum(trial.state.name == "PRUNED" for trial in study.trials) == pruned


def test_without_a_pruner_nothing_is_pruned(tmp_path: Path) -> None:
    study = _study(tmp_path, pruner="none")
    first, second = study.ask().number, study.ask().number
    assert not any(study.report(first, epoch=e, f1=0.9) for e in range(1, 9))
    assert not any(study.report(second, epoch=e, f1=0.0) for e in range(1, 9))


def test_each_end_is_what_optuna_reads_from_the_journal(tmp_path: Path) -> None:
    study = _study(tmp_path)
    numbers = [study.ask().number for _ in range(4)]
    for number in numbers:
        study.report(number, epoch=1, f1=0.25)
    study.complete(0, f1=0.5, best_epoch=3)
    study.prune(1)
    study.fail(2, "no memory")
    assert study.running == (3,)
    assert [study.state(n) for n in numbers] == ["COMPLETE", "PRUNED", "FAIL", "RUNNING"]
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "study.journal")))
    read = optuna.load_study(study_name="s", storage=storage).trials
    assert [trial.state.name for trial in read] == ["COMPLETE", "PRUNED", "FAIL", "RUNNING"]
    assert [trial.value for trial in read] == [0.5, 0.25, None, None]
    assert read[0].user_attrs == {"best_epoch": 3}
    assert read[2].user_attrs == {"error": "no memory"}


@pytest.mark.parametrize(
    ("make", "name", "parameters", "words"),
    [
        (make_sampler, "tpee", {}, "sampler.name must be one of tpe, random, qmc, gp, cmaes"),
        (
            make_sampler,
            "tpe",
            {"n_trials": 3},
            "sampler tpe takes .*n_startup_trials.*, but got sampler.n_trials=3",
        ),
        (make_sampler, "random", {"x": 1}, "sampler random takes no parameters, but got sampler.x=1"),
        (make_sampler, "qmc", {"qmc_type": "grid"}, "sampler qmc refuses its parameters"),
        (make_pruner, "asha", {}, "pruner.name must be one of none, median"),
        (
            make_pruner,
            "median",
            {"warmup": 3},
            "pruner median takes .*n_warmup_steps.*, but got pruner.warmup=3",
        ),
        (make_pruner, "percentile", {}, "pruner percentile refuses its parameters: .*percentile"),
        (make_pruner, "percentile", {"percentile": 120}, "pruner percentile refuses its parameters"),
        (make_pruner, "none", {"x": 1}, "pruner none takes no parameters"),
        (make_pruner, "patient", {"patience": 1, "wrapped_pruner": 3}, "wrapped_pruner must be a pruner"),
        (make_pruner, "patient", {"patience": 1, "wrapped_pruner": "asha"}, "pruner.name must be one of"),
    ],
)
def test_a_mistaken_sampler_or_pruner_is_refused(
    make: Any, name: str, parameters: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words) as caught:
        make(name, parameters, **({"seed": 0} if make is make_sampler else {"epochs": 8}))
    assert "\n" not in str(caught.value)
