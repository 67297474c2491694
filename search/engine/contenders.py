"""The searches that a replay compares, by name."""

from collections.abc import Callable
from dataclasses import dataclass

from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from search.config.schema import Optuna
from search.study.pruners import make_pruner
from search.study.samplers import make_sampler

AS_RECORDED = "as_recorded"
"""Replays the trials in the order in which they were recorded, each to its recorded end."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A way to search."""

    name: str
    sampler: Callable[[int], BaseSampler | None]
    """Makes the sampler for a seed; None stands for the order in which the trials were recorded."""
    pruner: Callable[[int], BasePruner]
    """Makes the pruner for a maximum number of epochs."""


def of_optuna(sampler: Optuna, pruner: Optuna) -> Contender:
    """A search with one of Optuna's samplers and pruners."""
    return Contender(
        name=f"optuna_{sampler.name}_{pruner.name}",
        sampler=lambda seed: make_sampler(sampler.name, sampler.parameters, seed=seed),
        pruner=lambda epochs: make_pruner(pruner.name, pruner.parameters, epochs=epochs),
    )


def _named(name: str, sampler: str, pruner: str) -> Contender:
    own = of_optuna(Optuna(name=sampler), Optuna(name=pruner))
    return Contender(name=name, sampler=own.sampler, pruner=own.pruner)


CONTENDERS = {
    contender.name: contender
    for contender in (
        _named("optuna_tpe_median", "tpe", "median"),
        _named("optuna_tpe_hyperband", "tpe", "hyperband"),
        _named("optuna_gp_median", "gp", "median"),
        _named("random", "random", "none"),
        _named("random_asha", "random", "successive_halving"),
        Contender(
            name=AS_RECORDED,
            sampler=lambda seed: None,
            pruner=lambda epochs: make_pruner("none", {}, epochs=epochs),
        ),
    )
}
