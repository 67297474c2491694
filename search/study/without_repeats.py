"""Wraps a sampler so that no configuration of a finite space is tried twice, or twice with the same seed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from search.config.grid import Configuration, Grid, grid
from search.config.schema import SearchConfig
from search.study.optuna_internals import all_trials, fixed_parameters, set_user_attr
from search.study.study import CHECKPOINT_BUDGET, REPEAT, WARM_START, Study, stopped_by

_Tried = list[set[Configuration]]
"""The configurations that were tried, by the index of the seed."""


class WithoutRepeats(BaseSampler):
    """Samples as another sampler does, but replaces values that lead only to configurations tried before.

    Optuna samples one parameter after the other. A value is kept as long as, together with the values before it, some
    configuration is left to try; otherwise it is replaced at random. So as little as possible changes, and the last
    parameters first.
    """

    def __init__(self, sampler: BaseSampler, space: Grid, *, seeds: int, random: np.random.Generator) -> None:
        """Wrap a sampler.

        Args:
            sampler: the sampler to wrap.
            space: the configurations.
            seeds: number of seeds with which each configuration may be tried.
            random: draws the replacements.
        """
        self._sampler = sampler
        self._grid = space
        self._seeds = seeds
        self._random = random
        self._proposed: tuple[int, dict[str, Any]] = (-1, {})

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Choose the seed of a new trial: the first one with which some configuration was not tried yet."""
        self._sampler.before_trial(study, trial)
        if self._seeds > 1 and not (trial.params or trial.intermediate_values or REPEAT in trial.user_attrs):
            tried, fixed = self._tried(study, trial), fixed_parameters(trial)
            if repeat := next((n for n, seen in enumerate(tried) if self._grid.untried(seen, fixed)), 0):
                set_user_attr(study, trial, REPEAT, repeat)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The wrapped sampler's."""
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return nothing, but keep the wrapped sampler's values as proposals for `sample_independent`."""
        self._proposed = (trial.number, self._sampler.sample_relative(study, trial, search_space))
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The wrapped sampler's value, or a random one of those with untried configurations."""
        number, proposed = self._proposed
        if number == trial.number and param_name in proposed:
            value = proposed[param_name]
        else:
            value = self._sampler.sample_independent(study, trial, param_name, param_distribution)
        axis = self._grid.axis(param_name, trial.params)
        tried = self._tried(study, trial)[trial.user_attrs.get(REPEAT, 0)]
        fixed = fixed_parameters(trial)
        exhausted = self._grid.exhausted(param_name, trial.params, tried, fixed=fixed)
        if axis.index(value) not in exhausted or len(exhausted) == axis.count:
            return value
        index = int(self._random.integers(axis.count - len(exhausted)))
        for tried_index in sorted(
            exhausted
        ):  # turns the index among untried values into one among all values
            index += tried_index <= index
        return axis.value(index)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """The wrapped sampler's."""
        self._sampler.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        """Reseed the wrapped sampler; the generator of replacements is kept."""
        self._sampler.reseed_rng()

    def _tried(self, study: optuna.Study, trial: FrozenTrial) -> _Tried:
        """The configurations of the other trials."""
        others = [other for other in all_trials(study) if other.number != trial.number]
        return _tried(others, self._grid, self._seeds)


def without_repeats(sampler: BaseSampler, config: SearchConfig, *, asked: int) -> BaseSampler:
    """Wrap the sampler if the search space is finite; otherwise return it unchanged.

    Args:
        sampler: one of Optuna's samplers.
        config: the configuration of the search.
        asked: number of trials that the study already has, which changes the seed of replacements.
    """
    if (space := grid(config.space)) is None:
        return sampler
    random = np.random.default_rng([config.seed, asked])
    return WithoutRepeats(sampler, space, seeds=config.repeat_seeds, random=random)


def goal(config: SearchConfig, study: Study) -> int:
    """The number of trials that the search will have: `config.trials`, or fewer if the space is exhausted before."""
    if (space := grid(config.space)) is None:
        return config.trials
    tried = _tried(study.trials, space, config.repeat_seeds)
    left = config.repeat_seeds * space.size - sum(len(seen) for seen in tried)
    return min(config.trials, study.asked + left)


def used_up(config: SearchConfig) -> str:
    """The message that every configuration of a finite space has been tried, and how to get more trials."""
    space, seeds = grid(config.space), config.repeat_seeds
    assert space is not None, "an infinite space is never used up"
    what = f"All {space.size} configurations" if space.size > 1 else "The only configuration"
    times = f", with {seeds} seeds each" if seeds > 1 else ""
    return (
        f"{what} of the search space ha{'ve' if space.size > 1 else 's'} been tried{times}; for more trials, widen "
        f"`space` or repeat them with other seeds: --repeat-seeds {seeds + 1}"
    )


def _tried(trials: Sequence[FrozenTrial], space: Grid, seeds: int) -> _Tried:
    """The configurations tried with each seed.

    Counted are enqueued trials that have not begun, if they have no parameter that will be sampled. Not counted are
    trials of earlier searches, and running trials that a budget stopped: those may be tried again.
    """
    tried: _Tried = [set() for _ in range(seeds)]
    for trial in trials:
        repeat = trial.user_attrs.get(REPEAT, 0)
        counts = WARM_START not in trial.user_attrs and stopped_by(trial) in (None, CHECKPOINT_BUDGET)
        if (
            counts
            and repeat < seeds
            and (found := space.configuration({**fixed_parameters(trial), **trial.params}))
        ):
            tried[repeat].add(found)
    return tried
