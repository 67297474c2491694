"""The charts of the HTML report, as Plotly figures in the colours of the page's style sheet."""

from search.report.charts.bars import genre_scores, importance, times
from search.report.charts.base import COLOURSCALE, SYMBOLS, Chart, mark, template, title
from search.report.charts.confusion import ROOMY_GENRES, confusion
from search.report.charts.contour import MIN_TRIALS, contours
from search.report.charts.curves import curves
from search.report.charts.scatter import COSTS, costs, history, pareto_front, slices

__all__ = [
    "COLOURSCALE",
    "COSTS",
    "MIN_TRIALS",
    "ROOMY_GENRES",
    "SYMBOLS",
    "Chart",
    "confusion",
    "contours",
    "costs",
    "curves",
    "genre_scores",
    "history",
    "importance",
    "mark",
    "pareto_front",
    "slices",
    "template",
    "times",
    "title",
]
