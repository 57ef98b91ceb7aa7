"""Figures of dynamics, from numpy arrays: each function returns a matplotlib figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neuro_lightning.display import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_PATHS = 30


@style.package_style()
def flow_figure(
    places: np.ndarray,
    velocity: np.ndarray,
    *,
    paths: np.ndarray,
    points: np.ndarray,
    eigenvalues: np.ndarray,
    starts: np.ndarray | None = None,
    name: str = "",
    simulated: bool = False,
) -> Figure:
    """Where states move on a plane, paths of trials, fixed points, and the eigenvalues of the dynamics there.

    Filled points are stable: all eigenvalues are within the unit circle. Arrows have one length, since speeds differ
    by orders of magnitude.

    Args:
        places: (M, 2) on the plane.
        velocity: (M, 2) the movement in a step, within the plane.
        paths: (B, S, 2) the states in trials.
        points: (P, 2) fixed points.
        eigenvalues: (P, D) complex, of the Jacobian of a step at each.
        starts: (P,) how many searches led to each.
        name: what the states are of.
        simulated: whether the data are simulated.
    """
    title = "Flow and fixed points" + (f" of the {name}" if name else "")
    figure, [[plane, circle]] = style.new_figure(8.2, 4.2, title, simulated=simulated, columns=2)
    speed = np.linalg.norm(velocity, axis=1, keepdims=True)
    arrows = velocity / np.maximum(speed, 1e-30)
    plane.quiver(*places.T, *arrows.T, color=style.QUIET, width=0.0025, scale=32, pivot="mid")
    for path in paths[style.evenly_spaced(len(paths), MAX_PATHS)]:
        plane.plot(*path.T, color=style.MODEL, lw=0.6, alpha=0.5)
    largest = np.abs(eigenvalues).max(1) if len(points) else np.zeros(0)
    colors = style.condition_colors(len(points))
    for k, point in enumerate(points):
        face = colors[k] if largest[k] < 1 else "white"
        plane.plot(*point, "o", mfc=face, mec=colors[k], mew=1.6, ms=8, zorder=4)
        share = "" if starts is None else f", {starts[k]} starts"
        kind = "stable" if largest[k] < 1 else "unstable"
        circle.plot(
            eigenvalues[k].real, eigenvalues[k].imag, "o", mfc=face, mec=colors[k], ms=3.5,
            label=f"{kind}, largest {largest[k]:.3f}{share}" if k < 6 else None,
        )  # fmt: skip
    plane.set(xlabel="PC1 of the states", ylabel="PC2 of the states")
    found = f"{len(points)} fixed point{'s' * (len(points) > 1)} (filled: stable)"
    plane.set_title(found if len(points) else "no fixed point was found")
    angle = np.linspace(0, 2 * np.pi, 200)
    circle.plot(np.cos(angle), np.sin(angle), color=style.QUIET, lw=0.8)
    circle.set_aspect("equal")
    circle.set(xlabel="real part", ylabel="imaginary part")
    circle.set_title("eigenvalues of a step")
    if len(points):
        figure.legend(*circle.get_legend_handles_labels(), loc="outside lower right", ncols=2)
    return figure
