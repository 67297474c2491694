"""Hyperparameter importance by Optuna's fANOVA, with the freeze depth as a share of all blocks."""

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
from search.config.space import FROZEN_SHARE, share_of
from search.study.journal import own_trials

MIN_TRIALS = 10
"""Complete trials that are needed for an estimate."""
TREES = 16
"""Size of the random forest that fANOVA fits: enough for two digits, in seconds for a thousand trials."""
FROZEN = FROZEN_SHARE
"""Name of the freeze depth as a share of the backbone's blocks, which makes backbones comparable."""

_DEPTH = "frozen_blocks_"


@dataclass(frozen=True, kw_only=True)
class Importance:
    """The share of each sampled hyperparameter alone in the variance of F1 among complete trials."""

    trials: int
    """Number of complete trials."""
    spread: float
    """Standard deviation of their F1."""
    shares: Mapping[str, float]
    """Hyperparameter -> share of the variance, the largest first; the remainder to 1 is due to interactions."""

    def effect(self, name: str) -> float:
        """The standard deviation of F1 that is due to this hyperparameter alone."""
        return self.spread * float(np.sqrt(self.shares[name]))


def importances(run: Path) -> dict[str, Importance]:
    """The importances over all trials, as `all`, and within each backbone that has enough trials.

    The run's journal is only read.

    Raises:
        InputError: the journal is damaged.
    """
    complete = [trial for trial in own_trials(run) if trial.state == TrialState.COMPLETE]
    groups = {"all": complete}
    for trial in complete:
        if "backbone" in trial.params:
            groups.setdefault(trial.params["backbone"], []).append(trial)
    found = {name: _importance(group) for name, group in groups.items() if len(group) >= MIN_TRIALS}
    return {name: importance for name, importance in found.items() if importance.shares}


def seed_noise(finish: pd.DataFrame) -> float | None:
    """The standard deviation of test F1 over seeds, pooled over configurations; None with a single seed."""
    if finish.empty:
        return None
    seeds = finish.groupby("trial")["test_f1"].agg(["var", "count"])
    seeds = seeds[seeds["count"] > 1]
    return float(np.sqrt(np.average(seeds["var"], weights=seeds["count"] - 1))) if len(seeds) else None


def _importance(trials: Sequence[FrozenTrial]) -> Importance:
    """Run fANOVA on a temporary study in which all trials have the same hyperparameters."""
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
    """Suppress the log message of Optuna about a new study."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _uniform(trial: FrozenTrial) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    """A trial's parameters with the freeze depth as FROZEN, also if its parameter is named after the backbone."""
    params, distributions = dict(trial.params), dict(trial.distributions)
    for name in [name for name in params if name.startswith(_DEPTH)]:
        params[FROZEN] = share_of(params.pop(name), len(block_names(name.removeprefix(_DEPTH))))
        distributions.pop(name)
        distributions[FROZEN] = FloatDistribution(0.0, 1.0)
    return params, distributions
