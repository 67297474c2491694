"""The user's callbacks of a running search, and the handling of their exceptions."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from search.run.schemas import EpochRow, TrialRow

OnEpoch = Callable[[EpochRow], object]
OnTrial = Callable[[TrialRow], object]


@dataclass(kw_only=True)
class Callbacks:
    """Calls the user's functions and remembers their exceptions, which Ray would wrap in its own."""

    on_epoch: OnEpoch | None
    on_trial: OnTrial | None
    raised: BaseException | None = None

    def epoch(self, row: EpochRow) -> None:
        """An epoch has ended."""
        if self.on_epoch:
            with self._remembered():
                self.on_epoch(row)

    def trial(self, row: TrialRow) -> None:
        """A trial has ended."""
        if self.on_trial:
            with self._remembered():
                self.on_trial(replace(row))

    @contextmanager
    def reraised(self) -> Iterator[None]:
        """Re-raise the exception of a user's function instead of the one that wraps it."""
        try:
            yield
        except BaseException:
            if self.raised is not None:
                raise self.raised from None
            raise

    @contextmanager
    def _remembered(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self.raised = error
            raise
