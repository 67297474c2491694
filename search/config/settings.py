"""The base class of all settings, and the tags of unions in them."""

import math
from collections.abc import Mapping
from dataclasses import is_dataclass

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Tag,
    ValidatorFunctionWrapHandler,
    field_validator,
)

LARGEST = 2**32 - 1
"""Larger integers are mistakes: every seed, count and size that torch, NumPy and Optuna accept is below."""

Scalar, Sequence, Keyed = Tag("(scalar)"), Tag("(sequence)"), Tag("(keyed)")
"""Members of a union that differ in the shape of the value; see `by_shape`."""
Number, Word = Tag("(number)"), Tag("(word)")
"""Members of a union of an integer and a word; see `number_or`."""
TAGS = frozenset(tag.tag for tag in (Scalar, Sequence, Keyed, Number, Word))
"""What pydantic adds to the location of an error in a union. No setting has such a name."""


def _values(given: object, parsed: object) -> list[tuple[str, object, object]]:
    """Each value: its field in a dataclass, as given, and as parsed."""
    if isinstance(given, Mapping) and is_dataclass(parsed):
        return [(name, was, getattr(parsed, name)) for name, was in given.items()]
    return [("", was, now) for was, now in zip(_each(given), _each(parsed), strict=False)]


class WrongField(ValueError):
    """A wrong value in a dataclass or a list; pydantic's location ends at the setting that contains it."""

    def __init__(self, rule: str, field: str) -> None:
        """Args: rule: the rule and the value given. field: the name of the dataclass's field; empty for a list."""
        super().__init__(rule)
        self.field = field


class Settings(BaseModel):
    """Base of all settings: unknown keys are errors, numbers are finite, instances are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="wrap")
    @classmethod
    def _check_numbers(cls, given: object, parse: ValidatorFunctionWrapHandler) -> object:
        """Reject `true` for a number, and integers that are too large.

        pydantic's strict mode rejects `true` too, but also 1e-4, which PyYAML reads as text, and lists for tuples.
        """
        parsed = parse(given)
        for field, was, now in _values(given, parsed):
            if isinstance(was, bool) and not isinstance(now, bool | None):
                raise WrongField(f"must be a number, but got {str(was).lower()}", field)
            if isinstance(now, int) and abs(now) > LARGEST:
                raise WrongField(
                    f"must be at most {LARGEST}, but got about 1e{math.log10(abs(now)):.0f}", field
                )
        return parsed


def _each(value: object) -> tuple[object, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def by_shape(rule: str | None = None) -> Discriminator:
    """Selects the member of a union by the shape of the value.

    Args:
        rule: the message for a value of a shape that the union does not have; None if it has all three.
    """

    def shape(value: object) -> str:
        if isinstance(value, Mapping | BaseModel):
            return Keyed.tag
        return Sequence.tag if isinstance(value, list | tuple) else Scalar.tag

    return Discriminator(shape, custom_error_type="wrong_shape" if rule else None, custom_error_message=rule)


def number_or(word: str) -> Discriminator:
    """Selects the member of a union of an integer and a word."""

    def kind(value: object) -> str | None:
        if value == word:
            return Word.tag
        return Number.tag if _may_be_number(value) else None

    rule = f"must be a whole number or {word}"
    return Discriminator(kind, custom_error_type="not_number_or_word", custom_error_message=rule)


def _may_be_number(value: object) -> bool:
    """False only for text that is not a number: pydantic explains other mistakes better than `number_or`."""
    if not isinstance(value, str):
        return True
    try:
        float(value)
    except ValueError:
        return False
    return True
