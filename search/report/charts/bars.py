"""Bar charts: hyperparameter importance, F1 by genre, and worker time."""

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from search.report.charts.base import Chart, colour, label, layout, legend, rounded, title
from search.report.formatting import duration
from search.report.importance import Importance
from search.report.time_accounting import PARTS, TimeSpent

_PART_NAMES = {
    "features": "activations of frozen blocks",
    "training": "training",
    "pruned": "training of pruned trials",
    "overhead": "startup and idle time",
}
_UNITS = (("h", 3600.0), ("min", 60.0))
_LEAST_OF_UNIT = 2.0
"""Times below this multiple of a unit are shown in the next smaller unit."""


def importance(found: Importance, noise: float | None) -> Chart:
    """The effect of each hyperparameter on F1, compared with the noise between seeds."""
    names = list(found.shares)[::-1]
    bars = go.Bar(
        orientation="h",
        x=rounded(found.effect(name) for name in names),
        y=[title(name) for name in names],
        text=[f"{found.effect(name):.3f} ({found.shares[name]:.0%})" for name in names],
        textposition="auto",
        insidetextanchor="start",
        marker_color=colour("part1"),
        hovertemplate="%{y}: %{text}<extra></extra>",
    )
    return Chart(
        traces=[bars],
        layout=layout(
            xaxis={"title_text": "F1 (standard deviation)", "rangemode": "tozero"},
            shapes=[] if noise is None else [_noise_line(noise)],
            height=130 + 34 * len(names),
        ),
        description="Effect of each hyperparameter alone on F1, as a standard deviation: "
        + ", ".join(f"{title(name)} {found.effect(name):.3f}" for name in names[::-1]),
    )


def _noise_line(noise: float) -> dict[str, Any]:
    """A labelled vertical line at the standard deviation between seeds."""
    return {
        "type": "line",
        **{"x0": noise, "x1": noise, "y0": 0, "y1": 1, "yref": "paper"},
        "line": {"color": colour("ink"), "width": 2, "dash": "dash"},
        "label": {
            "text": f"seeds: {noise:.3f}",
            "textangle": 0,
            **{"textposition": "end", "yanchor": "bottom", "font_color": colour("ink")},
        },
    }


def genre_scores(genres: Sequence[str], validation: Sequence[float], test: Sequence[float] | None) -> Chart:
    """F1 of each genre on the validation set and, after `finish`, on the test set."""
    order = sorted(range(len(genres)), key=lambda index: validation[index])
    splits = {"validation": (validation, "part1")} | ({"test": (test, "part3")} if test else {})
    bars = [
        go.Bar(
            orientation="h",
            name=name,
            x=rounded(scores[index] for index in order),
            y=list(range(len(order))),
            text=[f"{scores[index]:.2f}" for index in order],
            textposition="auto",
            marker_color=colour(bar_colour),
            hovertemplate=f"{name}: %{{x:.3f}}<extra></extra>",
        )
        for name, (scores, bar_colour) in splits.items()
    ]
    described = (f"{label(genres[index])} {validation[index]:.2f}" for index in reversed(order))
    return Chart(
        traces=bars[::-1],
        layout=layout(
            xaxis={"title_text": "F1", "range": [0, 1]},
            yaxis={
                "tickvals": list(range(len(order))),
                "ticktext": [label(genres[index]) for index in order],
            },
            showlegend=len(bars) > 1,
            legend=legend("reversed"),
            height=130 + 22 * len(order) * len(bars),
        ),
        description=f"F1 by genre: {', '.join(described)}",
    )


def times(spent: TimeSpent) -> Chart:
    """Worker time by backbone and category, the longest first."""
    ordered = spent.by_backbone.loc[spent.by_backbone.sum(axis=1).sort_values(kind="stable").index]
    unit, length = _unit(float(ordered.sum(axis=1).max()))
    shown = ordered / length
    bars = [
        go.Bar(
            orientation="h",
            name=_PART_NAMES[part],
            x=rounded(shown[part]),
            y=shown.index.tolist(),
            marker_color=colour(f"part{index}"),
            hovertemplate=f"%{{y}}, {_PART_NAMES[part]}: %{{x:.3~g}} {unit}<extra></extra>",
        )
        for index, part in enumerate(PARTS)
        if shown[part].any()
    ]
    return Chart(
        traces=bars,
        layout=layout(
            barmode="stack",
            xaxis_title_text=f"worker time ({unit})",
            showlegend=True,
            legend=legend("normal"),
            height=130 + 34 * len(shown),
        ),
        description=f"How {duration(spent.whole)} of worker time was spent, by backbone.",
    )


def _unit(longest: float) -> tuple[str, float]:
    """The unit in which the longest of several durations in seconds is a readable number, and its length in seconds."""
    return next(((unit, size) for unit, size in _UNITS if longest >= _LEAST_OF_UNIT * size), ("s", 1.0))
