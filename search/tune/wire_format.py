"""Messages as the dictionaries that Ray Tune passes between the driver and the workers."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from genre_core.recipe import Recipe
from search.engine.messages import (
    Assignment,
    EpochReport,
    Failure,
    NodeFailure,
    Notice,
    Report,
    Resting,
    Waiting,
)

_KIND, _NOTICES = "report", "notices"
_PLAIN: Mapping[str, type[Failure | NodeFailure | Waiting | Resting]] = {
    kind.__name__: kind for kind in (Failure, NodeFailure, Waiting, Resting)
}


def config_of(assignment: Assignment) -> dict[str, Any]:
    """The config of a Tune trial."""
    return {
        "number": assignment.trial,
        "recipe": asdict(assignment.recipe),
        "attempt": assignment.attempt,
        "epochs": assignment.epochs,
        "paused": assignment.paused,
    }


def assignment_of(config: Mapping[str, Any]) -> Assignment:
    """The assignment that `config_of` was called with; a later step reports a backbone that is missing."""
    return Assignment(
        trial=config["number"],
        recipe=Recipe.checked_elsewhere(config["recipe"]),
        attempt=config["attempt"],
        epochs=config["epochs"],
        paused=tuple(config["paused"]),
    )


def result_of(report: Report, notices: Iterable[Notice]) -> dict[str, Any]:
    """The result of a step of a Tune trial. An epoch's values are top-level, where Ray's loggers find the numbers.

    It never contains `done`: Ray would then end the trial without asking the scheduler, and the study would miss the
    last epoch.
    """
    values = report.flat() if isinstance(report, EpochReport) else dict(vars(report))
    return values | {_KIND: type(report).__name__, _NOTICES: list(notices)}


def report_of(result: Mapping[str, Any]) -> Report:
    """The report that `result_of` was called with; Ray adds values of its own to a result."""
    if result[_KIND] == EpochReport.__name__:
        return EpochReport.from_flat(result)
    kind = _PLAIN[result[_KIND]]
    return kind(**{name: result[name] for name in kind.__dataclass_fields__})


def notices_of(result: Mapping[str, Any]) -> list[Notice]:
    """The notices that `result_of` was called with."""
    notices: list[Notice] = result[_NOTICES]
    return notices
