"""InputError and its codes."""

import copy
import pickle

import pytest

from genre_core.errors import ErrorCode, InputError
from search.errors import SearchErrorCode


@pytest.mark.parametrize("code", [ErrorCode.NO_SPACE, SearchErrorCode.RUN_NOT_FOUND])
def test_an_error_from_another_process_keeps_its_message_and_code(code: ErrorCode | SearchErrorCode) -> None:
    error = InputError("RUN must exist,\n  but got x", code=code)
    for copied in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(copied) is InputError
        assert str(copied) == "RUN must exist, but got x"
        assert copied.code is code


def test_no_code_has_two_meanings() -> None:
    assert not {code.value for code in ErrorCode} & {code.value for code in SearchErrorCode}
