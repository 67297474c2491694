"""No configuration of a finite space is tried twice, or once for each seed: around any of Optuna's samplers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from search.config.grid import Configuration, Grid, grid
from search.config.schema import SearchConfig
from search.study.study import REPEAT, STOPPED, WARM_START, Study

_Tried = list[set[Configuration]]
"""For each seed, in their order, the configurations that were tried with it."""


class WithoutRepeats(BaseSampler):
    """Samples as another sampler does, but for a value that leads to nothing new: that one is drawn at random.

    Optuna samples one parameter after the other. A value is kept as long as with it, and with those before it, there
    is a configuration that was not tried; so what changes is as little as possible, and the last parameters first.
    """

    def __init__(self, sampler: BaseSampler, space: Grid, *, seeds: int, random: np.random.Generator) -> None:
        """Args: who samples, what there is, how often each may be tried, and what draws instead."""
        self._sampler = sampler
        self._grid = space
        self._seeds = seeds
        self._random = random
        self._proposed: tuple[int, dict[str, Any]] = (-1, {})

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """A new trial gets its seed: the next one when all configurations were tried with those before it."""
        self._sampler.before_trial(study, trial)
        if self._seeds > 1 and not (trial.params or trial.intermediate_values or REPEAT in trial.user_attrs):
            tried = self._tried(study, trial)
            if repeat := next((n for n, seen in enumerate(tried) if len(seen) < self._grid.size), 0):
                study._storage.set_trial_user_attr(trial._trial_id, REPEAT, repeat)
                trial.user_attrs[REPEAT] = repeat

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """What the sampler itself samples at once."""
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing: what is sampled at once is a proposal for each parameter when its turn comes."""
        self._proposed = (trial.number, self._sampler.sample_relative(study, trial, search_space))
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """What the sampler proposes, or one of the values that lead to something new."""
        number, proposed = self._proposed
        if number == trial.number and param_name in proposed:
            value = proposed[param_name]
        else:
            value = self._sampler.sample_independent(study, trial, param_name, param_distribution)
        axis = self._grid.axis(param_name, trial.params)
        tried = self._tried(study, trial)[trial.user_attrs.get(REPEAT, 0)]
        used_up = self._grid.used_up(param_name, trial.params, tried)
        if axis.place(value) not in used_up or len(used_up) == axis.count:
            return value
        place = int(self._random.integers(axis.count - len(used_up)))
        for used in sorted(used_up):  # of the others it is the one at this place
            place += used <= place
        return axis.value(place)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """The sampler's own."""
        self._sampler.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        """The sampler's own; what draws instead goes on."""
        self._sampler.reseed_rng()

    def _tried(self, study: optuna.Study, trial: FrozenTrial) -> _Tried:
        """What others tried; from the storage, since hyperband gives samplers a study of some trials only."""
        trials = study._storage.get_all_trials(study._study_id, deepcopy=False)
        return _tried([other for other in trials if other.number != trial.number], self._grid, self._seeds)


def without_repeats(sampler: BaseSampler, config: SearchConfig, *, asked: int) -> BaseSampler:
    """The sampler itself where there is no end of configurations.

    Args:
        sampler: any of Optuna's.
        config: of the search.
        asked: trials that the study has already, so that what is drawn is not drawn again.
    """
    if (space := grid(config.space)) is None:
        return sampler
    random = np.random.default_rng([config.seed, asked])
    return WithoutRepeats(sampler, space, seeds=config.repeat_seeds, random=random)


def goal(config: SearchConfig, study: Study) -> int:
    """How many trials the search comes to: as many as are wanted, or as there is something to try with."""
    if (space := grid(config.space)) is None:
        return config.trials
    tried = _tried(study.trials, space, config.repeat_seeds)
    left = config.repeat_seeds * space.size - sum(len(seen) for seen in tried)
    return min(config.trials, study.asked + left)


def used_up(config: SearchConfig) -> str:
    """That every configuration of a finite space was tried, and what to do for more trials."""
    space, seeds = grid(config.space), config.repeat_seeds
    assert space is not None, "an endless space is never used up"
    what = f"All {space.size} configurations" if space.size > 1 else "The only configuration"
    times = f", with {seeds} seeds each" if seeds > 1 else ""
    return (
        f"{what} of the search space ha{'ve' if space.size > 1 else 's'} been tried{times}; for more trials widen "
        f"`space`, or repeat with other seeds: --repeat-seeds {seeds + 1}"
    )


def _tried(trials: Sequence[FrozenTrial], space: Grid, seeds: int) -> _Tried:
    """A trial of another search counts not, nor one that the time budget cut off: it may be tried to its end."""
    tried: _Tried = [set() for _ in range(seeds)]
    for trial in trials:
        repeat = trial.user_attrs.get(REPEAT, 0)
        own = WARM_START not in trial.user_attrs and STOPPED not in trial.user_attrs
        if own and repeat < seeds and (found := space.configuration(trial.params)):
            tried[repeat].add(found)
    return tried
