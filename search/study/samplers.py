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
    "qmc": optuna.samplers.QMCSampler,
    "gp": optuna.samplers.GPSampler,
    "cmaes": optuna.samplers.CmaEsSampler,
}

# The range of the frozen depth depends on the sampled backbone, so the space is conditional. With group=True, TPE
# models each branch separately; the others sample conditional parameters independently and would warn every time.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "tpe": {"group": True, "multivariate": True},
    "qmc": {"warn_independent_sampling": False, "warn_asynchronous_seeding": False},
    "gp": {"warn_independent_sampling": False},
    "cmaes": {"warn_independent_sampling": False},
}


def make_sampler(name: str, parameters: Mapping[str, Any], *, seed: int, asked: int = 0) -> BaseSampler:
    """Create one of Optuna's samplers.

    Args:
        name: a key of SAMPLERS.
        parameters: arguments of Optuna's class.
        seed: the seed of the search.
        asked: number of trials that the study already has. It changes the seed, since the same seed would draw the
            same trials again. `qmc` continues its sequence by itself, but not its independent samples.

    Raises:
        InputError: unknown sampler, or parameters that it does not take.
    """
    fresh = int(np.random.SeedSequence([seed, asked]).generate_state(1)[0]) if asked else seed
    given = {"seed": fresh, **_DEFAULTS.get(name, {}), **parameters}
    if name == "qmc" and asked:
        given = {"independent_sampler": optuna.samplers.RandomSampler(seed=fresh)} | given | {"seed": seed}
    return construct("sampler", name, SAMPLERS, given)
