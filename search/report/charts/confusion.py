"""Confusion matrix."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from search.report.charts.base import Chart, colour, label, layout, rounded


def confusion(counts: NDArray[np.int64], genres: Sequence[str]) -> Chart:
    """Tracks by true and predicted genre, [true, predicted], coloured by their share of the true genre."""
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
        text=[[str(count or "") for count in row] for row in counts.tolist()],
        texttemplate="%{text}",
        customdata=[[[true, predicted] for predicted in labels] for true in labels],
        hovertemplate="%{customdata[0]} taken for %{customdata[1]}: %{text} (%{z:.0%})<extra></extra>",
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
            xaxis={"title_text": "predicted", "tickangle": -45, **ticks},
            yaxis={"autorange": "reversed", **ticks},
            height=140 + 32 * len(genres),
        ),
        description=f"Confusion matrix: {np.trace(counts)} of {counts.sum()} tracks on the diagonal, classified "
        "correctly.",
    )
