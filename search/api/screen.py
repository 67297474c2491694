"""The display of a search in a script, on a terminal or in a notebook."""

from rich.console import Console

from search.api.callbacks import Callbacks
from search.config.schema import SearchConfig
from search.display.area import console, in_notebook, notebook_area, notebook_console
from search.display.progress import Detail, Display


def display_of(config: SearchConfig, callbacks: Callbacks, *, progress: bool) -> Display:
    """The display of a search, which calls the user's functions.

    Args:
        config: of the search.
        callbacks: the user's functions.
        progress: whether to show anything.
    """
    notebook = in_notebook()
    return Display(
        _console(notebook=notebook, progress=progress),
        trials=config.trials,
        time_budget=config.time_budget,
        price=config.price,
        detail=Detail.TRIALS if progress else Detail.RESULTS,
        local=config.address is None,
        area=notebook_area if notebook else None,
        on_epoch=callbacks.epoch,
        on_trial=callbacks.trial,
    )


def display_of_finish(*, progress: bool) -> Display:
    """The display of the final models' training and test."""
    notebook = in_notebook()
    return Display(
        _console(notebook=notebook, progress=progress),
        detail=Detail.TRIALS if progress else Detail.RESULTS,
        area=notebook_area if notebook else None,
    )


def _console(*, notebook: bool, progress: bool) -> Console:
    """Where this process shows progress, or nowhere."""
    if not progress:
        return Console(quiet=True)
    return notebook_console() if notebook else console()
