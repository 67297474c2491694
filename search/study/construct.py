"""Constructs Optuna's samplers and pruners by name, with readable errors for wrong names and parameters."""

import inspect
import warnings
from collections.abc import Mapping
from typing import Literal, TypeVar

import optuna

from genre_core.errors import InputError
from search.errors import SearchErrorCode

T = TypeVar("T")


def construct(
    kind: Literal["sampler", "pruner"],
    name: str,
    classes: Mapping[str, type[T]],
    parameters: Mapping[str, object],
) -> T:
    """Create the sampler or pruner of this name.

    Args:
        kind: the YAML key, named in errors.
        name: a key of `classes`.
        classes: Optuna's classes by name.
        parameters: arguments of the class's constructor.

    Raises:
        InputError: unknown name, parameters that the class does not take, or a missing package.
    """
    if name not in classes:
        raise InputError(
            f"{kind}.name must be one of {', '.join(classes)}, but got {kind}.name={name!r}",
            code=SearchErrorCode.SAMPLER_OR_PRUNER_UNKNOWN,
        )
    signature = inspect.signature(classes[name]).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.values())
    if unknown := [key for key in parameters if key not in signature or takes_any]:
        legal = ", ".join(key for key in signature if key not in ("seed", "args", "kwargs"))
        raise InputError(
            f"{kind} {name} takes {legal or 'no parameters'}, "
            f"but got {kind}.{unknown[0]}={parameters[unknown[0]]!r}",
            code=SearchErrorCode.PARAMETER_UNKNOWN,
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return classes[name](**parameters)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{kind} {name} rejects its parameters: {error}", code=SearchErrorCode.PARAMETER_INVALID
        ) from error
    except ImportError as error:
        raise InputError(
            f"{kind} {name} needs a package that is not installed: {error}; pip install {name}",
            code=SearchErrorCode.SAMPLER_NOT_INSTALLED,
        ) from error
