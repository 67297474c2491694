"""The study, and Optuna's samplers and pruners by name."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.pruners import HyperbandPruner
from optuna.samplers import RandomSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial
from refusals import refused

from genre_core.models.registry import block_names
from search.config.schema import SearchConfig, load
from search.config.space import DepthRange, is_conditional
from search.errors import SearchErrorCode
from search.study.journal import repair_journal
from search.study.pruners import PRUNERS, make_pruner
from search.study.samplers import SAMPLERS, make_sampler
from search.study.study import Study
from search.study.suggest import sample

WILD = load(
    None,
    {
        "space.batch_size": {"low": 8, "high": 64, "log": True},
        "space.weight_decay": [0.0, 1e-4],
        "space.nesterov": [True, False],
        "space.label_smoothing": {"low": 0.0, "high": 0.2, "step": 0.1},
    },
)
BOUNDED = WILD.model_copy(
    update={"space": WILD.space.model_copy(update={"frozen_blocks": DepthRange(low=1)})}
)
"""The same with a parameter for the depth of each backbone."""
PARAMETERS: dict[str, dict[str, Any]] = {
    "percentile": {"percentile": 25.0},
    "patient": {"patience": 1, "wrapped_pruner": {"name": "median", "n_startup_trials": 2}},
    "successive_halving": {"min_resource": 1, "reduction_factor": 2},
}


def _study(
    path: Path,
    *,
    sampler: str = "random",
    pruner: str = "median",
    conditional: bool = False,
    **parameters: Any,
) -> Study:
    return Study(
        path / "study.journal",
        name="s",
        sampler=make_sampler(sampler, {}, seed=0, conditional=conditional),
        pruner=make_pruner(pruner, PARAMETERS.get(pruner, {}) | parameters, epochs=8),
    )


def _f1(learning_rate: float, epoch: int) -> float:
    """Higher learning rates learn faster here."""
    return min(1.0, learning_rate * epoch)


@pytest.mark.parametrize("config", [WILD, BOUNDED], ids=["whole depth", "conditional"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_samples_valid_recipes(sampler: str, config: SearchConfig, tmp_path: Path) -> None:
    study = _study(tmp_path, sampler=sampler, pruner="none", conditional=is_conditional(config.space))
    recipes = []
    for _ in range(14):
        trial = study.ask()
        recipes.append(sample(trial, config))  # a Recipe checks itself
        study.report(trial.number, epoch=8, f1=_f1(recipes[-1].learning_rate, 8))
        study.complete(trial.number)
    lowest = 1 if config is BOUNDED else 0
    assert all(lowest <= r.frozen_blocks <= len(block_names(r.backbone)) for r in recipes)
    assert len({recipe.backbone for recipe in recipes}) > 1
    assert len({recipe.learning_rate for recipe in recipes}) > 7


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_seed_samples_the_same_recipes(sampler: str, tmp_path: Path) -> None:
    drawn = []
    for attempt in ("a", "b"):
        (tmp_path / attempt).mkdir()
        study = _study(tmp_path / attempt, sampler=sampler, pruner="none")
        for n in range(12):
            trial = study.ask()
            drawn.append(sample(trial, WILD))
            study.report(trial.number, epoch=1, f1=n / 12)
            study.complete(trial.number)
    assert drawn[:12] == drawn[12:]


@pytest.mark.parametrize("pruner", [name for name in PRUNERS if name != "none"])
def test_every_pruner_ends_the_worse_of_many_trials(pruner: str, tmp_path: Path) -> None:
    study = _study(tmp_path, pruner=pruner)
    pruned = 0
    for n in range(16):
        number, rate = study.ask().number, (1 + n % 4) / 40
        decay = n % 4 == 0  # decreasing, for the pruner that waits for stagnation
        for epoch in range(1, 9):
            study.report(number, epoch=epoch, f1=rate / epoch if decay else _f1(rate, epoch))
            if study.should_prune(number):
                study.prune(number)
                pruned += 1
                break
        else:
            study.complete(number)
    assert pruned
    assert sum(trial.state.name == "PRUNED" for trial in study.trials) == pruned


def test_tpe_with_hyperband_samples_a_fifth_of_the_gtzan_search_at_random(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Optuna's manual says that TPE counts n_startup_trials for each bracket, which would double the random trials."""
    at_random = set()
    draw = RandomSampler.sample_independent

    def noted(self: RandomSampler, study: Any, trial: FrozenTrial, *arguments: Any) -> Any:
        at_random.add(trial.number)
        return draw(self, study, trial, *arguments)

    monkeypatch.setattr(RandomSampler, "sample_independent", noted)
    config = load(Path(__file__).parents[2] / "configs" / "gtzan.yaml", {})
    rungs = {"min_resource": 4, "reduction_factor": 3}
    pruner = make_pruner("hyperband", rungs, epochs=config.training.epochs)
    sampler = make_sampler("tpe", {"n_startup_trials": config.trials // 5}, seed=0)
    study = Study(tmp_path / "study.journal", name="s", sampler=sampler, pruner=pruner)
    for number in range(30):
        rate = sample(study.ask(), config).learning_rate
        for epoch in (4, 12):  # hyperband decides at these epochs only
            study.report(number, epoch=epoch, f1=_f1(rate, epoch))
            if study.should_prune(number):
                study.prune(number)
                break
        else:
            study.complete(number)
    assert isinstance(pruner, HyperbandPruner)
    assert len(pruner._pruners) == 2
    assert at_random == set(range(config.trials // 5))


def test_the_pruner_none_prunes_nothing(tmp_path: Path) -> None:
    study = _study(tmp_path, pruner="none")
    first, second = study.ask().number, study.ask().number
    for number, f1 in ((first, 0.9), (second, 0.0)):
        for epoch in range(1, 9):
            study.report(number, epoch=epoch, f1=f1)
            assert not study.should_prune(number)


def test_optuna_reads_how_each_trial_ended_from_the_journal(tmp_path: Path) -> None:
    study = _study(tmp_path)
    numbers = [study.ask().number for _ in range(4)]
    for number in numbers:
        study.report(number, epoch=1, f1=0.25)
    for epoch, f1 in [(2, 0.25), (3, 0.5), (4, 0.5)]:
        study.report(0, epoch=epoch, f1=f1)
    study.complete(0)
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


def test_running_trials_continue_after_the_driver_died(tmp_path: Path) -> None:
    first = _study(tmp_path)
    drawn = [sample(first.ask(), WILD) for _ in range(3)]
    first.report(1, epoch=1, f1=0.5)
    first.fail(0, "no memory")
    again = _study(tmp_path)
    assert (again.running, again.ended, again.error(0)) == ((1, 2), 1, "no memory")
    assert [sample(again.trial(number), WILD) for number in (1, 2)] == drawn[1:]
    assert again.knows(1, 1)
    again.report(1, epoch=1, f1=0.9)
    again.report(1, epoch=2, f1=0.4)
    again.complete(1)
    assert again.trials[1].intermediate_values == {1: 0.5, 2: 0.4}
    assert again.trials[1].value == 0.5


@pytest.mark.parametrize("cut", [b"", b'{"op_code":4,"worker_id"', b'{"op'])
def test_an_incomplete_last_line_and_a_stale_lock_are_removed_from_a_journal(
    cut: bytes, tmp_path: Path
) -> None:
    study = _study(tmp_path)
    study.report(study.ask().number, epoch=1, f1=0.5)
    journal = tmp_path / "study.journal"
    journal.write_bytes((whole := journal.read_bytes()) + cut)
    assert JournalFileSymlinkLock(str(journal)).acquire()
    repair_journal(journal)
    assert journal.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [journal]
    again = _study(tmp_path)
    again.report(0, epoch=2, f1=0.6)
    assert _study(tmp_path).trials[0].intermediate_values == {1: 0.5, 2: 0.6}


@pytest.mark.parametrize(
    "sampler", [name for name in SAMPLERS if name != "qmc"]
)  # continues its sequence by itself
def test_a_resumed_sampler_does_not_sample_the_same_trials_again(sampler: str, tmp_path: Path) -> None:
    drawn = []
    for _ in range(2):
        study = _study(tmp_path, sampler=sampler, pruner="none")
        study.use(make_sampler(sampler, {}, seed=0, asked=study.asked))
        drawn += [sample(study.ask(), WILD).learning_rate for _ in range(4)]
    assert len(set(drawn)) == 8


UNKNOWN = SearchErrorCode.SAMPLER_OR_PRUNER_UNKNOWN
UNKNOWN_PARAMETER, INVALID = SearchErrorCode.PARAMETER_UNKNOWN, SearchErrorCode.PARAMETER_INVALID
REMOVED = SearchErrorCode.PRUNER_REMOVED


@pytest.mark.parametrize(
    ("make", "name", "parameters", "code", "facts"),
    [
        (make_sampler, "tpee", {}, UNKNOWN, ["sampler.name='tpee'", *SAMPLERS]),
        (make_sampler, "tpe", {"n_trials": 3}, UNKNOWN_PARAMETER, ["n_trials=3", "n_startup_trials"]),
        (make_sampler, "random", {"x": 1}, UNKNOWN_PARAMETER, ["sampler.x=1"]),
        (make_sampler, "qmc", {"qmc_type": "grid"}, INVALID, ["qmc", "grid"]),
        (make_pruner, "asha", {}, UNKNOWN, ["pruner.name='asha'", *PRUNERS]),
        (make_pruner, "wilcoxon", {}, REMOVED, ["pruner.name='wilcoxon'", "--warm-start"]),
        (make_pruner, "median", {"warmup": 3}, UNKNOWN_PARAMETER, ["pruner.warmup=3", "n_warmup_steps"]),
        (make_pruner, "percentile", {}, INVALID, ["percentile"]),
        (make_pruner, "percentile", {"percentile": 120}, INVALID, ["120"]),
        (make_pruner, "none", {"x": 1}, UNKNOWN_PARAMETER, ["pruner.x=1"]),
        *(
            (make_pruner, "patient", {"patience": 1, "wrapped_pruner": wrapped}, code, [given])
            for wrapped, code, given in (
                (3, INVALID, "pruner.wrapped_pruner"),
                ({}, INVALID, "pruner.wrapped_pruner"),
                ("asha", UNKNOWN, "pruner.name='asha'"),
                ("wilcoxon", REMOVED, "pruner.name='wilcoxon'"),
            )
        ),
    ],
)
def test_a_mistaken_sampler_or_pruner_is_rejected_with_the_value_and_the_legal_ones(
    make: Any, name: str, parameters: dict[str, Any], code: SearchErrorCode, facts: list[str]
) -> None:
    with refused(code, *facts):
        make(name, parameters, **({"seed": 0} if make is make_sampler else {"epochs": 8}))
