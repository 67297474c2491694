"""Enqueued configurations are tried first, once each, with every sampler and after whatever happens to the driver."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from coordinated import Coordinated
from made_runs import epoch_report, make_run, trial_row
from optuna.pruners import NopPruner
from optuna.trial import TrialState, create_trial

from genre_core.recipe import Recipe
from search.config.schema import SearchConfig, load
from search.cost_aware.cost import Cost
from search.engine.messages import Assignment, Decision
from search.engine.strategy import CostAwareStrategy
from search.recovery.rebuild import _enqueued, rebuild
from search.run.folder import RunFolder
from search.run.identity import new_identity
from search.study.journal import own_trials
from search.study.opening import enqueue, open_study, sampler_of, use_policy
from search.study.policy import make_policy
from search.study.samplers import SAMPLERS
from search.study.study import Study
from search.study.suggest import sample
from search.study.without_repeats import goal

pytestmark = pytest.mark.filterwarnings("error:Fixed parameter")

FIRST: list[dict[str, Any]] = [
    {"backbone": "resnet18", "learning_rate": 0.011, "momentum": 0.91, "frozen_blocks": 4},
    {"learning_rate": 0.012},
    {"backbone": "alexnet", "frozen_blocks": "all"},
    {"frozen_blocks": 0, "momentum": 0.9},
]
BASE: dict[str, Any] = {
    "space.backbone": ["resnet18", "alexnet"],
    "weights": "random",
    "training.epochs": 3,
    "trials": 12,
    "enqueue": FIRST,
}
GRID: dict[str, Any] = BASE | {
    "space.learning_rate": [0.001, 0.003, 0.01],
    "space.momentum": [0.8, 0.9],
    "space.frozen_blocks": [0, 3],
    "enqueue": [
        {"backbone": "alexnet"},
        {"backbone": "alexnet", "learning_rate": 0.003, "momentum": 0.9, "frozen_blocks": 3},
        {"momentum": 0.8, "frozen_blocks": 0},
        {"backbone": "resnet18", "learning_rate": 0.001, "momentum": 0.8, "frozen_blocks": 0},
    ],
    "trials": 100,
}
DEPTHS: dict[str, Any] = {
    "whole depth": {"low": 0, "high": "all"},
    "bounded": {"low": 0, "high": 7},
    "list": [0, 4, 5, 7],
    "of an older run": {"low": 0, "high": "all", "as_share": False},
}


def _config(folder: Path, settings: dict[str, Any]) -> SearchConfig:
    folder.mkdir(exist_ok=True)
    return load(None, settings).model_copy(update={"provenance": new_identity(folder).provenance})


def _matches(recipe: Recipe, entry: dict[str, Any]) -> bool:
    n_blocks = {"resnet18": 5, "alexnet": 7}[recipe.backbone]
    wanted = entry | ({"frozen_blocks": n_blocks} if entry.get("frozen_blocks") == "all" else {})
    return all(getattr(recipe, name) == value for name, value in wanted.items())


def _draw(study: Study, config: SearchConfig, trials: int) -> list[Recipe]:
    recipes = []
    for _ in range(trials):
        trial = study.ask()
        recipes.append(sample(trial, config))
        study.report(trial.number, epoch=1, f1=recipes[-1].learning_rate)
        study.complete(trial.number)
    return recipes


def _cost(backbone: str, depth: int) -> Cost:
    return Cost(start=0.1, epoch=1.0 + 7 - depth, switch=0.1)


def _cost_aware(folder: Path, config: SearchConfig) -> tuple[Study, CostAwareStrategy]:
    study = open_study(config, folder, name="r")
    policy = make_policy(config, cost_of=_cost, progress=None, asked=study.asked)
    use_policy(study, policy, config)
    return study, CostAwareStrategy(policy, study)


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "grid"])
def test_every_sampler_begins_with_them_and_samples_what_they_leave_out(sampler: str, tmp_path: Path) -> None:
    config = _config(tmp_path, BASE | {"sampler": sampler})
    recipes = _draw(open_study(config, tmp_path, name="r"), config, 12)
    assert all(map(_matches, recipes, FIRST))
    assert len({recipe.momentum for recipe in recipes}) > 9
    assert not any(_matches(recipe, entry) for recipe in recipes[4:] for entry in FIRST[:2])


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_depth_keeps_its_meaning_however_the_space_samples_it(depth: str, tmp_path: Path) -> None:
    entries: list[dict[str, Any]] = [
        {"backbone": "resnet18", "frozen_blocks": 4},
        {"backbone": "alexnet", "frozen_blocks": "all"},
        {"frozen_blocks": 0},
    ]
    backbone = {"space.backbone": "alexnet"} if depth in ("bounded", "list") else {}
    entries = entries[1:] if backbone else entries
    config = _config(
        tmp_path,
        BASE | backbone | {"space.frozen_blocks": DEPTHS[depth], "enqueue": entries, "sampler": "random"},
    )
    recipes = _draw(open_study(config, tmp_path, name="r"), config, len(entries))
    assert all(map(_matches, recipes, entries))


def test_a_depth_keeps_its_meaning_if_the_range_of_a_waiting_search_is_changed(tmp_path: Path) -> None:
    entries = [FIRST[0], FIRST[3], {"backbone": "resnet18", "frozen_blocks": "all"}]
    settings = BASE | {"sampler": "random", "enqueue": entries}
    open_study(
        _config(tmp_path, settings | {"space.frozen_blocks": {"low": 0, "high": 5}}), tmp_path, name="r"
    )
    wider = _config(tmp_path, settings)
    study = open_study(wider, tmp_path, name="r")
    assert study.waiting == len(entries)
    assert all(map(_matches, _draw(study, wider, len(entries)), entries))


@pytest.mark.parametrize(
    "search", [{"sampler": "grid"}, {"sampler": "tpe"}, {"search": "cost_aware"}], ids=str
)
@pytest.mark.parametrize("seed", range(4))
def test_a_finite_space_is_tried_once_with_them_first(
    search: dict[str, Any], seed: int, tmp_path: Path
) -> None:
    config = _config(tmp_path, GRID | search | {"seed": seed})
    study = _cost_aware(tmp_path, config)[0] if "search" in search else open_study(config, tmp_path, name="r")
    assert goal(config, study) == 24
    recipes = _draw(study, config, 24)
    assert all(map(_matches, recipes, GRID["enqueue"]))
    assert len(set(recipes)) == 24
    assert goal(config, study) == 24


def test_equal_configurations_are_tried_with_one_seed_each(tmp_path: Path) -> None:
    entry = GRID["enqueue"][1]
    config = _config(tmp_path, GRID | {"sampler": "grid", "repeat_seeds": 2, "enqueue": [entry, entry]})
    recipes = _draw(open_study(config, tmp_path, name="r"), config, 48)
    assert all(_matches(recipe, entry) for recipe in recipes[:2])
    assert {recipe.seed for recipe in recipes[:2]} == {0, 1}
    assert len(set(recipes)) == 48


def test_a_study_that_is_opened_again_enqueues_only_what_is_new(tmp_path: Path) -> None:
    config = _config(tmp_path, BASE | {"sampler": "random"})
    _draw(open_study(config, tmp_path, name="r"), config, 2)
    again = open_study(config, tmp_path, name="r")
    assert (again.waiting, again.asked, len(again.trials), again.ended) == (2, 2, 2, 2)
    more = [*FIRST, {"momentum": 0.7}, {"momentum": 0.7}]
    longer = load(None, BASE | {"sampler": "random", "enqueue": more}).model_copy(
        update={"provenance": config.provenance}
    )
    last = open_study(longer, tmp_path, name="r")
    assert last.waiting == 4
    assert all(map(_matches, _draw(last, longer, 4), more[2:]))
    assert open_study(longer, tmp_path, name="r").waiting == 0


def test_a_trial_whose_driver_died_before_it_was_sampled_keeps_its_configuration(tmp_path: Path) -> None:
    config = _config(tmp_path, BASE | {"sampler": "random"})
    number = open_study(config, tmp_path, name="r").ask().number
    again = open_study(config, tmp_path, name="r")
    assert again.running == (number,)
    assert _matches(sample(again.trial(number), config), FIRST[0])
    assert again.waiting == len(FIRST) - 1


def test_trials_of_an_earlier_search_are_not_taken_for_them(tmp_path: Path) -> None:
    config = _config(tmp_path, BASE | {"sampler": "random"})
    study = Study(None, name="s", sampler=sampler_of(config, asked=0), pruner=NopPruner())
    study.learn(
        create_trial(
            state=TrialState.COMPLETE,
            value=0.5,
            user_attrs={"enqueued": FIRST[0], "warm_start": ("earlier", 3)},
        )
    )
    enqueue(study, config)
    assert (study.waiting, study.asked, study.trials) == (len(FIRST), 0, [])
    assert _matches(sample(study.ask(), config), FIRST[0])


def _train(search: Coordinated, worker: str, *, until: int) -> None:
    """Let a worker do what the coordinator decides until this many trials have begun and none is left to it."""
    scores: dict[int, list[float]] = {}
    while isinstance(answer := search.coordinator.next_for(worker), Assignment):
        decision = Decision.CONTINUE
        scores.setdefault(answer.trial, [])
        while decision is Decision.CONTINUE:
            own = scores[answer.trial]
            own.append(0.1 + 0.1 * len(own))
            decision = search.coordinator.hear(
                worker, epoch_report(answer.trial, own, finished=len(own) == 3)
            )
        if search.study.asked >= until:
            return


@pytest.mark.parametrize("trials", [2, 6])
def test_a_cost_aware_search_begins_with_them_and_pauses_between(trials: int, tmp_path: Path) -> None:
    config = _config(tmp_path, BASE | {"trials": trials})
    study, strategy = _cost_aware(tmp_path, config)
    search = Coordinated(tmp_path, config, study=study, strategy=strategy, workers=1)
    _train(search, "a", until=min(trials, len(FIRST)))
    epochs = [len(trial.intermediate_values) for trial in study.trials]
    assert all(
        _matches(sample(trial, config), entry) for trial, entry in zip(study.trials, FIRST, strict=False)
    )
    assert epochs[: min(trials, 4) - 1] == [1] * (min(trials, 4) - 1), "each begins before one goes on"
    _train(search, "a", until=99)
    search.coordinator.end(interrupted=False)
    assert (study.asked, study.ended, study.waiting) == (trials, trials, max(0, len(FIRST) - trials))


def test_what_is_left_waiting_is_tried_when_the_search_is_resumed_with_more_trials(tmp_path: Path) -> None:
    for trials in (2, 5):
        config = _config(tmp_path, BASE | {"trials": trials})
        study, strategy = _cost_aware(tmp_path, config)
        search = Coordinated(tmp_path, config, study=study, strategy=strategy, workers=1)
        _train(search, "a", until=99)
        search.coordinator.end(interrupted=False)
        assert study.ended == trials
    found = Counter(
        index
        for trial in own_trials(tmp_path)
        for index, entry in enumerate(FIRST)
        if _matches(sample(trial, config), entry)
    )
    assert [found[index] >= 1 for index in range(4)] == [True] * 4
    assert found[0] == found[1] == 1
    assert open_study(config, tmp_path, name="r").waiting == 0


def test_a_lost_study_is_rebuilt_with_the_configurations_that_it_has_tried(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", settings={"enqueue": [], "trials": 6})
    rows = own_trials(run)
    first = {"backbone": rows[0].params["backbone"]}
    second = (
        first | {"learning_rate": rows[1].params["learning_rate"]} | {"backbone": rows[1].params["backbone"]}
    )
    entries = [first, second, {"learning_rate": 0.0123}]
    config = load(run / "config.yaml", {"enqueue": entries})
    RunFolder(run).journal.unlink()
    rebuild(run, config, name="r")
    study = open_study(config, run, name="r")
    assert sorted(map(str, study.enqueued)) == sorted(map(str, entries))
    assert (study.waiting, study.asked) == (1, len(rows))
    assert sample(study.ask(), config).learning_rate == 0.0123


def test_a_configuration_that_names_more_is_found_before_one_that_its_trial_also_fits() -> None:
    entries = [{"backbone": "resnet18"}, {"backbone": "resnet18", "momentum": 0.9, "frozen_blocks": "all"}]
    config = load(None, BASE | {"enqueue": entries})
    own = {"backbone": "resnet18", "n_blocks": 5, "learning_rate": 0.01}
    rows = {
        4: trial_row(4, **own, momentum=0.9, frozen_blocks=5),
        7: trial_row(7, **own, momentum=0.9, frozen_blocks=2),
    }
    found = _enqueued(config, rows)
    assert {number: attributes["enqueued"] for number, attributes in found.items()} == {
        4: entries[1],
        7: entries[0],
    }
