"""Shared parts of all charts: the chart type, the template, marks, axes, numbers and labels.

A colour is `var(--name)`, a variable of the page's style sheet. The page's script resolves it when it draws a chart, so
that charts follow the theme. Text from users is escaped, because Plotly interprets HTML tags in it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from search.report.importance import FROZEN

SYMBOLS = {"circle": "●", "square": "■", "diamond": "◆", "triangle-up": "▲", "star": "★"}
"""Plotly marker symbol -> the same symbol as a character."""
TITLES = {
    "learning_rate": "learning rate",
    FROZEN: "frozen share of blocks",
    "frozen_blocks": "frozen blocks",
    "val_f1": "validation F1",
    "seconds": "time of the trial (s)",
    "trainable_parameters": "trainable parameters",
    "batch_size": "batch size (segments)",
}
"""Column -> axis title, if it differs from the column's name."""
LOGARITHMIC = ("learning_rate", "weight_decay", "seconds", "trainable_parameters")
"""Columns with a logarithmic axis."""

COLOURSCALE = "Cividis"
"""Colour scale that is readable with all kinds of colour vision (Nuñez, Anderton and Renslow 2018)."""

_COLOURS = 5
"""Number of backbone colours in the style sheet."""
_DENSE_TICK_DECADES = 2.8
"""Shorter logarithmic axes have ticks at 3, 30, 300, ... in addition to the powers of ten."""
_LABEL_CHARACTERS = 18
_FEW_WHOLE_NUMBERS = 8
"""Up to this number, an axis of whole numbers has a tick for each."""
_TOP_MARGIN_PX = 10
_TOP_MARGIN_WITH_KEY_PX = 34
"""Top margin of a chart with a legend or a labelled line."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A Plotly figure without its template, which all charts of a page share."""

    traces: Sequence[Any]
    """Plotly trace objects such as `go.Scatter`."""
    layout: go.Layout
    description: str
    """Alternative text for screen readers."""

    def to_plotly_json(self) -> dict[str, Any]:
        """The figure as input for Plotly's JavaScript."""
        return {
            "data": [trace.to_plotly_json() for trace in self.traces],
            "layout": self.layout.to_plotly_json(),
        }


def colour(name: str) -> str:
    """A colour of the style sheet."""
    return f"var(--{name})"


def template() -> go.layout.Template:
    """The layout defaults of all charts of a page."""
    line = colour("line")
    colours = {"gridcolor": line, "linecolor": line, "zerolinecolor": line}
    axis = {
        **{"showgrid": True, "showline": True, "zeroline": True, "automargin": True},
        **{"title_font_size": 13, "title_standoff": 8},
    } | colours
    return go.layout.Template(
        layout={
            "margin": {"l": 52, "r": 12, "t": _TOP_MARGIN_PX, "b": 48},
            "showlegend": False,
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"color": colour("ink"), "family": "system-ui, sans-serif", "size": 13},
            "hoverlabel": {
                "bgcolor": colour("raised"),
                "bordercolor": line,
                "font_color": colour("ink"),
            },
            "dragmode": False,
            "xaxis": axis,
            "yaxis": axis,
            "coloraxis": {"colorscale": COLOURSCALE, "showscale": False},
        }
    )


def layout(**settings: Any) -> go.Layout:
    """A Plotly layout, with more room at the top for a legend or a labelled line."""
    if settings.get("showlegend") or settings.get("shapes"):
        settings["margin_t"] = _TOP_MARGIN_WITH_KEY_PX
    return go.Layout(**settings)


def legend(order: str) -> dict[str, Any]:
    """A horizontal legend above the chart, with its traces in this order."""
    return {"orientation": "h", "y": 1.02, "yanchor": "bottom", "traceorder": order}


def title(column: str) -> str:
    """The axis title of a column."""
    return TITLES.get(column, column.replace("_", " "))


def mark(backbones: Sequence[str], backbone: str) -> tuple[str, str]:
    """The colour and marker symbol of a backbone; all pairs differ for up to 25 backbones."""
    index, symbols = backbones.index(backbone), list(SYMBOLS)
    return colour(f"backbone{index % _COLOURS}"), symbols[(index + index // _COLOURS) % len(symbols)]


def f1_axis() -> dict[str, Any]:
    """The vertical axis of a chart of validation F1."""
    return {"title_text": "validation F1", "rangemode": "tozero"}


def whole_axis(last: int, text: str) -> dict[str, Any]:
    """An axis of whole numbers up to `last`, without fractions between them."""
    return {"title_text": text, "tickformat": "d"} | ({"dtick": 1} if last <= _FEW_WHOLE_NUMBERS else {})


def axis(column: str, trials: pd.DataFrame) -> dict[str, Any]:
    """The axis of a column; a logarithmic one has ticks at 1, 10, 100, ..., and at 3, 30, 300, ... if there is room."""
    if column not in LOGARITHMIC:
        return {"title_text": title(column)}
    low, high = axis_range(column, trials)
    digits = (1, 3) if high - low < _DENSE_TICK_DECADES else (1,)
    powers = range(int(np.floor(low)) - 1, int(np.ceil(high)) + 1)
    ticks = [float(f"{digit}e{power}") for power in powers for digit in digits]
    return {
        "title_text": title(column),
        "type": "log",
        "tickvals": ticks,
        "ticktext": [_tick_label(tick) for tick in ticks],
    }


def axis_range(column: str, trials: pd.DataFrame) -> tuple[float, float]:
    """The range of a column's values with a margin; as powers of ten if the axis is logarithmic."""
    values = trials[column].dropna().to_numpy(dtype=float)
    values = np.log10(values[values > 0]) if column in LOGARITHMIC else values
    low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
    margin = 0.06 * (high - low) or 0.5
    return float(low - margin), float(high + margin)


def _tick_label(value: float) -> str:
    """0.003, 300, 3k, 30M."""
    if value < 1:
        return f"{value:.6f}".rstrip("0")
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.0f}{letter}"
    return f"{value:.0f}"


def marker_size(n_points: int) -> float:
    """The diameter of a marker in pixels, smaller for many points."""
    return float(np.clip(8 * np.sqrt(100 / max(n_points, 1)), 4, 8))


def rounded(values: Iterable[Any]) -> list[float | None]:
    """Numbers with four significant digits, which takes a tenth of the bytes; None for missing values."""
    return [None if pd.isna(value) else float(f"{value:.4g}") for value in values]


def label(text: str) -> str:
    """A name that a user chose, escaped and shortened for an axis."""
    return escape(text if len(text) <= _LABEL_CHARACTERS else f"{text[: _LABEL_CHARACTERS - 1]}…")
