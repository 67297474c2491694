"""Hyperparameter search over many fine-tunes.

The names in `__all__` are public: docs/python.md describes them.
"""

from typing import TYPE_CHECKING

from genre_core.system.lazy import importer

if TYPE_CHECKING:
    from genre_core.errors import InputError
    from search.api.result import Result, open_run
    from search.api.searching import resume, search
    from search.config.schema import SearchConfig
    from search.run.schemas import EpochRow, TrialRow
    from search.tune.search import SearchFailed

__all__ = [
    "EpochRow",
    "InputError",
    "Result",
    "SearchConfig",
    "SearchFailed",
    "TrialRow",
    "open_run",
    "resume",
    "search",
]

# A name is imported when it is used: `genre-search --help` must not load pandas or torch.
__getattr__ = importer(
    __name__,
    {
        "EpochRow": "search.run.schemas",
        "InputError": "genre_core.errors",
        "Result": "search.api.result",
        "SearchConfig": "search.config.schema",
        "SearchFailed": "search.tune.search",
        "TrialRow": "search.run.schemas",
        "open_run": "search.api.result",
        "resume": "search.api.searching",
        "search": "search.api.searching",
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
