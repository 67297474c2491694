"""Output on a terminal, in a notebook or in a file, and the part of it that is redrawn while a search runs."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from io import StringIO

from rich.console import Console, RenderableType
from rich.live import Live

Area = Callable[[RenderableType], AbstractContextManager[object]]
"""Shows something inside the context, redraws it as it changes, and removes it at the end."""

_PIPE_COLUMNS = 160
"""Width of tables written to a file or pipe, wide enough to keep each row on one line."""
NOTEBOOK_COLUMNS = 100
"""Width of lines and tables in a notebook, in characters."""
_NOTEBOOK_LINES = 40
"""Height of a screen in a notebook."""
_TERMINAL_REFRESHES = 4
"""Times a second that a terminal is drawn."""
_NOTEBOOK_SECONDS = 1.0
"""Time between two updates of a notebook, each of which is sent to the browser."""
_HTML = '<pre style="line-height: 1.25; font-family: monospace">{code}</pre>'


def console() -> Console:
    """A console on stdout."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_COLUMNS)


def area_of(screen: Console) -> Area | None:
    """The area at the bottom of a terminal; None in a file or pipe."""
    if not screen.is_terminal:
        return None

    def area(content: RenderableType) -> Live:
        return Live(
            content,
            console=screen,
            refresh_per_second=_TERMINAL_REFRESHES,
            transient=True,
            vertical_overflow="crop",
        )

    return area


def in_notebook() -> bool:
    """Whether this process runs the cells of a notebook."""
    return Console().is_jupyter


def notebook_console() -> Console:
    """A console whose lines are the plain text output of a cell."""
    return Console(force_jupyter=False, force_terminal=False, highlight=False, width=NOTEBOOK_COLUMNS)


@contextmanager
def notebook_area(content: RenderableType, *, seconds: float = _NOTEBOOK_SECONDS) -> Iterator[None]:
    """Show something in one output of the cell, which is updated and, at the end, emptied.

    Args:
        content: what to show.
        seconds: time between two updates.
    """
    from IPython.display import HTML, display

    def draw() -> "HTML":
        return HTML(_html(content))

    output = display(draw(), display_id=True)
    stop = threading.Event()

    def update() -> None:
        while not stop.wait(seconds):
            output.update(draw())

    thread = threading.Thread(target=update, name="notebook area", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        output.update(HTML(""))


def _html(content: RenderableType) -> str:
    """What a terminal would show, with its colours, as HTML."""
    screen = Console(
        file=StringIO(),
        record=True,
        force_jupyter=False,
        color_system="standard",
        width=NOTEBOOK_COLUMNS,
        height=_NOTEBOOK_LINES,
    )
    screen.print(content)
    return screen.export_html(inline_styles=True, code_format=_HTML)
