"""What all figures share: colors, sizes, the title that says "simulated", grids of panels, heat maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

MODEL, TRUE, BASELINE, QUIET = "#1b6ca8", "#2b2b2b", "#c8553d", "#9aa1a8"
RATES = "magma"  # color map of firing rates
SIGNED = "RdBu_r"  # color map of values around 0: red above, blue below
# of Okabe and Ito, with a brown in place of the yellow, which is pale on white
CONDITIONS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7", "#7f2704", "#000000")
DASHED = (0, (4, 2))
LINES = ("-", (0, (5, 1.5)), (0, (1.5, 1)))
DARKER = (0.82, 0.82, 0.82, 1.0)  # by which a circle of colors is darkened: its lightest is too pale on white

_STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.titlecolor": "#555555",
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
def package_style() -> Iterator[None]:
    """Use this package's colors, sizes and fonts within a ``with`` block, or in the function that it decorates."""
    import matplotlib

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
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title + (" · simulated data" if simulated else ""), x=0.01, ha="left", fontsize=11, weight="bold")
    axes = figure.subplots(rows, columns, squeeze=False, **grid) if rows and columns else np.empty((0, 0))
    return figure, axes


def panel_grid(
    n: int,
    title: str,
    *,
    columns: int,
    panel: tuple[float, float],
    margin: tuple[float, float],
    empty: str,
    simulated: bool,
    **grid: Any,
) -> tuple[Figure, np.ndarray]:
    """A figure of ``n`` equal panels in rows.

    Args:
        n: panels.
        title: what the figure shows.
        columns: panels in a row at most.
        panel: width and height of a panel in inches.
        margin: what the figure is wider and higher than its panels, in inches.
        empty: text that is shown where there is no panel.
        simulated: whether the data are simulated.
        grid: further arguments of ``Figure.subplots``.

    Returns:
        The figure and its axes, (rows, columns); those beyond the first ``n`` are hidden.
    """
    columns = min(max(n, 1), columns)
    rows = -(-max(n, 1) // columns)
    width, height = max(margin[0] + panel[0] * columns, 3.8), margin[1] + panel[1] * rows
    figure, axes = new_figure(width, height, title, simulated=simulated, rows=rows, columns=columns, **grid)
    for unused in axes.flat[n:]:
        unused.set_axis_off()
    if not n:
        note(axes[0, 0], empty)
    return figure, axes


def label_outer(axes: np.ndarray, *, x: str, y: str) -> None:
    """Label the x-axis of the lowest row of panels and the y-axis of the leftmost column."""
    for panel in axes[-1]:
        panel.set_xlabel(x)
    for panel in axes[:, 0]:
        panel.set_ylabel(y)


def heat_map(axes: Axes, values: np.ndarray, ends: tuple[float, float], **look: Any) -> AxesImage:
    """Draw (T, N) values as an image: time from left to right, the first of the N rows at the bottom.

    Args:
        axes: where.
        values: (T, N).
        ends: of the time axis.
        look: further arguments of ``Axes.imshow``.
    """
    extent = (*ends, -0.5, values.shape[1] - 0.5)
    return axes.imshow(values.T, aspect="auto", origin="lower", interpolation="nearest", extent=extent, **look)


def whole_ticks(axes: Axes, most: int = 5) -> None:
    """Put at most so many ticks on the y-axis, at whole numbers."""
    axes.locator_params(axis="y", nbins=most, integer=True)


def evenly_spaced(n: int, most: int) -> np.ndarray:
    """Indices of at most so many of ``n`` items, the first and the last among them."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int))


def color_map(name: str, places: np.ndarray) -> np.ndarray:
    """(n, 4) colors of a color map at places from 0 to 1."""
    import matplotlib

    return matplotlib.colormaps[name](places)


def condition_colors(n: int, angles: Sequence[float] | np.ndarray | None = None) -> np.ndarray:
    """(n, 4) colors of conditions that color-blind people tell apart.

    Up to eight are those of Okabe and Ito, but for one. More are places on a color map of even steps, whose lightness
    changes as well: a circle of colors (twilight) where the conditions are directions, so that opposite ones differ
    most, else a line (viridis). Neighbours are much alike there: :func:`condition_lines` tells them apart.

    Args:
        n: conditions.
        angles: (n,) the direction of each in radians, such as that of a reach; None or a NaN among them for unknown.
    """
    import matplotlib.colors

    if n <= len(CONDITIONS):
        return matplotlib.colors.to_rgba_array(CONDITIONS[:n]).reshape(n, 4)
    if angles is None or not np.isfinite(angles).all():
        return color_map("viridis", np.linspace(0, 0.9, n))  # its end is too pale on white
    return color_map("twilight", np.mod(np.asarray(angles) / (2 * np.pi), 1)) * DARKER


def condition_lines(n: int, angles: Sequence[float] | np.ndarray | None = None) -> list[Any]:
    """(n,) line styles of conditions: all solid up to eight; of more, neighbours in color differ, see the colors."""
    if n <= len(CONDITIONS):
        return ["-"] * n
    order = np.arange(n) if angles is None or not np.isfinite(angles).all() else np.argsort(np.mod(angles, 2 * np.pi))
    rank = np.argsort(order, kind="stable")
    return [LINES[k % len(LINES)] for k in rank]


def session_colors(n: int) -> np.ndarray:
    """(n, 4) colors that are told apart, for up to eight sessions."""
    return color_map("Dark2", (np.arange(n) % 8 + 0.5) / 8)


def note(axes: Axes, text: str) -> None:
    """Write into the middle of empty axes why they are empty."""
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color=QUIET)
    axes.set(xticks=[], yticks=[])
