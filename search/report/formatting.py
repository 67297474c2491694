"""Human-readable states, scores, settings, durations and counts: one notation for each on every screen."""

STATE_WORD = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}
"""Trial state -> the word for it in a sentence."""
STATE_STYLE = {"COMPLETE": "green", "PRUNED": "yellow", "FAIL": "red", "RUNNING": "cyan", "PAUSED": "blue"}
"""Trial state -> its style on the terminal."""

_EIGHTHS = " ▏▎▍▌▋▊▉█"
"""A cell of a horizontal bar, from empty to full."""
_HEIGHTS = "▁▂▃▄▅▆▇█"
"""A point of a curve, from the lowest to the highest."""
_DECIMALS_BELOW = 99.95
"""Seconds, above which a duration has no decimals."""


def score(value: float | None) -> str:
    """A score with three decimals; a dash if there is none."""
    return "-" if value is None else f"{value:.3f}"


def rate(value: float) -> str:
    """A learning rate or momentum with three significant digits, such as 0.0397 or 5e-05."""
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """A duration such as `45 s`, `3 min 20 s` or `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def roughly(seconds: float) -> str:
    """An estimated duration such as `45 s`, `3 min` or `2 h 5 min`."""
    whole = round(seconds)
    return f"{round(whole / 60)} min" if 60 <= whole < 3570 else duration(seconds)


def working_time(seconds: float | None) -> str:
    """The time that a worker spent on a trial, such as `29.7 s` or `3 min 20 s`; a dash if it is unknown."""
    if seconds is None:
        return "-"
    return f"{seconds:.1f} s" if seconds < _DECIMALS_BELOW else duration(seconds)


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number and its noun, such as `1 trial` or `1,200 trials`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def bar(share: float, width: int) -> str:
    """A horizontal bar of at most `width` characters.

    Args:
        share: of the width, 0 to 1.
        width: in characters.
    """
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    return (_EIGHTHS[8] * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip()


def sparkline(values: list[float], highest: float) -> str:
    """A curve of one character per value, of which 0 is the lowest.

    Args:
        values: 0 or more.
        highest: the value of the highest point.
    """
    top = len(_HEIGHTS) - 1
    return "".join(_HEIGHTS[min(top, round(value / max(highest, 1e-9) * top))] for value in values)
