"""Optuna's samplers by name."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler

from search.study.construct import construct

SAMPLERS: dict[str, type[BaseSampler]] = {
    "tpe": optuna.samplers.TPESampler,
    "random": optuna.samplers.RandomSampler,
    "grid": optuna.samplers.RandomSampler,  # in a finite space, `WithoutRepeats` makes it a grid in random order
    "qmc": optuna.samplers.QMCSampler,
    "gp": optuna.samplers.GPSampler,
    "cmaes": optuna.samplers.CmaEsSampler,
}

# Where the depth is not sampled as a share, its parameter depends on the sampled backbone. The samplers draw such a
# parameter independently and would warn every time.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "tpe": {"multivariate": True},
    "qmc": {"warn_independent_sampling": False, "warn_asynchronous_seeding": False},
    "gp": {"warn_independent_sampling": False},
    "cmaes": {"warn_independent_sampling": False},
}
# With group=True, TPE also models parameters that only some trials have, separately from those that all trials have. If
# all trials have the same parameters, there is one group and the option has no effect.
_CONDITIONAL_DEFAULTS: dict[str, dict[str, Any]] = {"tpe": {"group": True}}


def make_sampler(
    name: str, parameters: Mapping[str, Any], *, seed: int, asked: int = 0, conditional: bool = False
) -> BaseSampler:
    """Create one of Optuna's samplers.

    Args:
        name: a key of SAMPLERS.
        parameters: arguments of Optuna's class.
        seed: the seed of the search.
        asked: number of trials that the study already has. It changes the seed, since the same seed would draw the
            same trials again. `qmc` continues its sequence by itself, but not its independent samples.
        conditional: whether which parameters are sampled depends on the values of others.

    Raises:
        InputError: unknown sampler, or parameters that it does not take.
    """
    fresh = int(np.random.SeedSequence([seed, asked]).generate_state(1)[0]) if asked else seed
    conditional_defaults = _CONDITIONAL_DEFAULTS.get(name, {}) if conditional else {}
    given = {"seed": fresh, **_DEFAULTS.get(name, {}), **conditional_defaults, **parameters}
    if name == "qmc" and asked:
        given = {"independent_sampler": optuna.samplers.RandomSampler(seed=fresh)} | given | {"seed": seed}
    return construct("sampler", name, SAMPLERS, given)
