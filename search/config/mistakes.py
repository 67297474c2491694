"""Turns pydantic's validation errors into one line for the user: the key, the rule, the value and the way out."""

import difflib
from dataclasses import fields, is_dataclass

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from genre_core.errors import InputError
from search.config.settings import TAGS
from search.errors import SearchErrorCode

_UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")
"""pydantic's types of the error for a key that a model, or a dataclass, does not have."""
_SHOWN = 200
"""Maximum number of characters of a rejected value that a message repeats."""


def as_input_error(error: ValidationError, model: type[BaseModel]) -> InputError:
    """The first mistake as an InputError, with the number of further ones.

    Args:
        error: the error from validating `model`.
        model: the settings; suggestions for an unknown key come from its fields.
    """
    first, *others = error.errors()
    more = f" (and {len(others)} more)" if others else ""
    unknown = first["type"] in _UNKNOWN_KEY
    code = SearchErrorCode.SETTING_UNKNOWN if unknown else SearchErrorCode.SETTING_INVALID
    return InputError(f"{_explain(first, model)}{more}", code=code)


def shown(value: object) -> str:
    """A value as messages repeat it: its repr, cut off if it is long."""
    try:
        text = repr(value)
    except ValueError:  # an integer with thousands of digits
        text = type(value).__name__
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def setting_path(mistake: ErrorDetails) -> list[str]:
    """The keys that lead to a mistake.

    pydantic's location also holds a tag for each union on the way. All unions of settings are tagged by us.
    """
    *outer, last = mistake["loc"] or ("",)
    path = [str(part) for part in outer if part not in TAGS]
    is_key = mistake["type"] in _UNKNOWN_KEY or last not in TAGS  # an unknown key may be called like a tag
    return [*path, str(last)] if is_key else path


def _explain(mistake: ErrorDetails, model: type[BaseModel]) -> str:
    path = setting_path(mistake)
    key = ".".join(path) or "''"
    if mistake["type"] in _UNKNOWN_KEY:
        near = difflib.get_close_matches(path[-1], _keys(model), n=1)
        return f"{key} is not a setting" + (
            f"; did you mean {near[0]}?" if near else "; see --help for the settings"
        )
    if cause := mistake.get("ctx", {}).get("error"):
        return f"{key}: {cause}"
    message = mistake["msg"][0].lower() + mistake["msg"][1:]
    return f"{key}: {message}, but got {path[-1] if path else 'it'}={shown(mistake['input'])}"


def _keys(model: type[BaseModel]) -> list[str]:
    """All keys of a model, and of the models and dataclasses in its fields."""
    keys = []
    for name, field in model.model_fields.items():
        keys.append(name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += _keys(field.annotation)
        elif isinstance(field.annotation, type) and is_dataclass(field.annotation):
            keys += [own.name for own in fields(field.annotation)]
    return keys
