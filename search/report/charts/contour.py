"""F1 over two hyperparameters: trials as markers on a smoothed surface."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsRegressor

from search.report.charts.base import (
    LOGARITHMIC,
    Chart,
    axis,
    axis_range,
    colour,
    layout,
    marker_size,
    rounded,
    title,
)

MIN_TRIALS = 5
"""A surface over fewer trials of a backbone would suggest more than they show."""
SMOOTHING = 0.15
"""Standard deviation of the Gaussian kernel around each trial, as a fraction of the axis."""
CUTOFF = 2.0
"""Distance from the nearest trial beyond which the surface is left blank, in standard deviations."""
LEVELS = 8
"""Contour levels between the worst and the best trial."""

_GRID = 28
"""Points of the surface along each axis."""


def contours(
    trials: pd.DataFrame, backbones: Sequence[str], columns: Sequence[str]
) -> dict[tuple[str, str], dict[str, Chart]]:
    """Pair of columns -> backbone -> F1 over both, on one colour scale."""
    scored = trials[trials["val_f1"].notna()]
    limits = (float(scored["val_f1"].min()), float(scored["val_f1"].max())) if len(scored) else (0.0, 1.0)
    return {
        (x, y): {backbone: _chart(scored, backbone, x, y, limits) for backbone in backbones}
        for x, y in combinations(columns, 2)
    }


def _chart(scored: pd.DataFrame, backbone: str, x: str, y: str, limits: tuple[float, float]) -> Chart:
    """F1 of one backbone: a surface if it has enough trials, otherwise coloured markers alone."""
    own = scored[(scored["backbone"] == backbone) & scored[x].notna() & scored[y].notna()]
    f1 = rounded(own["val_f1"])
    low, high = limits
    traces = []
    if len(own) >= MIN_TRIALS and low < high:
        traces.append(_surface(scored, own, x, y, limits))
        marker = {"size": marker_size(len(own)), "color": "white", "line": {"color": "black", "width": 1}}
    else:
        outline = {"color": colour("ink"), "width": 1.5}
        marker = {"size": 9, "line": outline, "color": f1, "coloraxis": "coloraxis"}
    traces.append(
        go.Scatter(
            mode="markers",
            x=rounded(own[x]),
            y=rounded(own[y]),
            customdata=list(zip(own["trial"].tolist(), f1, strict=True)),
            marker=marker,
            hovertemplate=f"trial %{{customdata[0]}}: F1 %{{customdata[1]:.3f}}<br>{title(x)} %{{x:.3~g}}, "
            f"{title(y)} %{{y:.3~g}}<extra></extra>",
        )
    )
    return Chart(
        traces=[trace.update(meta=backbone) for trace in traces],
        layout=layout(
            xaxis=axis(x, scored) | {"range": axis_range(x, scored)},
            yaxis=axis(y, scored) | {"range": axis_range(y, scored)},
            coloraxis={"cmin": low, "cmax": high},
            height=280,
        ),
        description=f"Validation F1 of {len(own)} trials of {backbone} by {title(x)} and {title(y)}.",
    )


def _surface(
    scored: pd.DataFrame, own: pd.DataFrame, x: str, y: str, limits: tuple[float, float]
) -> go.Contour:
    low, high = limits
    ranges = [axis_range(column, scored) for column in (x, y)]
    positions = [_positions(own[column], column, r) for column, r in zip((x, y), ranges, strict=True)]
    f1 = smooth(np.stack(positions, axis=1), own["val_f1"].to_numpy(dtype=float))
    ticks = [
        np.logspace(*r, _GRID) if column in LOGARITHMIC else np.linspace(*r, _GRID)
        for column, r in zip((x, y), ranges, strict=True)
    ]
    return go.Contour(
        x=rounded(ticks[0]),
        y=rounded(ticks[1]),
        z=[rounded(row) for row in f1],
        coloraxis="coloraxis",
        hoverinfo="skip",
        autocontour=False,  # Plotly forgets the levels that it chose itself when it draws a chart again
        contours={
            **{"start": low, "end": high, "size": (high - low) / LEVELS},
            **{"showlabels": True, "labelformat": ".2f", "labelfont": {"size": 10, "color": "white"}},
        },
        line={"width": 0.5, "color": "white"},
    )


def smooth(positions: NDArray[np.float64], f1: NDArray[np.float64]) -> NDArray[np.float64]:
    """The Nadaraya-Watson kernel regression of F1 over the unit square.

    Args:
        positions: x and y of each trial as fractions of the axes, [trials, 2].
        f1: of each trial, [trials].

    Returns:
        F1 on a regular grid, [y, x]; NaN where no trial is near.
    """
    grid = np.linspace(0.0, 1.0, _GRID)
    points = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    # A tree is faster than the default here, a brute-force search in threads.
    regression = KNeighborsRegressor(n_neighbors=len(f1), weights=_gaussian, algorithm="kd_tree")
    regression.fit(positions, f1)
    nearest, _ = regression.kneighbors(points, n_neighbors=1)
    surface = np.asarray(regression.predict(points), dtype=np.float64)
    surface[nearest[:, 0] > CUTOFF * SMOOTHING] = np.nan
    return surface.reshape(_GRID, _GRID)


def _gaussian(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(-0.5 * (distances / SMOOTHING) ** 2)


def _positions(values: "pd.Series[float]", column: str, limits: tuple[float, float]) -> NDArray[np.float64]:
    """Values as fractions of the axis."""
    low, high = limits
    numbers = values.to_numpy(dtype=float)
    positions = np.log10(numbers) if column in LOGARITHMIC else numbers
    return np.asarray((positions - low) / (high - low), dtype=np.float64)
