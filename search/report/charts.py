"""What a search found, as figures: plotly's own dictionaries, with the page's names in the place of colours.

A colour is `$name`, which the page's script replaces by its style sheet's `--name`, so that a figure follows the
theme. Texts that users chose are escaped: plotly reads tags in them.
"""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from search.report.importance import FROZEN, Importance
from search.report.time_accounting import PARTS, TimeSpent

Figure = dict[str, Any]
"""`data`, `layout` and, as `about`, what it shows in words."""

SYMBOLS = {"circle": "●", "square": "■", "diamond": "◆", "triangle-up": "▲", "star": "★"}
"""Plotly's marks, and the same in a text: a backbone has a colour and a mark."""
TITLES = {
    "learning_rate": "learning rate",
    FROZEN: "frozen share of blocks",
    "frozen_blocks": "frozen blocks",
    "val_f1": "validation F1",
    "seconds": "time of the trial (s)",
    "trainable_parameters": "trainable parameters",
    "batch_size": "batch size (segments)",
}
"""Columns as axes name them, where their own name will not do."""
LOGARITHMIC = ("learning_rate", "weight_decay", "seconds", "trainable_parameters")
DECADES = 2.8
"""From here on an axis has room for powers of ten alone."""
SMOOTHING = 0.15
"""Of a contour: standard deviation of the kernel around each trial, as a share of the axis."""
FEWEST_FOR_CONTOUR = 5
"""Trials of a backbone below which a contour would be invention."""

STEPS = 8
"""Of a contour, from the worst trial's F1 to the best one's."""

_GRID = 28
"""Points of a contour along each axis."""
_LABEL_LENGTH = 18


def title(column: str) -> str:
    """A column's name for people."""
    return TITLES.get(column, column.replace("_", " "))


def mark(backbones: Sequence[str], backbone: str) -> tuple[str, str]:
    """The colour and the symbol of one of the search's backbones: pairs differ for up to 25 of them."""
    place, kinds = backbones.index(backbone), list(SYMBOLS)
    return f"$backbone{place % 5}", kinds[(place + place // 5) % 5]


def history(trials: pd.DataFrame, backbones: Sequence[str]) -> Figure:
    """F1 by trial, and the best so far."""
    scored = trials[trials["val_f1"].notna()].sort_values("trial")
    best = {
        "mode": "lines",
        "x": scored["trial"].tolist(),
        "y": _numbers(scored["val_f1"].cummax()),
        "line": {"color": "$ink", "width": 1.5, "shape": "hv"},
        "hovertemplate": "best so far: %{y:.3f}<extra></extra>",
    }
    return {
        "data": [best, *_points(scored, "trial", backbones)],
        "layout": {"xaxis": {"title": {"text": "trial"}}, "yaxis": _f1_axis(), "height": 380},
        "about": f"Validation F1 of {len(scored)} trials in their order, with the best so far as a line.",
    }


def curves(
    trials: pd.DataFrame, epochs: pd.DataFrame, backbones: Sequence[str], best: int | None
) -> dict[str, Figure]:
    """Backbone -> F1 by epoch of each of its trials, the best of all trials in bold."""
    figures = {}
    top = float(epochs["val_f1"].max()) if len(epochs) else 1.0
    last = int(epochs["epoch"].max()) if len(epochs) else 1
    for backbone in backbones:
        own = trials[trials["backbone"] == backbone]
        colour, symbol = mark(backbones, backbone)
        groups = {
            "dot": own[own["state"] != "COMPLETE"]["trial"],
            "solid": own[own["state"] == "COMPLETE"]["trial"],
        }
        opacity = float(np.clip(4 / np.sqrt(max(len(own), 1)), 0.3, 0.9))
        data = [
            _lines(epochs[epochs["trial"].isin(numbers)], colour, dash) | {"opacity": opacity}
            for dash, numbers in groups.items()
        ]
        ends = epochs[epochs["trial"].isin(groups["dot"])].groupby("trial").tail(1)
        data.append(
            {
                "mode": "markers",
                "x": ends["epoch"].tolist(),
                "y": _numbers(ends["val_f1"]),
                "marker": {"color": colour, "symbol": f"{symbol}-open", "size": 6, "opacity": opacity},
                "hoverinfo": "skip",
            }
        )
        if best in set(own["trial"]):
            bold = _lines(epochs[epochs["trial"] == best], "$ink", "solid")
            data.append(bold | {"line": {"color": "$ink", "width": 3}})
        figures[backbone] = {
            "data": [trace | {"meta": backbone} for trace in data],
            "layout": {
                "xaxis": {"title": {"text": "epoch"}, "range": [0.8, last + 0.2], "tickformat": "d"},
                "yaxis": _f1_axis() | {"range": [0, min(1.0, top * 1.05)]},
                "height": 260,
            },
            "about": f"Validation F1 by epoch of the {len(own)} trials of {backbone}.",
        }
    return figures


def importance(found: Importance, noise: float | None) -> Figure:
    """What each hyperparameter alone does to F1, beside what the seed does."""
    names = list(found.shares)[::-1]
    at_the_end = {"textposition": "end", "yanchor": "bottom", "font": {"color": "$ink"}}
    shapes = []
    if noise is not None:
        shapes = [
            {
                "type": "line",
                **{"x0": noise, "x1": noise, "y0": 0, "y1": 1, "yref": "paper"},
                "line": {"color": "$ink", "width": 2, "dash": "dash"},
                "label": {"text": f"seeds: {noise:.3f}", "textangle": 0, **at_the_end},
            }
        ]
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": _numbers(found.effect(name) for name in names),
        "y": [title(name) for name in names],
        "text": [f"{found.effect(name):.3f} ({found.shares[name]:.0%})" for name in names],
        "textposition": "auto",
        "insidetextanchor": "start",
        "marker": {"color": "$part1"},
        "hovertemplate": "%{y}: %{text}<extra></extra>",
    }
    return {
        "data": [bars],
        "layout": {
            "xaxis": {"title": {"text": "F1 (standard deviation)"}, "rangemode": "tozero"},
            "yaxis": {"automargin": True},
            "shapes": shapes,
            "height": 130 + 34 * len(names),
        },
        "about": "How much F1 varies by each hyperparameter alone: "
        + ", ".join(f"{title(name)} {found.effect(name):.3f}" for name in names[::-1]),
    }


def slices(trials: pd.DataFrame, backbones: Sequence[str], columns: Sequence[str]) -> dict[str, Figure]:
    """Column -> F1 by its value."""
    scored = trials[trials["val_f1"].notna()]
    return {
        column: {
            "data": _points(scored, column, backbones),
            "layout": {"xaxis": _axis(column, scored), "yaxis": _f1_axis(), "height": 300},
            "about": f"Validation F1 of each trial by its {title(column)}.",
        }
        for column in columns
    }


def contours(
    trials: pd.DataFrame, backbones: Sequence[str], columns: Sequence[str]
) -> dict[tuple[str, str], dict[str, Figure]]:
    """Pair of columns -> backbone -> F1 over both: trials, and where there are enough, a smooth surface."""
    scored = trials[trials["val_f1"].notna()]
    low, high = (float(scored["val_f1"].min()), float(scored["val_f1"].max())) if len(scored) else (0.0, 1.0)
    return {
        (x, y): {backbone: _contour(scored, backbone, x, y, (low, high)) for backbone in backbones}
        for x, y in combinations(columns, 2)
    }


def costs(trials: pd.DataFrame, backbones: Sequence[str]) -> dict[str, Figure]:
    """`seconds` and `trainable_parameters` -> F1 by this cost, and its Pareto front."""
    scored = trials[trials["val_f1"].notna() & (trials["epochs"] > 0)]
    figures = {}
    for column in ("seconds", "trainable_parameters"):
        front = pareto(scored, column)
        line = {
            "mode": "lines",
            "x": _numbers(front[column]),
            "y": _numbers(front["val_f1"]),
            "line": {"color": "$ink", "width": 1.5, "dash": "dash", "shape": "hv"},
            "hoverinfo": "skip",
        }
        figures[column] = {
            "data": [line, *_points(scored, column, backbones)],
            "layout": {"xaxis": _axis(column, scored), "yaxis": _f1_axis(), "height": 340},
            "about": f"Validation F1 of each trial by its {title(column)}; the dashed line is the Pareto front.",
        }
    return figures


def pareto(trials: pd.DataFrame, column: str) -> pd.DataFrame:
    """The complete trials that no other matches at a cost as low, the cheapest first."""
    complete = trials[(trials["state"] == "COMPLETE") & trials[column].notna()]
    ordered = complete.sort_values([column, "val_f1", "trial"], ascending=[True, False, True])
    best = ordered["val_f1"].cummax().shift(fill_value=-1.0)
    return ordered[ordered["val_f1"] > best]


def confusion(counts: NDArray[np.int64], genres: Sequence[str]) -> Figure:
    """Tracks by their genre and what they were taken for, coloured by share of their genre."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    places, labels = list(range(len(genres))), [_label(genre) for genre in genres]
    ticks = {"tickvals": places, "ticktext": labels, "automargin": True, "showgrid": False, "zeroline": False}
    cells = {
        "type": "heatmap",
        "z": [_numbers(row) for row in shares],
        "text": [[str(count or "") for count in row] for row in counts.tolist()],
        "texttemplate": "%{text}",
        "customdata": [[[labels[true], labels[told]] for told in places] for true in places],
        "hovertemplate": "%{customdata[0]} taken for %{customdata[1]}: %{text} (%{z:.0%})<extra></extra>",
        "colorscale": [[0, "$surface"], [1, "$heat"]],
        **{"zmin": 0, "zmax": 1, "xgap": 1, "ygap": 1, "showscale": False},
    }
    right = int(np.trace(counts))
    return {
        "data": [cells],
        "layout": {
            "xaxis": {"title": {"text": "predicted"}, "tickangle": -45, **ticks},
            "yaxis": {"autorange": "reversed", **ticks},
            "height": 140 + 32 * len(genres),
        },
        "about": f"Confusion matrix: {right} of {counts.sum()} tracks on the diagonal, which is right.",
    }


def genre_scores(genres: Sequence[str], validation: Sequence[float], test: Sequence[float] | None) -> Figure:
    """F1 of each genre, on the validation part and, where it was read, on the test part."""
    order = sorted(range(len(genres)), key=lambda place: validation[place])
    kinds = {"validation": (validation, "$part1")} | ({"test": (test, "$part3")} if test else {})
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "x": _numbers(values[place] for place in order),
            "y": list(range(len(order))),
            "text": [f"{values[place]:.2f}" for place in order],
            "textposition": "auto",
            "marker": {"color": colour},
            "hovertemplate": f"{name}: %{{x:.3f}}<extra></extra>",
        }
        for name, (values, colour) in kinds.items()
    ]
    return {
        "data": data[::-1],
        "layout": {
            "xaxis": {"title": {"text": "F1"}, "range": [0, 1]},
            "yaxis": {
                "tickvals": list(range(len(order))),
                "ticktext": [_label(genres[place]) for place in order],
                "automargin": True,
            },
            "showlegend": len(data) > 1,
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "traceorder": "reversed"},
            "height": 130 + 22 * len(order) * len(data),
        },
        "about": "F1 by genre: " + ", ".join(f"{_label(genres[p])} {validation[p]:.2f}" for p in order[::-1]),
    }


def times(spent: TimeSpent) -> Figure:
    """Where workers' time went, by backbone."""
    names = {
        "features": "activations at the cut",
        "training": "training",
        "pruned": "training, pruned trials",
        "overhead": "starting and between trials",
    }
    table = spent.by_backbone.iloc[::-1] / 60
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": names[part],
            "x": _numbers(table[part]),
            "y": table.index.tolist(),
            "marker": {"color": f"$part{place}"},
            "hovertemplate": f"%{{y}}, {names[part]}: %{{x:.1f}} min<extra></extra>",
        }
        for place, part in enumerate(PARTS)
    ]
    return {
        "data": data,
        "layout": {
            "barmode": "stack",
            "xaxis": {"title": {"text": "workers' time (min)"}},
            "yaxis": {"automargin": True},
            "showlegend": True,
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "traceorder": "normal"},
            "height": 170 + 34 * len(table),
        },
        "about": f"Where {spent.whole / 60:.1f} minutes of workers' time went, by backbone.",
    }


def _points(trials: pd.DataFrame, x: str, backbones: Sequence[str]) -> list[dict[str, Any]]:
    """Trials as marks: full where complete, open where pruned or cut off, a cross where neither."""
    shapes = {"COMPLETE": "{}", "PRUNED": "{}-open", "CUT OFF": "{}-open"}
    traces = []
    for backbone in backbones:
        colour, symbol = mark(backbones, backbone)
        own = trials[(trials["backbone"] == backbone) & trials[x].notna()]
        for state, group in own.groupby(own["state"].where(own["stopped"].isna(), "CUT OFF"), sort=True):
            shape = shapes.get(str(state), "x-thin-open").format(symbol)
            traces.append(
                {
                    "mode": "markers",
                    "meta": backbone,
                    "x": _numbers(group[x]),
                    "y": _numbers(group["val_f1"]),
                    "customdata": group["trial"].tolist(),
                    "marker": {"color": colour, "symbol": shape, "size": _size(len(trials))},
                    "hovertemplate": f"trial %{{customdata}}, {backbone}, {str(state).lower()}"
                    f"<br>F1 %{{y:.3f}}, {title(x)} %{{x:.3~g}}<extra></extra>",
                }
            )
    return traces


def _size(count: int) -> float:
    """Pixels of a mark, fewer where there are many."""
    return float(np.clip(8 * np.sqrt(100 / max(count, 1)), 4, 8))


def _lines(epochs: pd.DataFrame, colour: str, dash: str) -> dict[str, Any]:
    """One trace of all trials' curves, with a gap between two."""
    x: list[int | None] = []
    y: list[float | None] = []
    numbers: list[Any] = []
    for number, own in epochs.groupby("trial"):
        x += [*own["epoch"].tolist(), None]
        y += [*_numbers(own["val_f1"]), None]
        numbers += [number] * (len(own) + 1)
    return {
        "mode": "lines",
        "x": x,
        "y": y,
        "customdata": numbers,
        "line": {"color": colour, "width": 1.5, "dash": dash},
        "hovertemplate": "trial %{customdata}, epoch %{x}: F1 %{y:.3f}<extra></extra>",
    }


def _contour(scored: pd.DataFrame, backbone: str, x: str, y: str, ends: tuple[float, float]) -> Figure:
    own = scored[(scored["backbone"] == backbone) & scored[x].notna() & scored[y].notna()]
    f1 = own["val_f1"].to_numpy(dtype=float)
    data = []
    if len(own) >= FEWEST_FOR_CONTOUR and ends[0] < ends[1]:
        data.append(_surface(scored, own, x, y, ends) | {"meta": backbone})
        marker = {"size": _size(len(own)), "color": "white", "line": {"color": "black", "width": 1}}
    else:
        colours = {"color": _numbers(f1), "cmin": ends[0], "cmax": ends[1], "colorscale": "Cividis"}
        marker = {"size": 9, "line": {"color": "$ink", "width": 1.5}} | colours
    data.append(
        {
            "mode": "markers",
            "meta": backbone,
            "x": _numbers(own[x]),
            "y": _numbers(own[y]),
            "customdata": list(zip(own["trial"].tolist(), _numbers(f1), strict=True)),
            "marker": marker,
            "hovertemplate": f"trial %{{customdata[0]}}: F1 %{{customdata[1]:.3f}}<br>{title(x)} %{{x:.3~g}}, "
            f"{title(y)} %{{y:.3~g}}<extra></extra>",
        }
    )
    return {
        "data": data,
        "layout": {
            "xaxis": _axis(x, scored) | {"range": _range(scored, x)},
            "yaxis": _axis(y, scored) | {"range": _range(scored, y)},
            "height": 280,
        },
        "about": f"Validation F1 of {len(own)} trials of {backbone} by {title(x)} and {title(y)}.",
    }


def _surface(
    scored: pd.DataFrame, own: pd.DataFrame, x: str, y: str, ends: tuple[float, float]
) -> dict[str, Any]:
    """Means of the trials' F1, weighted by how near they are; nothing where none is near."""
    ticks, places = zip(*(_places(scored, own, column) for column in (x, y)), strict=True)
    grid = np.linspace(0.0, 1.0, _GRID)
    near = [np.exp(-0.5 * ((grid[:, None] - place) / SMOOTHING) ** 2) for place in places]
    weights = near[1][:, None, :] * near[0][None, :, :]  # [y, x, trials]
    low, high = ends
    height = (weights @ own["val_f1"].to_numpy(dtype=float)) / np.maximum(weights.sum(axis=-1), 1e-9)
    height[weights.max(axis=-1) < np.exp(-2)] = np.nan  # further than two standard deviations from all
    return {
        "type": "contour",
        "x": _numbers(ticks[0]),
        "y": _numbers(ticks[1]),
        "z": [_numbers(row) for row in height],
        **{"zmin": low, "zmax": high, "colorscale": "Cividis", "showscale": False, "hoverinfo": "skip"},
        # given, for plotly's own steps are lost when it draws again
        "autocontour": False,
        "contours": {
            **{"start": low, "end": high, "size": (high - low) / STEPS},
            **{"showlabels": True, "labelformat": ".2f", "labelfont": {"size": 10, "color": "white"}},
        },
        "line": {"width": 0.5, "color": "white"},
    }


def _places(scored: pd.DataFrame, own: pd.DataFrame, column: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """The grid's values along an axis, and where on it, from 0 to 1, each trial is."""
    low, high = _range(scored, column)
    values = own[column].to_numpy(dtype=float)
    ticks = np.linspace(low, high, _GRID)
    if column in LOGARITHMIC:
        return 10**ticks, (np.log10(values) - low) / (high - low)
    return ticks, (values - low) / (high - low)


def _range(scored: pd.DataFrame, column: str) -> tuple[float, float]:
    """The axis of a column, with a margin; in powers of ten where it is logarithmic."""
    values = scored[column].dropna().to_numpy(dtype=float)
    values = np.log10(values[values > 0]) if column in LOGARITHMIC else values
    low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
    margin = 0.06 * (high - low) or 0.5
    return float(low - margin), float(high + margin)


def _axis(column: str, trials: pd.DataFrame) -> dict[str, Any]:
    """With ticks at 1, 10, 100, … where it is logarithmic, and at 3, 30, 300, … if there is room."""
    if column not in LOGARITHMIC:
        return {"title": {"text": title(column)}}
    low, high = _range(trials, column)
    digits = (1, 3) if high - low < DECADES else (1,)
    ticks = [digit * 10**power for power in range(-6, 10) for digit in digits]
    texts = [f"{tick:.6f}".rstrip("0") if tick < 1 else _short(tick) for tick in ticks]
    return {"title": {"text": title(column)}, "type": "log", "tickvals": ticks, "ticktext": texts}


def _short(number: float) -> str:
    """300, 3k, 30M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.0f}{letter}"
    return f"{number:.0f}"


def _f1_axis() -> dict[str, Any]:
    return {"title": {"text": "validation F1"}, "rangemode": "tozero"}


def _numbers(values: Any) -> list[float | None]:
    """Four digits, which is a tenth of the bytes; what is missing is null."""
    return [None if pd.isna(value) else float(f"{value:.4g}") for value in values]


def _label(text: str) -> str:
    """What a user called something, for an axis: not too long, and no markup."""
    return escape(text if len(text) <= _LABEL_LENGTH else f"{text[: _LABEL_LENGTH - 1]}…")


def sampled(trials: pd.DataFrame, space: Mapping[str, Any]) -> list[str]:
    """Columns of the numbers that the search varied."""
    names = [FROZEN if name == "frozen_blocks" else name for name in space]
    return [
        name
        for name in names
        if pd.api.types.is_numeric_dtype(trials[name])
        and not pd.api.types.is_bool_dtype(trials[name])
        and trials[name].nunique() > 1
    ]
