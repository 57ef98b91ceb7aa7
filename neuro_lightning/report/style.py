"""The look of every figure: one set of colors and one of sizes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

MODEL, TRUE, BASELINE, QUIET = "#1b6ca8", "#2b2b2b", "#c8553d", "#9aa1a8"
RATES = "magma"  # color map of firing rates

_STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.linewidth": 0.8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.4,
    "savefig.dpi": 140,
    "figure.facecolor": "white",
}


@contextmanager
def style() -> Iterator[None]:
    """Draw inside this to draw in the house's look."""
    with matplotlib.rc_context(_STYLE):
        yield


def new_figure(
    width: float, height: float, title: str, *, simulated: bool, rows: int = 1, columns: int = 1, **grid: Any
) -> tuple[Figure, np.ndarray]:
    """A figure with a title, which says when the data are simulated, and a grid of axes.

    Args:
        width: inches.
        height: inches.
        title: what the figure shows.
        simulated: whether the data are simulated.
        rows: of the grid.
        columns: of the grid.
        grid: further arguments of ``Figure.subplots``.

    Returns:
        The figure and its axes, (rows, columns).
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title + (" · simulated data" if simulated else ""), x=0.01, ha="left", fontsize=11, weight="bold")
    axes = figure.subplots(rows, columns, squeeze=False, **grid) if rows and columns else np.empty((0, 0))
    return figure, axes


def condition_colors(n: int) -> np.ndarray:
    """(n, 4) colors that go round, as reaches do."""
    return matplotlib.colormaps["hsv"](np.arange(n) / max(n, 1)) * [0.85, 0.8, 0.85, 1.0]


def note(axes: Axes, text: str) -> None:
    """Say in the middle of empty axes why they are empty."""
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color=QUIET)
    axes.set_xticks([])
    axes.set_yticks([])
