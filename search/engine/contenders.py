"""The searches that a replay compares, by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from genre_core.models.registry import block_names
from search.config.schema import Optuna
from search.config.space import FROZEN_SHARE, blocks_of
from search.cost_aware.cost import Cost
from search.cost_aware.policy import FreezeThaw, Settings
from search.cost_aware.pruner import CostAwarePruner
from search.cost_aware.sampler import CostAwareSampler
from search.cost_aware.space import draw_from
from search.engine.baselines import AtEpochs, OneEpochThenBest, Promotion, Scores, rungs
from search.engine.costs import Costs
from search.engine.pool_sampler import BACKBONE, Deck
from search.engine.ports import Strategy
from search.engine.strategy import CostAwareStrategy, OptunaStrategy
from search.study.policy import step_size
from search.study.pruners import make_pruner
from search.study.samplers import make_sampler
from search.study.study import Study

AS_RECORDED = "as_recorded"
"""Replays the trials in the order in which they were recorded, each to its recorded end."""
COST_AWARE, TODAY = "cost_aware", "optuna_tpe_median"
"""What `simulate` compares by default."""


_SHORT = {("random", "none"): "random", ("random", "successive_halving"): "random_asha"}
"""Names of searches by Optuna's sampler and pruner; others are named after both."""


@dataclass(frozen=True, kw_only=True)
class Situation:
    """The information that a search has when it starts."""

    deck: Deck
    costs: Costs
    max_epochs: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The parts of a search that make its decisions."""

    sampler: BaseSampler | None
    """None for the order in which the trials were recorded."""
    pruner: BasePruner
    strategy: Callable[[Study], Strategy] = lambda study: OptunaStrategy()


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A way to search."""

    name: str
    parts: Callable[[Situation], Parts]


def of_optuna(sampler: Optuna, pruner: Optuna) -> Contender:
    """A search with one of Optuna's samplers and pruners."""

    def parts(given: Situation) -> Parts:
        return Parts(
            sampler=make_sampler(sampler.name, sampler.parameters, seed=given.seed),
            pruner=make_pruner(pruner.name, pruner.parameters, epochs=given.max_epochs),
        )

    own = (sampler.name, pruner.name)
    return Contender(name=_SHORT.get(own) or f"optuna_{'_'.join(own)}", parts=parts)


def _as_recorded(given: Situation) -> Parts:
    return Parts(sampler=None, pruner=make_pruner("none", {}, epochs=given.max_epochs))


def _one_epoch_then_best(given: Situation) -> Parts:
    return Parts(
        sampler=make_sampler("random", {}, seed=given.seed),
        pruner=AtEpochs([1]),
        strategy=lambda study: OneEpochThenBest(_scores_of(study)),
    )


def _promotion(given: Situation) -> Parts:
    pausing = rungs(given.max_epochs)
    return Parts(
        sampler=make_sampler("random", {}, seed=given.seed),
        pruner=AtEpochs(pausing),
        strategy=lambda study: Promotion(_scores_of(study), pausing),
    )


def _scores_of(study: Study) -> Scores:
    return lambda: {trial.number: list(trial.intermediate_values.values()) for trial in study.trials}


def cost_aware(settings: Settings | None = None) -> Contender:
    """The default search, with its constants or others."""

    def parts(given: Situation) -> Parts:
        policy = _policy(given, settings)
        return Parts(
            sampler=CostAwareSampler(policy, seed=given.seed),
            pruner=CostAwarePruner(policy),
            strategy=lambda study: CostAwareStrategy(policy, study),
        )

    return Contender(name=COST_AWARE, parts=parts)


def _policy(given: Situation, settings: Settings | None) -> FreezeThaw:
    def cost_of(params: Mapping[str, Any]) -> Cost:
        backbone = params[BACKBONE]
        return given.costs.of(backbone, blocks_of(params[FROZEN_SHARE], len(block_names(backbone))))

    return FreezeThaw(
        draw=draw_from(given.deck.space.distributions),
        candidates=given.deck.left,
        cost_of=cost_of,
        max_epochs=given.max_epochs,
        arm=BACKBONE,
        derived=step_size,
        seed=given.seed,
        settings=settings or Settings(),
    )


def _plain(sampler: str, pruner: str) -> Contender:
    """A search with Optuna's defaults for a sampler and a pruner."""
    return of_optuna(Optuna(name=sampler), Optuna(name=pruner))


CONTENDERS = {
    contender.name: contender
    for contender in (
        cost_aware(),
        _plain("tpe", "median"),
        _plain("tpe", "hyperband"),
        _plain("gp", "median"),
        _plain("random", "none"),
        _plain("random", "successive_halving"),
        Contender(name="one_epoch_then_best", parts=_one_epoch_then_best),
        Contender(name="successive_halving_promotion", parts=_promotion),
        Contender(name=AS_RECORDED, parts=_as_recorded),
    )
}
