"""Checks of InputErrors by their code, values and way out rather than their wording."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

import pytest

from genre_core.errors import InputError


@contextmanager
def refused(code: StrEnum, *values: object) -> Iterator[None]:
    """Expect an InputError with this code, on one line that contains all values."""
    with pytest.raises(InputError) as caught:
        yield
    text = str(caught.value)
    assert caught.value.code is code, f"{caught.value.code}: {text}"
    assert "\n" not in text
    missing = [value for value in values if str(value) not in text]
    assert not missing, f"{missing} not in {text!r}"
