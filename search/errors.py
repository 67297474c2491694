"""The codes of all kinds of mistakes that search raises as InputError."""

from enum import StrEnum


class SearchErrorCode(StrEnum):
    """Kinds of mistakes, for programs and tests: they depend on the code, not on the wording."""

    # cli
    # cluster_lint
    # config
    # data
    # evaluate
    # export
    # recovery
    # report
    # run
    # study
    # tune
