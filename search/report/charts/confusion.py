"""Confusion matrix."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from search.report.charts.base import Chart, colour, label, layout, rounded

ROOMY_GENRES = 12
"""The cells of larger matrices show only the share, because there is no room for the number of tracks."""
_CELL_PX, _ROOMY_CELL_PX = 26, 38
"""Height of a cell."""


def confusion(counts: NDArray[np.int64], genres: Sequence[str]) -> Chart:
    """Tracks by true and predicted genre, [true, predicted], with their share of the true genre.

    The shares on the diagonal are the recall of each genre.
    """
    roomy = len(genres) <= ROOMY_GENRES
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    labels = [label(genre) for genre in genres]
    ticks = {
        "tickvals": list(range(len(genres))),
        "ticktext": labels,
        "showgrid": False,
        "zeroline": False,
    }
    cells = go.Heatmap(
        z=[rounded(row) for row in shares],
        text=[
            [_cell(count, share, roomy=roomy) for count, share in zip(row, of_row, strict=True)]
            for row, of_row in zip(counts.tolist(), shares.tolist(), strict=True)
        ],
        texttemplate="%{text}",
        textfont={"size": 11},
        customdata=[
            [[true, predicted, count] for predicted, count in zip(labels, row, strict=True)]
            for true, row in zip(labels, counts.tolist(), strict=True)
        ],
        hovertemplate="%{customdata[0]} predicted as %{customdata[1]}: %{customdata[2]} tracks (%{z:.0%})"
        "<extra></extra>",
        colorscale=[[0, colour("surface")], [1, colour("heat")]],
        zmin=0,
        zmax=1,
        xgap=1,
        ygap=1,
        showscale=False,
    )
    return Chart(
        traces=[cells],
        layout=layout(
            xaxis={"title_text": "predicted genre", "tickangle": -45, **ticks},
            yaxis={"title_text": "true genre", "autorange": "reversed", **ticks},
            height=140 + (_ROOMY_CELL_PX if roomy else _CELL_PX) * len(genres),
        ),
        description=f"Confusion matrix: {np.trace(counts)} of {counts.sum()} tracks are classified correctly, on the "
        "diagonal.",
    )


def _cell(count: int, share: float, *, roomy: bool) -> str:
    """The text of a cell; nothing if it has no tracks."""
    if not count:
        return ""
    return f"<b>{share:.0%}</b><br>{count}" if roomy else f"{share:.0%}"
