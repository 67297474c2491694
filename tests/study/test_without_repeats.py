"""A finite space: every configuration is tried once, with any sampler, and then the search is over."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from coordinated import Coordinated
from made_runs import epoch_report, resume

from genre_core.models.registry import block_names
from genre_core.recipe import Recipe
from search.config.grid import continuous, grid
from search.config.schema import SearchConfig, load, to_yaml
from search.engine.messages import Assignment, Failure, Finished, Lost, Wait
from search.engine.recorder import Recorder
from search.evaluate.finish import _best
from search.recovery.rebuild import rebuild
from search.report import winner
from search.run.identity import new_identity
from search.run.schemas import new_trial
from search.run.tables import ResultsWriter, read_trials
from search.study.opening import open_study
from search.study.pruners import PRUNERS, make_pruner
from search.study.samplers import SAMPLERS, make_sampler
from search.study.study import TIME_BUDGET, Study
from search.study.suggest import sample
from search.study.without_repeats import goal, without_repeats

pytestmark = pytest.mark.filterwarnings("ignore:The distribution is specified by")
"""Optuna's warning about a range that is not a multiple of its step."""

FIXED: dict[str, Any] = {
    "space.backbone": "resnet18",
    "space.learning_rate": 0.01,
    "space.momentum": 0.9,
    "space.frozen_blocks": 2,
}
PARAMETERS: dict[str, dict[str, Any]] = {"percentile": {"percentile": 25.0}, "patient": {"patience": 1}}
SPACES: dict[str, tuple[dict[str, Any], int]] = {
    "all fixed": ({}, 1),
    "one list": ({"space.learning_rate": [0.001, 0.003, 0.01]}, 3),
    "a value twice": ({"space.learning_rate": [0.001, 0.001, 0.01]}, 2),
    "a backbone in a list": ({"space.backbone": ["resnet18"], "space.nesterov": [True, False]}, 2),
    "conditional depths": (
        {"space.backbone": ["alexnet", "vgg16"], "space.frozen_blocks": {"low": 5, "high": "all"}},
        (len(block_names("alexnet")) - 4) + (len(block_names("vgg16")) - 4),
    ),
    "whole depths": (
        {"space.backbone": ["alexnet", "resnet18"], "space.frozen_blocks": {"low": 0, "high": "all"}},
        len(block_names("alexnet")) + 1 + len(block_names("resnet18")) + 1,
    ),
    "whole depths and learning rates": (
        {
            "space.backbone": ["densenet121", "resnet18"],
            "space.learning_rate": [0.001, 0.01],
            "space.frozen_blocks": {"low": 0, "high": "all"},
        },
        2 * (2 * 6),
    ),
    "a depth without a choice": (
        {"space.frozen_blocks": {"low": 5, "high": "all"}, "space.batch_size": [8, 16]},
        2,
    ),
    "whole numbers": ({"space.batch_size": {"low": 8, "high": 20, "step": 5}}, 3),
    "whole numbers, log": ({"space.batch_size": {"low": 8, "high": 12, "log": True}}, 5),
    "steps that floats miss": ({"space.masking": {"low": 0.1, "high": 0.75, "step": 0.1}}, 7),
    "optimizers": ({"space.optimizer": ["sgd", "adamw"], "space.momentum": [0.8, 0.9]}, 4),
    "several": (
        {
            "space.backbone": ["resnet18", "alexnet"],
            "space.learning_rate": [0.001, 0.01],
            "space.nesterov": [True, False],
            "space.frozen_blocks": [0, 3],
        },
        16,
    ),
}


def _config(**changes: Any) -> SearchConfig:
    return load(None, FIXED | {"sampler": "random", "trials": 1000} | changes)


def _space(name: str, **changes: Any) -> tuple[SearchConfig, int]:
    settings, size = SPACES[name]
    return _config(**settings, **changes), size


def _study(folder: Path, config: SearchConfig, *, pruner: str = "none", asked: int = 0) -> Study:
    assert config.sampler
    sampler = make_sampler(config.sampler.name, config.sampler.parameters, seed=config.seed, asked=asked)
    return Study(
        folder / "study.journal",
        name="s",
        sampler=without_repeats(sampler, config, asked=asked),
        pruner=make_pruner(pruner, PARAMETERS.get(pruner, {}), epochs=3),
    )


def _recipes(study: Study, config: SearchConfig, *, most: int = 1000) -> Iterator[Recipe]:
    """Sample and score trials until the search is over."""
    for _ in range(most):
        if study.asked >= goal(config, study):
            return
        trial = study.ask()
        yield (recipe := sample(trial, config))
        study.report(trial.number, epoch=1, f1=recipe.learning_rate + recipe.batch_size / 1000)
        study.complete(trial.number)


@pytest.mark.parametrize("name", SPACES)
def test_each_configuration_is_sampled_once_and_then_the_search_is_over(name: str, tmp_path: Path) -> None:
    config, size = _space(name)
    drawn = list(_recipes(_study(tmp_path, config), config))
    assert len(drawn) == len(set(drawn)) == size
    assert {recipe.seed for recipe in drawn} == {config.seed}


@pytest.mark.parametrize("name", ["several", "whole depths"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_configuration_is_sampled_with_any_sampler(sampler: str, name: str, tmp_path: Path) -> None:
    config, size = _space(name, sampler=sampler)
    assert len(set(_recipes(_study(tmp_path, config), config))) == size


@pytest.mark.parametrize("pruner", PRUNERS)
def test_every_configuration_is_sampled_with_any_pruner(pruner: str, tmp_path: Path) -> None:
    """With hyperband, the study that a sampler gets hides the trials of other brackets."""
    config, size = _space("several", sampler="tpe")
    assert len(set(_recipes(_study(tmp_path, config, pruner=pruner), config))) == size


def _repeating(journal: Path) -> Study:
    """A study whose sampler may repeat a configuration."""
    sampler, pruner = make_sampler("random", {}, seed=0), make_pruner("none", {}, epochs=3)
    return Study(journal, name="s", sampler=sampler, pruner=pruner)


def test_a_new_configuration_is_kept_as_the_sampler_proposes_it(tmp_path: Path) -> None:
    config, _ = _space("several")
    bare = _repeating(tmp_path / "bare.journal")
    plain = [sample(bare.ask(), config) for _ in range(6)]
    first_repeat = next((n for n in range(6) if plain[n] in plain[:n]), 6)
    assert first_repeat > 2, "otherwise this seed proves nothing"
    assert list(_recipes(_study(tmp_path, config), config, most=first_repeat)) == plain[:first_repeat]


def test_the_sampler_of_an_infinite_space_is_not_wrapped() -> None:
    config = _config(**{"space.momentum": {"low": 0.5, "high": 0.9}})
    sampler = make_sampler("tpe", {}, seed=0)
    assert without_repeats(sampler, config, asked=0) is sampler
    assert (grid(config.space), continuous(config.space)) == (None, "momentum")


def test_running_trials_and_trials_of_a_resumed_search_do_not_repeat_each_other(tmp_path: Path) -> None:
    config, size = _space("several")
    study = _study(tmp_path, config)
    drawn = [sample(study.ask(), config) for _ in range(3)]
    study.fail(0, "diverged")
    study.prune(1)
    again = _study(tmp_path, config, asked=3)
    assert sample(again.trial(2), config) == drawn[2]
    drawn += list(_recipes(again, config))
    assert len(drawn) == len(set(drawn)) == size, (
        "neither the failed nor the pruned configuration is tried again"
    )


def test_a_trial_partly_sampled_when_the_driver_died_becomes_a_new_configuration(
    tmp_path: Path,
) -> None:
    config, size = _space("several")
    study = _study(tmp_path, config)
    drawn = list(_recipes(study, config, most=size - 1))
    half = study.ask().suggest_categorical("backbone", ["resnet18", "alexnet"])
    again = _study(tmp_path, config, asked=size)
    drawn.append(sample(again.trial(size - 1), config))
    assert drawn[-1].backbone == half
    assert len(set(drawn)) == size


def test_a_configuration_stopped_by_the_time_budget_may_be_tried_again(tmp_path: Path) -> None:
    config, size = _space("one list")
    study = _study(tmp_path, config)
    cut_off = sample(study.ask(), config)
    study.stop(0, TIME_BUDGET)
    assert goal(config, study) == size + 1
    drawn = list(_recipes(study, config))
    assert cut_off in drawn
    assert len(set(drawn)) == len(drawn) == size


def test_repeated_trials_of_an_earlier_version_count_once(tmp_path: Path) -> None:
    config, size = _space("one list")
    old = _repeating(tmp_path / "study.journal")
    seen = list(_recipes(old, _config(**SPACES["one list"][0], trials=4)))
    while len(seen) < 4:
        seen.append(sample(trial := old.ask(), config))
        old.complete(trial.number) if old.knows(trial.number, 1) else old.fail(trial.number, "x")
    study = _study(tmp_path, config, asked=4)
    assert goal(config, study) == 4 + size - len(set(seen))
    assert set(seen) | set(_recipes(study, config)) == {
        replace(seen[0], learning_rate=rate) for rate in (0.001, 0.003, 0.01)
    }


@pytest.mark.parametrize("name", ["all fixed", "one list", "conditional depths", "whole depths"])
def test_with_repeat_seeds_every_configuration_is_tried_with_one_seed_after_the_other(
    name: str, tmp_path: Path
) -> None:
    config, size = _space(name, repeat_seeds=3, seed=5)
    study = _study(tmp_path, config)
    drawn = list(_recipes(study, config))
    assert len(drawn) == len(set(drawn)) == 3 * size
    assert [recipe.seed for recipe in drawn] == [5] * size + [6] * size + [7] * size
    assert set(Counter(replace(recipe, seed=0) for recipe in drawn).values()) == {3}
    assert [sample(trial, config) for trial in study.trials] == drawn, "the seeds are stored in the study"
    more = config.model_copy(update={"repeat_seeds": 4})
    assert {recipe.seed for recipe in _recipes(_study(tmp_path, more, asked=3 * size), more)} == {8}


def test_a_trial_keeps_its_seed_when_the_driver_dies(tmp_path: Path) -> None:
    config, size = _space("one list", repeat_seeds=2)
    study = _study(tmp_path, config)
    list(_recipes(study, config, most=size))
    recipe = sample(study.ask(), config)
    again = _study(tmp_path, config, asked=size + 1)
    assert (sample(again.trial(size), config), recipe.seed) == (recipe, 1)


@pytest.mark.parametrize(
    "before", [{"low": 0, "high": 3}, [0, 2], {"low": 0, "high": "all", "as_share": False}]
)
def test_depths_that_were_tried_are_not_repeated_when_the_range_becomes_the_whole_depth(
    before: Any, tmp_path: Path
) -> None:
    config, size = _space("whole depths")
    old = _config(**SPACES["whole depths"][0] | {"space.frozen_blocks": before, "trials": 3})
    drawn = list(_recipes(_study(tmp_path, old), old))
    assert len(drawn) == 3
    drawn += _recipes(_study(tmp_path, config, asked=3), config)
    assert len(drawn) == len(set(drawn)) == size


def test_a_huge_space_is_counted_without_listing_it(tmp_path: Path) -> None:
    config = _config(
        **{
            "space.batch_size": {"low": 2, "high": 2**32 - 1},
            "space.masking": {"low": 0.0, "high": 0.9, "step": 1e-9},
        }
    )
    space = grid(config.space)
    assert space is not None
    assert space.size == (2**32 - 2) * (9 * 10**8 + 1)
    assert len(set(_recipes(_study(tmp_path, config), config, most=5))) == 5


@pytest.mark.parametrize("step", [0.1, 0.05, 0.3, 1e-3])
def test_every_step_has_the_value_that_optuna_samples(step: float, tmp_path: Path) -> None:
    config = _config(**{"space.masking": {"low": 0.1, "high": 0.85, "step": step}})
    space = grid(config.space)
    assert space is not None
    axis = space.axis("masking", {})
    values = [axis.value(index) for index in range(axis.count)]
    assert [axis.index(value) for value in values] == list(range(axis.count))
    assert values[-1] <= 0.85 < values[-1] + step
    drawn = [recipe.masking for recipe in _recipes(_study(tmp_path, config), config, most=10)]
    places = [axis.index(value) for value in drawn]
    assert drawn == pytest.approx([values[place] for place in places if place is not None])
    assert len(set(places)) == len(places)


def test_a_search_is_finished_when_the_space_is_exhausted(tmp_path: Path) -> None:
    config, size = _space("one list")
    search = Coordinated(tmp_path, config, study=_study(tmp_path, config), retries=1)
    given = [search.assign(worker) for worker in "ab"]
    search.coordinator.hear("a", Failure(reason="Diverged"))
    given.append(search.assign("a"))
    assert len({assignment.recipe.learning_rate for assignment in given}) == size
    search.coordinator.hear("b", Failure(reason="Diverged"))
    assert isinstance(search.coordinator.next_for("b"), Wait), "the last trial may lose its worker"
    search.coordinator.lost("a", Lost(reason="killed"))
    assert search.assign("b").recipe == given[-1].recipe
    search.coordinator.hear("b", Failure(reason="Diverged"))
    assert isinstance(search.coordinator.next_for("b"), Finished)


def test_finish_takes_a_configuration_once_however_many_seeds_it_was_tried_with(tmp_path: Path) -> None:
    config, _ = _space("one list", repeat_seeds=2)
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    writer = ResultsWriter(tmp_path)
    for number, (seed, rate) in enumerate(product((0, 1), (0.001, 0.003, 0.01))):
        recipe = replace(next(_recipes(_study(tmp_path, config), config)), learning_rate=rate, seed=seed)
        begun = new_trial("s", number, recipe, started=datetime.now(UTC))
        writer.put_trial(replace(begun, state="COMPLETE", val_f1=number / 10, best_epoch=1))
    writer.flush()
    best = _best(tmp_path)
    assert [model.trial for model in best] == [5, 4, 3]
    assert {model.recipe.seed for model in best} == {1}
    repeated = winner.winner_config(tmp_path, winner.best_row(tmp_path))
    assert (repeated.seed, repeated.trials, repeated.space.learning_rate) == (1, 1, 0.01)


def test_a_study_rebuilt_from_the_tables_has_the_seeds(tmp_path: Path) -> None:
    config, size = _space("one list", repeat_seeds=2, seed=3)
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    study, writer = _study(tmp_path, config), ResultsWriter(tmp_path)
    recorder = Recorder(study, writer, name="s", show=lambda row: None)
    for number in range(size + 1):
        recorder.begin(number, sample(study.ask(), config))
        study.fail(number, "diverged")
        recorder.changed(number)
    writer.flush()
    (tmp_path / "study.journal").unlink()
    assert rebuild(tmp_path, config, name="s") == size + 1
    again = _study(tmp_path, config, asked=size + 1)
    assert [sample(trial, config).seed for trial in again.trials] == [3] * size + [4]
    assert goal(config, again) == 2 * size


def test_resuming_an_exhausted_search_says_so_and_how_to_get_more_trials(tmp_path: Path) -> None:
    config, size = _space("one list", weights="random")
    config = config.model_copy(update={"provenance": new_identity(tmp_path).provenance})
    search = Coordinated(tmp_path, config, study=open_study(config, tmp_path, name=tmp_path.name))
    while isinstance(assignment := search.coordinator.next_for("a"), Assignment):
        search.coordinator.hear("a", epoch_report(assignment.trial, [0.5], finished=True))
    search.coordinator.end(interrupted=False)
    assert len(read_trials(tmp_path)) == size
    (line,) = resume(tmp_path)
    assert f"{size} configurations" in line
    assert "--repeat-seeds 2" in line
    (line,) = resume(tmp_path, trials=size)
    assert "--trials" in line, "all trials have ended, though the space is exhausted too"
