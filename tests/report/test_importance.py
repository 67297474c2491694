"""Hyperparameter importance: what causes the F1 is found, and seed noise is pooled."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from search.config.space import FROZEN_SHARE, blocks_of
from search.report.importance import FROZEN, MIN_TRIALS, importances, seed_noise


def _journal(
    path: Path, f1: Callable[[dict[str, Any]], float], n: int = 60, *, as_share: bool = True
) -> optuna.Study:
    """A study of random trials with the given F1."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(path)))
    study = optuna.create_study(storage=storage, study_name="made-up", direction="maximize")
    random = np.random.default_rng(0)
    blocks = {"resnet18": 5, "alexnet": 7}
    for _ in range(n):
        backbone = str(random.choice(list(blocks)))
        depth = FROZEN_SHARE if as_share else f"frozen_blocks_{backbone}"
        share = float(random.random())
        frozen = blocks_of(share, blocks[backbone])
        params: dict[str, Any] = {
            "backbone": backbone,
            "learning_rate": float(10 ** random.uniform(-4, -1)),
            depth: share if as_share else frozen,
        }
        value = f1(params | {"share": frozen / blocks[backbone]})
        distributions: dict[str, BaseDistribution] = {
            "backbone": CategoricalDistribution(tuple(blocks)),
            "learning_rate": FloatDistribution(1e-4, 1e-1, log=True),
            depth: FloatDistribution(0.0, 1.0) if as_share else IntDistribution(0, blocks[backbone]),
        }
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=value))
    return study


@pytest.mark.parametrize("as_share", [True, False], ids=["one depth", "a depth per backbone"])
@pytest.mark.parametrize(
    ("cause", "f1"),
    [
        ("learning_rate", lambda params: 0.3 + 0.1 * np.log10(params["learning_rate"])),
        (FROZEN, lambda params: 0.5 - 0.4 * params["share"]),
        ("backbone", lambda params: 0.4 if params["backbone"] == "alexnet" else 0.7),
    ],
)
def test_the_hyperparameter_that_causes_the_f1_has_almost_all_importance(
    cause: str, f1: Callable[[dict[str, Any]], float], as_share: bool, tmp_path: Path
) -> None:
    study = _journal(tmp_path / "study.journal", f1, as_share=as_share)
    found = importances(tmp_path)
    assert next(iter(found["all"].shares)) == cause
    assert found["all"].shares[cause] > 0.9
    spread = np.std([trial.values for trial in study.trials])
    assert found["all"].effect(cause) == pytest.approx(spread, rel=0.05)
    within = set(found) - {"all"}
    assert within == ({"alexnet", "resnet18"} if cause != "backbone" else set())


def test_too_few_complete_trials_have_no_importances(tmp_path: Path) -> None:
    _journal(tmp_path / "study.journal", lambda params: params["learning_rate"], n=MIN_TRIALS - 1)
    assert importances(tmp_path) == {}


def test_seed_noise_is_pooled_over_configurations_and_unknown_with_a_single_seed() -> None:
    finish = pd.DataFrame({"trial": [4, 4, 7, 7], "test_f1": [0.5, 0.6, 0.4, 0.46]})
    pooled = np.sqrt((np.var([0.5, 0.6], ddof=1) + np.var([0.4, 0.46], ddof=1)) / 2)
    assert seed_noise(finish) == pytest.approx(pooled)
    assert seed_noise(finish.drop_duplicates("trial")) is None
