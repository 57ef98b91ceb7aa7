"""Figures that check a model, from numpy arrays: calibration, bits over bins, scores against what can be reached.

Each function returns a matplotlib figure. Axes letters as in ``neuro_lightning.contracts``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from neuro_lightning.display import style
from neuro_lightning.display.figures_spikes import time_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = {"held-in neurons": style.MODEL, "held-out neurons": style.BASELINE}


@style.package_style()
def calibration_figure(
    groups: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]], *, bin_ms: float, simulated: bool = False
) -> Figure:
    """Mean observed rate of bins against the rate predicted for them; a calibrated model lies on the diagonal.

    Args:
        groups: by name (``held-in neurons``, ``held-out neurons``, ``neurons``), the predicted rate (K,), the mean
            count (K,) and its standard error (K,), spikes per bin; see ``functional.calibration``.
        bin_ms: bin width in ms.
        simulated: whether the data are simulated.
    """
    figure, [[panel]] = style.new_figure(4.2, 3.8, "Calibration of predicted rates", simulated=simulated)
    known = {name: np.asarray(values) * 1000 / bin_ms for name, values in groups.items() if len(values[0])}
    if not known:
        style.note(panel, "nothing was observed")
        return figure
    for name, (rate, count, error) in known.items():
        look = {"fmt": "o", "ms": 4, "lw": 1, "capsize": 0, "color": COLORS.get(name, style.MODEL)}
        panel.errorbar(rate, count, np.where(np.isfinite(error), 1.96 * error, 0), label=name, **look)
    values = np.concatenate([np.concatenate(part[:2]) for part in known.values()])
    low, high = values.min(), values.max()
    if low > 0 and high > 10 * low:
        panel.set(xscale="log", yscale="log")
    ends = (low, high if high > low else low + 1)
    panel.plot(ends, ends, color=style.QUIET, lw=0.9, ls=style.DASHED, zorder=0, label="calibrated")
    panel.set(xlabel="predicted rate (spikes/s)", ylabel="mean observed rate (spikes/s)")
    panel.set_title("tenths of the bins, mean ± 95 % over trials")
    panel.legend(loc="upper left")
    return figure


@style.package_style()
def forward_figure(
    bits: Mapping[str, np.ndarray], *, bin_ms: float, first_ms: float, align: str = "", simulated: bool = False
) -> Figure:
    """Bits per spike of each forward bin.

    Args:
        bits: by name (``all neurons``, ``held-in neurons``, ``held-out neurons``, ``true rates``), of each forward bin
            (F,), NaN where there is no spike.
        bin_ms: bin width in ms.
        first_ms: when the first forward bin begins.
        align: the event that is 0; empty for the trial's start.
        simulated: whether the data are simulated.
    """
    figure, [[panel]] = style.new_figure(5.0, 3.0, "Forward prediction over time", simulated=simulated)
    if not any(np.isfinite(values).any() for values in bits.values()):
        style.note(panel, "no spike in a forward bin")
        return figure
    for name, values in bits.items():
        color = style.TRUE if name == "true rates" else COLORS.get(name, style.QUIET)
        look = {"ls": style.DASHED, "lw": 1} if name == "true rates" else {"lw": 1 if name in COLORS else 1.8}
        look["color"] = "#5b8c5a" if name == "all neurons" else color
        time = first_ms + (np.arange(len(values)) + 0.5) * bin_ms
        panel.plot(time, values, marker="o" if len(values) < 60 else None, ms=2.5, label=name, **look)
    panel.axhline(0, color=style.QUIET, lw=0.8)
    panel.set(xlabel=time_label(align), ylabel="forward prediction (bits/spike)")
    panel.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=4, borderpad=0, columnspacing=1)
    return figure


@style.package_style()
def against_figure(
    scores: np.ndarray,
    reachable: np.ndarray,
    *,
    label: str,
    reachable_label: str,
    heldout: np.ndarray | None = None,
    title: str = "Neurons and the best possible",
    diagonal: bool = True,
    simulated: bool = False,
) -> Figure:
    """Each neuron's score against that of the true rates, or against what its noise leaves to explain.

    Args:
        scores: (N,), NaN where undefined.
        reachable: (N,), NaN where unknown.
        label: of the scores' axis.
        reachable_label: of the other axis.
        heldout: (N,) bool, True for neurons that the model was not shown; None draws all alike.
        title: above the figure.
        diagonal: whether both are of one kind, so that equality is drawn.
        simulated: whether the data are simulated.
    """
    figure, [[panel]] = style.new_figure(4.2, 3.8, title, simulated=simulated)
    known = np.isfinite(scores) & np.isfinite(reachable)
    if not known.any():
        style.note(panel, "no neuron has both")
        return figure
    groups = {"neurons": (known, style.MODEL)}
    if heldout is not None and heldout.any() and not heldout.all():
        groups = {name: (known & part, COLORS[name]) for name, part in zip(COLORS, (~heldout, heldout), strict=True)}
    look = {"ms": 4, "alpha": 0.7} if known.sum() < 300 else {"ms": 2, "alpha": 0.4}
    for name, (part, color) in groups.items():
        panel.plot(reachable[part], scores[part], "o", color=color, mew=0, label=f"{part.sum()} {name}", **look)
    low = max(min(scores[known].min(), 0), -1.0)  # lower ones are drawn at the lower edge
    below = int((scores[known] < low).sum())
    top = max(scores[known].max(), reachable[known].max() if diagonal else 0)
    if diagonal:
        ends = (min(low, reachable[known].min()), top)
        panel.plot(ends, ends, color=style.QUIET, lw=0.9, ls=style.DASHED, zorder=0)
    panel.axhline(0, color=style.QUIET, lw=0.8)
    panel.set(xlabel=reachable_label, ylabel=label, ylim=(low - 0.05 * (top - low), top + 0.05 * (top - low) + 1e-9))
    panel.set_title(f"{below} neurons below the axis" if below else "")
    panel.legend(loc="lower right", bbox_to_anchor=(1, 1.0), ncols=2, borderpad=0)
    return figure


@style.package_style()
def dimensions_figure(shares: Mapping[str, np.ndarray], *, simulated: bool = False) -> Figure:
    """Variance that the first so many dimensions explain together.

    Args:
        shares: by name, the share of the variance that each dimension explains (D,), strongest first. Those of shared
            variance components end at the share that is reliable, those of principal components at 1.
        simulated: whether the data are simulated.
    """
    figure, [[panel]] = style.new_figure(4.8, 3.2, "Explained variance over dimensions", simulated=simulated)
    known = {name: np.cumsum(values) for name, values in shares.items() if len(values) and np.isfinite(values).all()}
    if not known:
        style.note(panel, "nothing varies")
        return figure
    colors = (style.MODEL, style.BASELINE, "#5b8c5a", style.TRUE)
    for (name, values), color in zip(known.items(), colors, strict=False):
        marker = "o" if len(values) < 4 else None
        panel.plot(np.arange(1, len(values) + 1), values, color=color, label=name, marker=marker)
    longest = max(map(len, known.values()))
    if longest > 12:
        panel.set_xscale("log")
        ticks = [k for k in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000) if k <= longest]
        panel.set_xticks(ticks, map(str, ticks))
        panel.minorticks_off()
    lowest = min(0.0, *(float(values.min()) for values in known.values()))
    panel.set(xlabel="dimensions", ylabel="share of the variance", ylim=(lowest, 1.02))
    panel.legend(loc="lower right")
    return figure
