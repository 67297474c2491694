"""Charts with a marker for each trial: history, F1 by hyperparameter, and F1 by cost."""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from search.report.charts.base import (
    Chart,
    axis,
    colour,
    f1_axis,
    layout,
    mark,
    marker_size,
    rounded,
    title,
    whole_axis,
)

COSTS = ("seconds", "trainable_parameters")
"""Columns that F1 is compared with as the cost of a trial."""


def history(trials: pd.DataFrame, backbones: Sequence[str]) -> Chart:
    """F1 by trial number, with the best F1 so far."""
    scored = trials[trials["val_f1"].notna()].sort_values("trial")
    best = go.Scatter(
        mode="lines",
        x=scored["trial"].tolist(),
        y=rounded(scored["val_f1"].cummax()),
        line={"color": colour("ink"), "width": 1.5, "shape": "hv"},
        hovertemplate="best so far: %{y:.3f}<extra></extra>",
    )
    return Chart(
        traces=[best, *_markers(scored, "trial", backbones)],
        layout=layout(xaxis=whole_axis(len(trials), "trial"), yaxis=f1_axis(), height=380),
        description=f"Validation F1 of {len(scored)} trials by trial number, with the best so far as a line.",
    )


def slices(trials: pd.DataFrame, backbones: Sequence[str], columns: Sequence[str]) -> dict[str, Chart]:
    """Column -> F1 by the value of this column."""
    scored = trials[trials["val_f1"].notna()]
    return {
        column: Chart(
            traces=_markers(scored, column, backbones),
            layout=layout(xaxis=axis(column, scored), yaxis=f1_axis(), height=300),
            description=f"Validation F1 of each trial by {title(column)}.",
        )
        for column in columns
    }


def costs(trials: pd.DataFrame, backbones: Sequence[str]) -> dict[str, Chart]:
    """Column of COSTS -> F1 by this cost, with its Pareto front."""
    scored = trials[trials["val_f1"].notna() & (trials["epochs"] > 0)]
    charts = {}
    for column in COSTS:
        front = pareto_front(scored, column)
        line = go.Scatter(
            mode="lines",
            x=rounded(front[column]),
            y=rounded(front["val_f1"]),
            line={"color": colour("ink"), "width": 1.5, "dash": "dash", "shape": "hv"},
            hoverinfo="skip",
        )
        charts[column] = Chart(
            traces=[line, *_markers(scored, column, backbones)],
            layout=layout(xaxis=axis(column, scored), yaxis=f1_axis(), height=340),
            description=f"Validation F1 of each trial by {title(column)}; the dashed line is the Pareto front.",
        )
    return charts


def pareto_front(trials: pd.DataFrame, column: str) -> pd.DataFrame:
    """The complete trials whose F1 no cheaper or equally expensive trial reaches, the cheapest first."""
    complete = trials[(trials["state"] == "COMPLETE") & trials[column].notna()]
    ordered = complete.sort_values([column, "val_f1", "trial"], ascending=[True, False, True])
    best = ordered["val_f1"].cummax().shift(fill_value=-1.0)
    return ordered[ordered["val_f1"] > best]


def _markers(trials: pd.DataFrame, x: str, backbones: Sequence[str]) -> list[go.Scatter]:
    """A trace for each backbone and state: filled if complete, a cross if failed, otherwise open."""
    symbols = {"COMPLETE": "{}", "FAIL": "x-thin-open"}
    traces = []
    for backbone in backbones:
        backbone_colour, symbol = mark(backbones, backbone)
        own = trials[(trials["backbone"] == backbone) & trials[x].notna()]
        for state, group in own.groupby(own["state"].where(own["stopped"].isna(), "CUT OFF"), sort=True):
            traces.append(
                go.Scatter(
                    mode="markers",
                    meta=backbone,
                    x=rounded(group[x]),
                    y=rounded(group["val_f1"]),
                    customdata=group["trial"].tolist(),
                    marker={
                        "color": backbone_colour,
                        "symbol": symbols.get(str(state), "{}-open").format(symbol),
                        "size": marker_size(len(trials)),
                    },
                    hovertemplate=f"trial %{{customdata}}, {backbone}, {str(state).lower()}"
                    f"<br>F1 %{{y:.3f}}, {title(x)} %{{x:.3~g}}<extra></extra>",
                )
            )
    return traces
