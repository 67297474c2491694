"""Learning curves: validation F1 by epoch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from search.report.charts.base import Chart, colour, f1_axis, layout, mark, rounded, whole_axis


def curves(
    trials: pd.DataFrame, epochs: pd.DataFrame, backbones: Sequence[str], best: int | None
) -> dict[str, Chart]:
    """Backbone -> F1 by epoch of each of its trials, with the curve of trial `best` in bold."""
    top = float(epochs["val_f1"].max()) if len(epochs) else 1.0
    last = int(epochs["epoch"].max()) if len(epochs) else 1
    axes = {
        "xaxis": whole_axis(last, "epoch") | {"range": [0.8, last + 0.2]},
        "yaxis": f1_axis() | {"range": [0, min(1.0, top * 1.05)]},
    }
    charts = {}
    for backbone in backbones:
        own = trials[trials["backbone"] == backbone]
        charts[backbone] = Chart(
            traces=_traces(own, epochs, mark(backbones, backbone), best, backbone),
            layout=layout(**axes, height=260),
            description=f"Validation F1 by epoch of the {len(own)} trials of {backbone}.",
        )
    return charts


def _traces(
    trials: pd.DataFrame, epochs: pd.DataFrame, marking: tuple[str, str], best: int | None, backbone: str
) -> list[go.Scatter]:
    """The curves of one backbone: incomplete trials dotted up to an open marker, complete ones solid."""
    backbone_colour, symbol = marking
    complete = trials["state"] == "COMPLETE"
    of_incomplete = epochs[epochs["trial"].isin(trials[~complete]["trial"])]
    of_complete = epochs[epochs["trial"].isin(trials[complete]["trial"])]
    opacity = float(np.clip(4 / np.sqrt(max(len(trials), 1)), 0.3, 0.9))
    ends = of_incomplete.groupby("trial").tail(1)
    line = {"color": backbone_colour, "width": 1.5}
    traces = [
        _lines(of_incomplete, line=line | {"dash": "dot"}, opacity=opacity, meta=backbone),
        _lines(of_complete, line=line | {"dash": "solid"}, opacity=opacity, meta=backbone),
        go.Scatter(
            mode="markers",
            meta=backbone,
            x=ends["epoch"].tolist(),
            y=rounded(ends["val_f1"]),
            marker={"color": backbone_colour, "symbol": f"{symbol}-open", "size": 6, "opacity": opacity},
            hoverinfo="skip",
        ),
    ]
    if best in set(trials["trial"]):
        bold = {"color": colour("ink"), "width": 3}
        traces.append(_lines(epochs[epochs["trial"] == best], line=bold, meta=backbone))
    return traces


def _lines(epochs: pd.DataFrame, **style: Any) -> go.Scatter:
    """The curves of several trials as a single trace, with a gap between two trials."""
    x: list[int | None] = []
    y: list[float | None] = []
    numbers: list[Any] = []
    for number, own in epochs.groupby("trial"):
        x += [*own["epoch"].tolist(), None]
        y += [*rounded(own["val_f1"]), None]
        numbers += [number] * (len(own) + 1)
    return go.Scatter(
        mode="lines",
        x=x,
        y=y,
        customdata=numbers,
        hovertemplate="trial %{customdata}, epoch %{x}: F1 %{y:.3f}<extra></extra>",
        **style,
    )
