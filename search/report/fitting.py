"""Tables and lines that fit the width of a terminal: columns are dropped by priority, values are never cut."""

import re
import textwrap
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from search.run.commands import PROGRAM

GAP = 2
"""Characters between two columns or fields."""
_INDENT = "    "
"""Start of a continuation line."""
_NARROWEST = 8
"""Minimum width, in characters, of the one column that may be folded."""
_KEPT_SPACE = "\x1f"
"""Placeholder for a space at which a line must not be wrapped; it does not occur in texts."""
_COMMAND = rf"{PROGRAM} [^;]*"
"""A command in a sentence ends with the sentence or a semicolon."""

Cell = str | Text


class FittedTable:
    """A table without borders whose least important columns are left out if the screen is too narrow.

    If the remaining columns are still too wide, the widest left-aligned one is folded within its column.
    """

    def __init__(
        self,
        *titles: str,
        left: Collection[str] = (),
        drop: Sequence[str] = (),
        header_style: str = "bold",
    ) -> None:
        """Create a table without rows.

        Args:
            titles: of the columns, from left to right.
            left: titles of the columns that are aligned to the left.
            drop: titles of the columns that may be left out, the least important first.
            header_style: style of the titles.
        """
        self._titles = titles
        self._left = frozenset(left)
        self._drop = tuple(title for title in drop if title in titles)
        self._header_style = header_style
        self._rows: list[tuple[Text, ...]] = []

    def add_row(self, *cells: Cell) -> None:
        """Add a row with one cell per column."""
        self._rows.append(tuple(cell if isinstance(cell, Text) else Text(cell) for cell in cells))

    def shown(self, width: int) -> list[str]:
        """The titles of the columns that fit a screen of this width, in characters."""
        dropped: set[str] = set()
        for title in (*self._drop, None):
            kept = [name for name in self._titles if name not in dropped]
            if title is None or self._width(kept) <= width:
                break
            dropped.add(title)
        return kept

    def at(self, width: int) -> Table:
        """The table for a screen of this width, in characters."""
        kept = self.shown(width)
        excess = self._width(kept) - width
        folded = max((name for name in kept if name in self._left), key=self._of, default=None)
        table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style=self._header_style)
        for name in kept:
            narrowed = max(_NARROWEST, self._of(name) - excess) if excess > 0 and name == folded else None
            table.add_column(
                Text(name),
                justify="left" if name in self._left else "right",
                no_wrap=narrowed is None,
                overflow="fold",
                width=narrowed or self._of(name),
            )
        for row in self._rows:
            table.add_row(*(cell for name, cell in zip(self._titles, row, strict=True) if name in kept))
        return table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        """Render the columns that fit the console."""
        yield self.at(options.max_width)

    def _of(self, title: str) -> int:
        """Width of a column, in characters."""
        index = self._titles.index(title)
        return max([Text(title).cell_len, *(row[index].cell_len for row in self._rows)])

    def _width(self, titles: Sequence[str]) -> int:
        return sum(map(self._of, titles)) + GAP * (len(titles) - 1)


@dataclass(frozen=True, kw_only=True)
class Field:
    """A part of a line that has the same width on every line, so that lines align."""

    text: Text
    drop: int = 0
    """Rank in which fields are left out on a narrow screen, 1 first; 0 if never."""


def fitted_line(fields: Sequence[Field], width: int) -> Text:
    """Join fields into a line; those that may be left out are, one by one, until the line fits.

    If it still does not fit, the remaining fields continue on indented lines.
    """
    kept = list(fields)
    for candidate in sorted((field for field in fields if field.drop), key=lambda field: field.drop):
        if _length(kept) <= width:
            break
        kept.remove(candidate)
    line, used = Text(), 0
    for field in kept:
        shown = field.text.copy()
        if used and used + GAP + len(shown.plain.rstrip()) > width:
            line.rstrip()
            line.append(f"\n{_INDENT}")
            used = len(_INDENT)
        elif used:
            line.append(" " * GAP)
            used += GAP
        line.append_text(shown)
        used += shown.cell_len
    line.rstrip()
    return line


def _length(fields: Sequence[Field]) -> int:
    return sum(field.text.cell_len for field in fields) + GAP * (len(fields) - 1)


def wrapped(text: str, width: int, *, indent: str = "") -> str:
    """Wrap a text at words; a genre-search command in it stays on one line, so that it can be copied.

    Args:
        text: of one or more lines.
        width: in characters.
        indent: start of continuation lines.
    """
    return "\n".join(_wrapped_line(line, width, indent) for line in text.split("\n"))


def wrapped_text(text: Text, width: int) -> Text:
    """Wrap a styled text like `wrapped`; the styles of its parts are kept."""
    found = wrapped(text.plain, width)
    if found == text.plain:
        return text
    lines, result = found.split("\n"), text.blank_copy()
    position = 0
    for index, line in enumerate(lines):
        position = text.plain.index(line, position)
        result.append_text(text[position : position + len(line)])
        result.append("\n" * (index < len(lines) - 1))
        position += len(line)
    return result


def fitted(part: RenderableType, screen: Console) -> RenderableType:
    """A text that is wrapped for a terminal; anything else as it is, because tables fit themselves."""
    if isinstance(part, Text) and screen.is_terminal and not part.no_wrap:
        return wrapped_text(part, screen.width)
    return part


def _wrapped_line(line: str, width: int, indent: str) -> str:
    joined = re.sub(_COMMAND, lambda found: found[0].replace(" ", _KEPT_SPACE), line)
    lines = textwrap.wrap(
        joined,
        width,
        subsequent_indent=indent,
        expand_tabs=False,
        replace_whitespace=False,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines).replace(_KEPT_SPACE, " ")
