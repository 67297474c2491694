"""Which hyperparameter matters: Optuna's fANOVA over the study, the frozen depth as a share of all blocks."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.importance import FanovaImportanceEvaluator
from optuna.trial import FrozenTrial, TrialState, create_trial

from genre_core.models.registry import block_names
from search.study.journal import own_trials

FEWEST_TRIALS = 10
"""Complete trials below which nothing is said."""
TREES = 16
"""Of the forest that fANOVA fits: enough for two digits, and seconds where there are a thousand trials."""
FROZEN = "frozen_share"
"""Name of the frozen depth as a share of the backbone's blocks: the study's parameter differs between backbones."""

_DEPTH = "frozen_blocks_"


@dataclass(frozen=True, kw_only=True)
class Importance:
    """What the sampled hyperparameters, each alone, explain of the F1 of complete trials."""

    trials: int
    spread: float
    """Standard deviation of their F1."""
    shares: Mapping[str, float]
    """Hyperparameter -> share of the variance; what is missing to 1 is their interplay. The largest comes first."""

    def effect(self, name: str) -> float:
        """Standard deviation of F1 that this hyperparameter alone brings about."""
        return self.spread * float(np.sqrt(self.shares[name]))


def importances(run: Path) -> dict[str, Importance]:
    """`all`, and each backbone that has trials enough -> what matters there; the run's journal is only read.

    Raises:
        InputError: the journal is damaged.
    """
    complete = [trial for trial in own_trials(run) if trial.state == TrialState.COMPLETE]
    groups = {"all": complete}
    for trial in complete:
        if "backbone" in trial.params:
            groups.setdefault(trial.params["backbone"], []).append(trial)
    found = {name: _importance(group) for name, group in groups.items() if len(group) >= FEWEST_TRIALS}
    return {name: importance for name, importance in found.items() if importance.shares}


def seed_noise(finish: pd.DataFrame) -> float | None:
    """Standard deviation of the test F1 over seeds, pooled over configurations; None without a second seed."""
    if finish.empty:
        return None
    seeds = finish.groupby("trial")["test_f1"].agg(["var", "count"])
    seeds = seeds[seeds["count"] > 1]
    return float(np.sqrt(np.average(seeds["var"], weights=seeds["count"] - 1))) if len(seeds) else None


def _importance(trials: Sequence[FrozenTrial]) -> Importance:
    """By a study of their own, whose hyperparameters all trials have."""
    uniform = [_uniform(trial) for trial in trials]
    values = {name: {params.get(name) for params, _ in uniform} for name in uniform[0][0]}
    varied = [name for name, found in values.items() if len(found) > 1 and None not in found]
    scores = [float(trial.value or 0.0) for trial in trials]
    shares: Mapping[str, float] = {}
    if varied and max(scores) > min(scores):
        with _quiet():
            study = optuna.create_study(direction="maximize")
        for score, (params, distributions) in zip(scores, uniform, strict=True):
            own = {name: params[name] for name in varied}
            study.add_trial(
                create_trial(
                    value=score, params=own, distributions={name: distributions[name] for name in varied}
                )
            )
        shares = FanovaImportanceEvaluator(n_trees=TREES, seed=0).evaluate(study)
    ordered = sorted(shares.items(), key=lambda share: -share[1])
    return Importance(
        trials=len(trials),
        spread=float(np.std(scores)),
        shares={name: float(share) for name, share in ordered},
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna announces every study; this one is nobody's."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _uniform(trial: FrozenTrial) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    """The trial's parameters with one frozen depth, whatever the backbone."""
    params, distributions = dict(trial.params), dict(trial.distributions)
    for name in [name for name in params if name.startswith(_DEPTH)]:
        params[FROZEN] = params.pop(name) / len(block_names(name.removeprefix(_DEPTH)))
        distributions.pop(name)
        distributions[FROZEN] = FloatDistribution(0.0, 1.0)
    return params, distributions
