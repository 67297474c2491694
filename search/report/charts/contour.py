"""F1 over two hyperparameters: trials as markers on a smoothed surface, with a colour scale for each backbone."""

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
    layout,
    marker_size,
    rounded,
    title,
)

MIN_TRIALS = 10
"""Fewest trials of a backbone for which a surface is drawn; with fewer, it would be misleading."""
SMOOTHING = 0.15
"""Standard deviation of the Gaussian kernel around each trial, as a fraction of the axis."""
CUTOFF = 2.0
"""Distance from the nearest trial beyond which the surface is left blank, in standard deviations."""
LEVELS = 8
"""Contour levels between the lowest and the highest point of a surface."""

_GRID = 28
"""Points of the surface along each axis."""
_COLOURBAR = {"thickness": 10, "tickformat": ".2f", "nticks": 5, "outlinewidth": 0, "ticks": ""}


def contours(
    trials: pd.DataFrame, backbones: Sequence[str], columns: Sequence[str]
) -> dict[tuple[str, str], dict[str, Chart]]:
    """Pair of columns -> backbone -> F1 over both; only backbones with enough trials to draw a surface."""
    scored = trials[trials["val_f1"].notna()]
    counts = scored["backbone"].value_counts()
    shown = [backbone for backbone in backbones if counts.get(backbone, 0) >= MIN_TRIALS]
    return {
        (x, y): {
            backbone: chart for backbone in shown if (chart := _chart(scored, backbone, x, y)) is not None
        }
        for x, y in combinations(columns, 2)
    }


def _chart(scored: pd.DataFrame, backbone: str, x: str, y: str) -> Chart | None:
    """F1 of one backbone; None if its trials do not show how F1 depends on both columns."""
    own = scored[(scored["backbone"] == backbone) & scored[x].notna() & scored[y].notna()]
    if len(own) < MIN_TRIALS or own[x].nunique() < 2 or own[y].nunique() < 2:
        return None
    ranges = axis_range(x, own), axis_range(y, own)
    positions = [_positions(own[column], column, r) for column, r in zip((x, y), ranges, strict=True)]
    surface = smooth(np.stack(positions, axis=1), own["val_f1"].to_numpy(dtype=float))
    low, high = float(np.nanmin(surface)), float(np.nanmax(surface))
    if low == high:
        return None
    markers = go.Scatter(
        mode="markers",
        x=rounded(own[x]),
        y=rounded(own[y]),
        customdata=list(zip(own["trial"].tolist(), rounded(own["val_f1"]), strict=True)),
        marker={"size": marker_size(len(own)), "color": "white", "line": {"color": "black", "width": 1}},
        hovertemplate=f"trial %{{customdata[0]}}: F1 %{{customdata[1]:.3f}}<br>{title(x)} %{{x:.3~g}}, "
        f"{title(y)} %{{y:.3~g}}<extra></extra>",
    )
    return Chart(
        traces=[trace.update(meta=backbone) for trace in (_contour(surface, (x, y), ranges), markers)],
        layout=layout(
            xaxis=axis(x, own) | {"range": ranges[0]},
            yaxis=axis(y, own) | {"range": ranges[1]},
            coloraxis={"cmin": low, "cmax": high, "showscale": True, "colorbar": _COLOURBAR},
            height=280,
        ),
        description=f"Validation F1 of {len(own)} trials of {backbone} by {title(x)} and {title(y)}; their smoothed "
        f"mean ranges from {low:.3f} to {high:.3f}.",
    )


def _contour(
    surface: NDArray[np.float64], columns: tuple[str, str], ranges: tuple[tuple[float, float], ...]
) -> go.Contour:
    """Filled contours of F1 on a regular grid, [y, x]."""
    ticks = [
        np.logspace(*r, _GRID) if column in LOGARITHMIC else np.linspace(*r, _GRID)
        for column, r in zip(columns, ranges, strict=True)
    ]
    low, high = float(np.nanmin(surface)), float(np.nanmax(surface))
    return go.Contour(
        x=rounded(ticks[0]),
        y=rounded(ticks[1]),
        z=[rounded(row) for row in surface],
        coloraxis="coloraxis",
        hoverinfo="skip",
        autocontour=False,  # Plotly forgets the levels that it chose itself when it draws a chart again
        contours={"start": low, "end": high, "size": (high - low) / LEVELS},
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
    # A tree is faster here than the default, a brute-force search in threads.
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
