"""Optuna's pruners by name."""

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.pruners import BasePruner

from genre_core.errors import InputError
from search.errors import SearchErrorCode
from search.study.construct import construct

PRUNERS: dict[str, type[BasePruner]] = {
    "none": optuna.pruners.NopPruner,
    "median": optuna.pruners.MedianPruner,
    "percentile": optuna.pruners.PercentilePruner,
    "successive_halving": optuna.pruners.SuccessiveHalvingPruner,
    "hyperband": optuna.pruners.HyperbandPruner,
    "patient": optuna.pruners.PatientPruner,
}
_REMOVED = {"wilcoxon": "compares instances of a problem, not epochs"}
"""Pruners that earlier versions offered, and why they were removed."""


def make_pruner(name: str, parameters: Mapping[str, Any], *, epochs: int) -> BasePruner:
    """Create one of Optuna's pruners; its steps are epochs.

    `patient` wraps another pruner: `{name: patient, patience: 2, wrapped_pruner: {name: median}}`.

    Args:
        name: a key of PRUNERS.
        parameters: arguments of Optuna's class.
        epochs: the maximum number of epochs of a trial; hyperband's default `max_resource`.

    Raises:
        InputError: unknown pruner, or parameters that it does not take.
    """
    if name in _REMOVED:
        raise InputError(
            f"pruner.name must be one of {', '.join(PRUNERS)}, but got pruner.name={name!r}, which "
            f"{_REMOVED[name]}; start a new search with another pruner and --warm-start RUN",
            code=SearchErrorCode.PRUNER_REMOVED,
        )
    given = dict(parameters)
    if name == "hyperband":
        given.setdefault("max_resource", epochs)
    if name == "patient":
        given["wrapped_pruner"] = _wrapped(given.get("wrapped_pruner"), epochs=epochs)
    return construct("pruner", name, PRUNERS, given)


def _wrapped(pruner: Any, *, epochs: int) -> BasePruner | None:
    """The pruner that `patient` wraps, given by its name or as a mapping with `name`; None for none."""
    if pruner is None:
        return None
    given = {"name": pruner} if isinstance(pruner, str) else pruner
    if not (isinstance(given, dict) and "name" in given):
        raise InputError(
            f"pruner.wrapped_pruner must be a pruner with a name, but got {pruner!r}",
            code=SearchErrorCode.PARAMETER_INVALID,
        )
    parameters = {key: value for key, value in given.items() if key != "name"}
    return make_pruner(given["name"], parameters, epochs=epochs)
