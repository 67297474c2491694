"""Human-readable states, scores, durations and tables."""

from collections.abc import Collection

from rich.table import Table

STATE_WORD = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}
"""Trial state -> the word for it in a sentence."""
STATE_STYLE = {"COMPLETE": "green", "PRUNED": "yellow", "FAIL": "red", "RUNNING": "cyan"}
"""Trial state -> its style on the terminal."""


def score(value: float | None) -> str:
    """A score with three decimals; a dash if there is none."""
    return "-" if value is None else f"{value:.3f}"


def duration(seconds: float) -> str:
    """A duration such as `45 s`, `3 min 20 s` or `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def plain_table(*titles: str, left: Collection[str] = (), header_style: str = "bold") -> Table:
    """An empty table without borders, whose columns are right-aligned except those in `left`."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style=header_style)
    for title in titles:
        table.add_column(title, justify="left" if title in left else "right", no_wrap=True)
    return table
