"""Figures for data of every kind, from numpy arrays: each function returns a matplotlib figure.

Axes letters as in ``neuro_lightning.contracts``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from neuro_lightning.display import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@style.package_style()
def learning_curve(
    metrics: Mapping[str, np.ndarray],
    *,
    metric: str = "val/co_bps",
    label: str = "co-smoothing (bits/spike)",
    references: Mapping[str, float] | None = None,
    mode: str = "max",
    loss: str = "loss (nats per bin and neuron)",
    simulated: bool = False,
) -> Figure:
    """Losses and the reported metric over training.

    Args:
        metrics: columns of ``metrics.csv``, NaN where nothing was logged.
        metric: the column shown at the right.
        label: how its axis is called, with the unit.
        references: scores to compare with, by name: the best baseline, the true rates, the noise ceiling.
        mode: ``max`` or ``min``, which of two scores is better.
        loss: how the losses' axis is called.
        simulated: whether the data are simulated.
    """
    figure, [[losses, scores]] = style.new_figure(7.4, 2.9, "Learning curve", simulated=simulated, columns=2)
    drawn = [
        _curve(losses, metrics, "train/loss", style.QUIET, "training"),
        _curve(losses, metrics, "val/loss", style.MODEL, "validation"),
    ]
    losses.set(xlabel="training step", ylabel=loss)
    losses.legend() if any(drawn) else style.note(losses, "no loss was logged")

    if _curve(scores, metrics, metric, style.MODEL, "validation"):
        best = (np.nanargmax if mode == "max" else np.nanargmin)(metrics[metric])
        step, value = metrics["step"][best], metrics[metric][best]
        late = step > metrics["step"][np.isfinite(metrics[metric])].mean()
        scores.plot(step, value, "o", color=style.MODEL, ms=4.5, zorder=3)
        place = {"xytext": (-5 if late else 5, 5), "ha": "right" if late else "left"}
        scores.annotate(f"{value:.3f}", (step, value), textcoords="offset points", color=style.MODEL, **place)
    for name, value in (references or {}).items():
        color = style.TRUE if name.startswith(("true rates", "noise ceiling")) else style.BASELINE
        scores.axhline(value, color=color, lw=1, ls=style.DASHED, label=f"{name} ({value:.3f})")
    scores.set(xlabel="training step", ylabel=label)
    scores.legend() if scores.lines else style.note(scores, "nothing was logged")
    return figure


@style.package_style()
def neuron_scores_figure(
    scores: np.ndarray, *, label: str, heldout: np.ndarray | None = None, simulated: bool = False
) -> Figure:
    """How a score is spread over the neurons: a histogram, with the median as a dashed line.

    Args:
        scores: (N,) of each neuron, NaN where undefined.
        label: how the axis is called.
        heldout: (N,) bool, True for neurons that the model was not shown, to draw them apart; None draws all alike.
        simulated: whether the data are simulated.
    """
    known = np.isfinite(scores)
    groups = {"neurons": (known, style.MODEL)}
    if heldout is not None and heldout.any():
        groups = {"held-in neurons": (known & ~heldout, style.MODEL)}
        groups["held-out neurons"] = (known & heldout, style.BASELINE)
    figure, [[panel]] = style.new_figure(4.6, 3.0, "Score of each neuron", simulated=simulated)
    if not known.any():
        style.note(panel, "no neuron has a score")
        return figure
    low, high = np.percentile(scores[known], [1, 99])
    low = max(low, -1.0)  # lower ones are counted in the first bin
    reach = max(high - low, 1e-3)
    n_bins = int(np.clip(2 * np.sqrt(known.sum()), 8, 30))
    edges = np.linspace(min(low - 0.1 * reach, 0), max(high + 0.1 * reach, 0), n_bins + 1)
    for name, (part, color) in groups.items():
        if part.any():
            values, middle = scores[part], np.median(scores[part])
            text = f"{part.sum()} {name}, median {middle:.3f}, {(values < 0).sum()} below 0"
            look = {"color": color, "alpha": 0.75, "ec": "white", "lw": 0.4}
            panel.hist(np.clip(values, edges[0], edges[-1]), edges, label=text, **look)
            color = color if len(groups) > 1 else style.TRUE
            panel.axvline(np.clip(middle, edges[0], edges[-1]), color=color, lw=1.2, ls=style.DASHED)
    panel.axvline(0, color=style.QUIET, lw=0.8)
    panel.set(xlabel=label, ylabel="neurons")
    style.whole_ticks(panel)
    panel.legend(loc="lower left", bbox_to_anchor=(0, 1.0), borderpad=0)
    return figure


def principal_components(latents: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The first principal components over trials and bins.

    Args:
        latents: (B, L, D), NaN after the end of shorter trials.
        n: components wanted; there are fewer where D or the number of bins is smaller.

    Returns:
        Scores (B, L, n) and the share of variance that each explains (n,).
    """
    flat = latents.reshape(-1, latents.shape[2]).astype(np.float64)
    known = ~np.isnan(flat).any(1)
    if not flat[known].size:
        return np.zeros((*latents.shape[:2], 0)), np.zeros(0)
    flat = flat - flat[known].mean(0)
    _, values, axes = np.linalg.svd(flat[known], full_matrices=False)
    axes = axes[:n]
    axes = axes * np.where(axes[np.arange(len(axes)), np.abs(axes).argmax(1)] < 0, -1, 1)[:, None]  # a fixed sign
    total = max(float((values**2).sum()), np.finfo(float).tiny)
    return (flat @ axes.T).reshape(*latents.shape[:2], len(axes)), values[:n] ** 2 / total


def _curve(axes: Axes, metrics: Mapping[str, np.ndarray], name: str, color: str, label: str) -> bool:
    """Draw a column of ``metrics.csv``, if anything was logged in it; returns whether there was."""
    values = metrics.get(name, np.zeros(0))
    known = np.isfinite(values)
    if known.any():
        marker = "o" if known.sum() < 3 else None
        axes.plot(metrics["step"][known], values[known], color=color, label=label, marker=marker)
    return bool(known.any())
