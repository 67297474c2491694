"""The whole frozen depth is one parameter that every sampler models; studies of earlier versions keep their own."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import named
from coordinated import Coordinated
from invariants import check
from made_runs import make_run, without_setting
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from genre_core.recipe import Recipe
from search.config.schema import SearchConfig, load
from search.config.space import FROZEN_SHARE, depth_in
from search.recovery.rebuild import rebuild
from search.recovery.reconcile import reconcile
from search.recovery.unclaimed import Unclaimed
from search.run.tables import ResultsWriter, read_trials
from search.study.journal import own_trials
from search.study.opening import open_study, sampler_of
from search.study.samplers import make_sampler
from search.study.suggest import sample

TWO = {"space.backbone": ["resnet18", "alexnet"]}
OF_EARLIER_VERSIONS = {"space.frozen_blocks": {"low": 0, "high": "all", "as_share": False}}
PER_BACKBONE = {"frozen_blocks_resnet18", "frozen_blocks_alexnet"}


def _depth_parameters(trials: Collection[FrozenTrial]) -> set[str]:
    return {name for trial in trials for name in trial.params if name.startswith("frozen")}


def _scored(config: SearchConfig, n: int, *, sampler: BaseSampler | None = None) -> optuna.Study:
    """A study with trials whose F1 is best at half the depth and a learning rate of 0.01."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize", sampler=sampler or optuna.samplers.RandomSampler(seed=0)
    )
    for _ in range(n):
        recipe = sample(trial := study.ask(), config)
        study.tell(trial, -abs(recipe.frozen_blocks - 3) - abs(recipe.learning_rate - 0.01))
    return study


@pytest.mark.parametrize(
    ("frozen_blocks", "parameters"),
    [
        ({"low": 0, "high": "all"}, {FROZEN_SHARE}),
        ({"low": 0, "high": 3}, PER_BACKBONE),
        ({"low": 1, "high": "all"}, PER_BACKBONE),
        ([0, 2, 5], PER_BACKBONE),
        (3, set()),
    ],
    ids=named,
)
def test_only_the_whole_depth_is_one_parameter(frozen_blocks: Any, parameters: set[str]) -> None:
    config = load(None, TWO | {"space.frozen_blocks": frozen_blocks})
    study = _scored(config, 12)
    assert _depth_parameters(study.trials) == parameters
    for trial in study.trials:
        assert trial.params["backbone"] in ("resnet18", "alexnet")
        read_back = sample(trial, config)
        assert read_back.frozen_blocks == (depth_in(trial.params, read_back.backbone) if parameters else 3)


def test_random_search_draws_the_same_trials_as_earlier_versions() -> None:
    """A share is drawn with the same random number as the depth was, so the depths are as uniform as before."""

    def recipes(config: SearchConfig) -> list[Recipe]:
        return [sample(trial, config) for trial in _scored(config, 60).trials]

    drawn = recipes(load(None, {}))
    assert drawn == recipes(load(None, OF_EARLIER_VERSIONS))
    assert len({(recipe.backbone, recipe.frozen_blocks) for recipe in drawn}) > 20


class _Noting(BaseSampler):
    """Passes every call on, and notes which parameters are sampled independently and which together."""

    def __init__(self, sampler: BaseSampler) -> None:
        self._sampler = sampler
        self.together: list[set[str]] = []
        self.alone: list[str] = []

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, Any]
    ) -> dict[str, Any]:
        drawn = self._sampler.sample_relative(study, trial, search_space)
        self.together.append(set(drawn))
        return drawn

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        self.alone.append(param_name)
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)


def _noted(config: SearchConfig, known: optuna.Study, n: int = 2) -> _Noting:
    """What the sampler of a configuration does after the trials of another study."""
    noting = _Noting(sampler_of(config, asked=0))
    study = optuna.create_study(direction="maximize", sampler=noting)
    study.add_trials(known.trials)
    for _ in range(n):
        sample(study.ask(), config)
    return noting


NUMBERS = {FROZEN_SHARE, "learning_rate", "momentum"}


@pytest.mark.parametrize(
    ("sampler", "together"),
    [("tpe", NUMBERS | {"backbone"}), ("gp", NUMBERS | {"backbone"}), ("cmaes", NUMBERS)],
)
def test_a_sampler_models_the_whole_depth_together_with_the_other_parameters(
    sampler: str, together: set[str]
) -> None:
    config = load(None, TWO | {"sampler": sampler})
    noting = _noted(config, _scored(config, 12))
    assert noting.together == [together, together]
    assert set(noting.alone) == {"backbone"} - together, "CMA-ES has no categorical parameters"


@pytest.mark.parametrize("sampler", ["gp", "cmaes"])
def test_these_samplers_do_not_model_a_bounded_depth_of_several_backbones(sampler: str) -> None:
    config = load(None, TWO | {"sampler": sampler, "space.frozen_blocks": {"low": 1, "high": "all"}})
    noting = _noted(config, _scored(config, 12))
    assert not any(PER_BACKBONE & drawn for drawn in noting.together)
    assert PER_BACKBONE & set(noting.alone)


@pytest.mark.parametrize(
    ("frozen_blocks", "together"),
    [
        ({"low": 1, "high": "all"}, {"backbone", "learning_rate", "momentum"} | PER_BACKBONE),
        ([0, 2, 5], {"backbone", "learning_rate", "momentum"} | PER_BACKBONE),
        ({"low": 0, "high": "all"}, NUMBERS | {"backbone"}),
    ],
    ids=named,
)
def test_tpe_models_conditional_parameters_in_groups(frozen_blocks: Any, together: set[str]) -> None:
    config = load(None, TWO | {"sampler": "tpe", "space.frozen_blocks": frozen_blocks})
    noting = _noted(config, _scored(config, 12))
    assert (noting.together, noting.alone) == ([together, together], [])


def test_groups_change_nothing_where_the_space_is_not_conditional() -> None:
    config = load(None, TWO)
    drawn = [
        _scored(config, 20, sampler=make_sampler("tpe", {}, seed=0, conditional=grouped))
        for grouped in (False, True)
    ]
    assert [trial.params for trial in drawn[0].trials] == [trial.params for trial in drawn[1].trials]


@pytest.mark.parametrize("given", [{"group": True}, {"group": False}])
def test_the_groups_of_the_configuration_take_precedence(given: dict[str, bool]) -> None:
    config = load(
        None,
        TWO | {"sampler": {"name": "tpe"} | given, "space.frozen_blocks": {"low": 1, "high": "all"}},
    )
    noting = _noted(config, _scored(config, 12))
    assert any(PER_BACKBONE & drawn for drawn in noting.together) == given["group"]


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A run of a version without the setting `as_share`; its last trial is running."""
    run = make_run(tmp_path / "older", running=True, settings=OF_EARLIER_VERSIONS | {"trials": 20})
    without_setting(run)
    return run


def test_a_run_of_an_earlier_version_is_resumed_with_its_parameters(older: Path) -> None:
    config = load(older / "config.yaml", {})
    study = open_study(config, older, name=older.name)
    before = {trial.number: trial.params for trial in study.trials}
    resumed = Coordinated(older, config, study=study, workers=8)
    given = [resumed.assign(worker) for worker in "abcdef"]
    assert {trial.number: trial.params for trial in study.trials}.items() >= before.items()
    assert given[0].trial == 2, "the running trial"
    assert _depth_parameters(study.trials) == PER_BACKBONE
    assert load(older / "config.yaml", {}) == config, "config.yaml was written again"


def test_a_run_of_an_earlier_version_without_trials_has_a_parameter_per_backbone_too(older: Path) -> None:
    config = load(older / "config.yaml", {})
    (older / "study.journal").unlink()
    study = open_study(config, older, name=older.name)
    sample(study.ask(), config)
    assert _depth_parameters(study.trials) < PER_BACKBONE


@pytest.mark.parametrize(("settings", "names"), [(OF_EARLIER_VERSIONS, PER_BACKBONE), ({}, {FROZEN_SHARE})])
def test_a_lost_study_is_rebuilt_with_its_parameters_and_agrees_with_the_tables(
    settings: dict[str, Any], names: set[str], tmp_path: Path
) -> None:
    run = make_run(tmp_path / "r", [[0.5, 0.6, 0.7]] * 6, settings=settings)
    config, rows, lost = load(run / "config.yaml", {}), read_trials(run), own_trials(run)
    recipes = [sample(trial, config) for trial in lost]
    (run / "study.journal").unlink()
    assert rebuild(run, config, name="r") == 6
    assert [sample(trial, config) for trial in own_trials(run)] == recipes
    assert _depth_parameters(own_trials(run)) == names
    unclaimed = Unclaimed(run)
    study = open_study(config, run, name="r")
    again = reconcile(run, config, study, ResultsWriter(run), unclaimed)
    assert unclaimed.message is None
    assert [row.frozen_blocks for row in again] == rows["frozen_blocks"].tolist()
    assert [row.val_f1 for row in again] == rows["val_f1"].tolist()
    check(run, trials=6, keep_models=6)
