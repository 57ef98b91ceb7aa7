"""Figures of models of calcium traces, from numpy arrays: each function returns a matplotlib figure.

Axes letters as in ``neuro_lightning.contracts``; activity in the unit of the targets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neuro_lightning.display import style
from neuro_lightning.display.figures import principal_components

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_ROWS = 400


@style.package_style()
def reconstruction_figure(
    observed: np.ndarray,
    reconstruction: np.ndarray,
    *,
    bin_ms: float,
    start: int = 0,
    title: str = "Reconstruction",
    simulated: bool = False,
) -> Figure:
    """Activity, its reconstruction, and what is left: neurons x time, side by side with a common order of neurons.

    Neurons that vary together stand together: they are sorted by their weights in the first two principal components
    of the reconstruction.

    Args:
        observed: (T, N) activity, NaN where unobserved.
        reconstruction: (T, N).
        bin_ms: bin width in ms.
        start: number of the first bin in the recording.
        title: above the figure.
        simulated: whether the data are simulated.
    """
    panels = {"data": observed, "reconstruction": reconstruction, "data - reconstruction": observed - reconstruction}
    scale, unit = _time_unit(max(len(observed), 1) * bin_ms)
    figure, axes = style.new_figure(7.6, 5.8, title, simulated=simulated, rows=3, sharex=True)
    if not observed.size:
        style.note(axes[0, 0], "no traces")
        return figure
    order = similarity_order(reconstruction)
    order = order[style.evenly_spaced(len(order), MAX_ROWS)]
    top = float(np.nanpercentile(observed, 98)) or 1.0
    low = min(float(np.nanpercentile(observed, 2)), 0.0)
    ends = (start * bin_ms / scale, (start + len(observed)) * bin_ms / scale)
    for panel, (name, values) in zip(axes[:, 0], panels.items(), strict=True):
        left = name.startswith("data -")
        look = (
            {"cmap": style.SIGNED, "vmin": -top, "vmax": top}
            if left
            else {"cmap": style.RATES, "vmin": low, "vmax": top}
        )
        image = style.heat_map(panel, values[:, order], ends, **look)
        panel.set_ylabel("neurons, sorted")
        panel.set_title(name)
        style.whole_ticks(panel, 4)
        figure.colorbar(image, ax=panel, pad=0.01, aspect=12, extend="both" if left else "max")
    axes[-1, 0].set_xlabel(f"time ({unit})")
    shown = "" if len(order) == observed.shape[1] else f" ({len(order)} of {observed.shape[1]} neurons)"
    share = variance_explained(observed, reconstruction)
    axes[1, 0].set_title(f"reconstruction{shown}: {100 * share:.1f} % of the variance")
    return figure


@style.package_style()
def latents_figure(
    latents: np.ndarray,
    *,
    bin_ms: float,
    behavior: np.ndarray | None = None,
    behavior_names: tuple[str, ...] = (),
    start: int = 0,
    simulated: bool = False,
) -> Figure:
    """Latents over time: all of them as a heat map, their first principal components, and the behavior beneath.

    Args:
        latents: (T, D).
        bin_ms: bin width in ms.
        behavior: (T, K), such as the running speed; at most three channels are drawn, z-scored.
        behavior_names: (K,) what they are called.
        start: number of the first bin in the recording.
        simulated: whether the data are simulated.
    """
    scores, explained = principal_components(latents[None], 3)
    scale, unit = _time_unit(max(len(latents), 1) * bin_ms)
    time = (start + np.arange(len(latents)) + 0.5) * bin_ms / scale
    n_behavior = 0 if behavior is None else min(behavior.shape[1], 3)
    rows = 1 + scores.shape[2] + n_behavior
    figure, axes = style.new_figure(
        7.6, 2.4 + 0.8 * (rows - 1), "Latents over time", simulated=simulated, rows=rows, sharex=True,
        height_ratios=[3] + [1] * (rows - 1),
    )  # fmt: skip
    if not latents.size:
        style.note(axes[0, 0], "no latents")
        return figure
    order = similarity_order(latents)
    spread = latents.std(0)
    shown = (latents - latents.mean(0)) / np.where(spread > 0, spread, 1.0)
    ends = (start * bin_ms / scale, (start + len(latents)) * bin_ms / scale)
    image = style.heat_map(axes[0, 0], shown[:, order], ends, cmap=style.SIGNED, vmin=-2.5, vmax=2.5)
    axes[0, 0].set_ylabel("latents, sorted")
    figure.colorbar(image, ax=axes[0, 0], label="z-score", pad=0.01, aspect=12, extend="both")
    for k in range(scores.shape[2]):
        _line(axes[1 + k, 0], time, scores[0, :, k], style.MODEL, f"PC{k + 1}\n{100 * explained[k]:.0f} %")
    for k in range(n_behavior):
        name = behavior_names[k] if k < len(behavior_names) else f"behavior {k}"
        _line(axes[1 + scores.shape[2] + k, 0], time, behavior[:, k], style.TRUE, name)
    axes[-1, 0].set_xlabel(f"time ({unit})")
    return figure


def similarity_order(traces: np.ndarray) -> np.ndarray:
    """(N,) an order of (T, N) traces in which those that vary together stand together.

    They are sorted by the angle of each trace's weights in the first two principal components of the z-scored traces;
    the order begins after the largest gap between angles.
    """
    from sklearn.utils.extmath import randomized_svd

    if traces.shape[1] < 3 or len(traces) < 3:
        return np.arange(traces.shape[1])
    centered = np.nan_to_num(traces - np.nanmean(traces, 0))
    spread = centered.std(0)
    centered = centered / np.where(spread > 0, spread, 1.0)
    _, _, axes = randomized_svd(centered, 2, random_state=0)
    angle = np.arctan2(axes[1], axes[0])
    order = np.argsort(angle, kind="stable")
    gaps = np.diff(angle[order], append=angle[order[0]] + 2 * np.pi)
    return np.roll(order, -(int(gaps.argmax()) + 1))


def variance_explained(observed: np.ndarray, reconstruction: np.ndarray) -> float:
    """Share of the variance about each neuron's mean that is explained, pooled over (T, N); NaN entries left out."""
    left, total = np.nansum((observed - reconstruction) ** 2), np.nansum((observed - np.nanmean(observed, 0)) ** 2)
    return float(1 - left / total) if total > 0 else float("nan")


def _time_unit(duration_ms: float) -> tuple[float, str]:
    """How many milliseconds the unit has that suits a duration, and the unit's name."""
    if duration_ms < 3_000:
        return 1.0, "ms"
    return (1_000.0, "s") if duration_ms < 600_000 else (60_000.0, "min")


def _line(panel: Axes, time: np.ndarray, values: np.ndarray, color: str, name: str) -> None:
    panel.plot(time, values, color=color, lw=0.8)
    panel.set_ylabel(name, rotation=0, ha="right", va="center")
    panel.set_yticks([])
    panel.spines["left"].set_visible(False)
    panel.margins(y=0.1)
