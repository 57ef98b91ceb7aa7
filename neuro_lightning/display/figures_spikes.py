"""Figures of models of spikes, from numpy arrays: each function returns a matplotlib figure.

Axes letters as in ``neuro_lightning.contracts``; rates come in spikes per bin and are shown in spikes/s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from neuro_lightning.display import style
from neuro_lightning.display.figures import principal_components

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_CONDITIONS = 12  # whose trials are drawn
MAX_PSTHS = 8  # in a panel, each twice
MAX_LINES = 60


@style.package_style()
def rates_figure(
    spikes: np.ndarray,
    rates: np.ndarray,
    *,
    bin_ms: float,
    start_ms: float | np.ndarray = 0,
    align: str = "",
    n_bins: int | None = None,
    true_rates: np.ndarray | None = None,
    trials: np.ndarray | None = None,
    neurons: str = "neurons",
    simulated: bool = False,
) -> Figure:
    """Spikes above the rates that a model predicts for them, one column a trial.

    Neurons are sorted by the time at which their predicted rate peaks.

    Args:
        spikes: (B, L, N) counts, NaN where unobserved.
        rates: (B, L, N) predicted spikes per bin, NaN after the end of shorter trials.
        bin_ms: bin width in ms.
        start_ms: when the first bin begins, for all trials or each, (B,); 0 is the event that windows are aligned to.
        align: what that event is called; empty for none.
        n_bins: observed bins T, if the others are predicted forward.
        true_rates: (B, L, N) spikes per bin, where known.
        trials: (B,) the trials' numbers.
        neurons: what the neurons are called, "held-out neurons" say.
        simulated: whether the data are simulated.
    """
    n_trials, n_total, n_neurons = rates.shape
    order = np.argsort(np.nan_to_num(known_mean(rates)).argmax(0), kind="stable") if n_trials else np.arange(n_neurons)
    panels = {"predicted": rates[..., order] * 1000 / bin_ms}
    if true_rates is not None:
        panels["true"] = true_rates[..., order] * 1000 / bin_ms
    rows, columns = 1 + len(panels), max(n_trials, 1)
    figure, axes = style.new_figure(
        1.2 + 2.6 * columns, 0.6 + 1.7 * rows, "Spikes and rates", simulated=simulated, rows=rows, columns=columns,
        sharex=True, sharey=True,
    )  # fmt: skip
    if not rates.size:
        style.note(axes[0, 0], "no trials")
        return figure
    starts = np.broadcast_to(np.asarray(start_ms, float), n_trials)
    top = _robust_top(np.concatenate([panel.ravel() for panel in panels.values()]))
    for column, start in enumerate(starts):
        ends = (start, start + n_total * bin_ms)
        draw_raster(axes[0, column], spikes[column][:, order], bin_ms, start)
        for row, panel in enumerate(panels.values(), start=1):
            image = style.heat_map(axes[row, column], panel[column], ends, cmap=style.RATES, vmin=0, vmax=top)
        axes[0, column].set_title(f"trial {column if trials is None else trials[column]}")
        for row in range(rows):
            color = style.TRUE if row == 0 else "white"
            if n_bins is not None and n_bins < n_total:
                axes[row, column].axvline(start + n_bins * bin_ms, color=color, lw=0.9, ls=(0, (3, 2)))
            mark_event(axes[row, column], ends, align, color)
    axes[0, 0].set_xlim(starts.min(), starts.max() + n_total * bin_ms)  # shared
    style.label_outer(axes, x=time_label(align), y="")
    for row, name in enumerate(["spikes", *(f"{name} rates" for name in panels)]):
        axes[row, 0].set_ylabel(f"{name}\n{neurons}")
    style.whole_ticks(axes[0, 0])
    figure.colorbar(image, ax=axes[1:, :], label="rate (spikes/s)", shrink=0.8, pad=0.01, extend="max")
    return figure


@style.package_style()
def latents_figure(
    latents: np.ndarray,
    *,
    bin_ms: float,
    start_ms: float = 0,
    align: str = "",
    condition: np.ndarray | None = None,
    angles: Mapping[int, float] | None = None,
    simulated: bool = False,
) -> Figure:
    """The first three principal components of a model's latents: in space, and over time.

    Thin lines are trials, dots their starts. With conditions, thick lines are their means.

    Args:
        latents: (B, L, D).
        bin_ms: bin width in ms.
        start_ms: when the first bin begins; 0 is the event that windows are aligned to.
        align: what that event is called; empty for none.
        condition: (B,) the trials' conditions, -1 for none.
        angles: the direction of each condition in radians, such as that of its reach, by which more than eight are
            colored; None where unknown.
        simulated: whether the data are simulated.
    """
    scores, explained = principal_components(latents, 3)
    n_shown = scores.shape[2]
    time = start_ms + (np.arange(scores.shape[1]) + 0.5) * bin_ms
    figure, _ = style.new_figure(8, 3.9, "Latents' principal components", simulated=simulated, rows=0, columns=0)
    grid = figure.add_gridspec(max(n_shown, 1), 2, width_ratios=(1.15, 1))
    space = figure.add_subplot(grid[:, 0], projection="3d" if n_shown == 3 else None)
    if not scores.size:
        style.note(space, "no latents")
        return figure
    curves = trial_curves(scores, condition, angles)
    draw_paths(space, curves)
    for k in range(n_shown):
        axes = figure.add_subplot(grid[k, 1])
        for path, look, is_mean in curves:
            axes.plot(time, path[:, k], **look, lw=1.6 if is_mean else 0.6, alpha=1 if is_mean else 0.35)
        mark_event(axes, (start_ms, start_ms + len(time) * bin_ms), align)
        axes.set_ylabel(f"PC{k + 1} ({100 * explained[k]:.0f} %)")
        axes.tick_params(labelbottom=k == n_shown - 1)
    axes.set_xlabel(time_label(align))
    return figure


@style.package_style()
def psth_figure(
    predicted: np.ndarray,
    true: np.ndarray,
    *,
    bin_ms: float,
    start_ms: float = 0,
    align: str = "",
    n_neurons: int = 6,
    simulated: bool = False,
) -> Figure:
    """Mean predicted rates over the true PSTHs, for the neurons whose PSTHs vary most.

    Args:
        predicted: (C, T, N) spikes per bin, NaN for a condition without trials.
        true: (C, T, N) spikes per bin, NaN where undefined.
        bin_ms: bin width in ms.
        start_ms: when the first bin begins; 0 is the event that windows are aligned to.
        align: what that event is called; empty for none.
        n_neurons: panels at most.
        simulated: whether the data are simulated.
    """
    known = np.flatnonzero(~np.isnan(predicted).all((1, 2)) & ~np.isnan(true).all((1, 2)))
    known = known[style.evenly_spaced(len(known), MAX_PSTHS)]
    predicted, true = predicted[known] * 1000 / bin_ms, true[known] * 1000 / bin_ms
    with np.errstate(invalid="ignore"):
        spread = np.nan_to_num(np.ma.masked_invalid(true).std((0, 1)).filled(0.0)) if true.size else np.zeros(0)
    chosen = np.argsort(-spread, kind="stable")[:n_neurons]
    time = start_ms + (np.arange(predicted.shape[1]) + 0.5) * bin_ms
    dotted = (0, (2, 1))
    figure, axes = style.panel_grid(
        len(chosen), "Predicted and true PSTHs", columns=3, panel=(2.5, 1.9), margin=(0.8, 0.7),
        empty="no conditions", simulated=simulated, sharex=True,
    )  # fmt: skip
    if not len(chosen):
        return figure
    for panel, neuron in zip(axes.flat, chosen, strict=False):
        for c, color in enumerate(style.condition_colors(len(known))):
            panel.plot(time, true[c, :, neuron], color=color, lw=0.9, ls=dotted, alpha=0.75)
            panel.plot(time, predicted[c, :, neuron], color=color, lw=1.5)
        mark_event(panel, (start_ms, start_ms + len(time) * bin_ms), align)
        panel.set_title(f"neuron {neuron}")
        panel.set_ylim(bottom=0)
    style.label_outer(axes, x=time_label(align), y="rate (spikes/s)")
    names = {"predicted": "-", "true": dotted}
    lines = [axes[0, 0].plot([], [], color=style.TRUE, ls=ls, label=name)[0] for name, ls in names.items()]
    figure.legend(handles=lines, loc="outside upper right", ncols=2)
    return figure


def known_mean(values: np.ndarray) -> np.ndarray:
    """The mean over trials (B, ...) of what is not NaN; NaN where all is."""
    known = ~np.isnan(values)
    number = known.sum(0)
    return np.where(number > 0, np.where(known, values, 0).sum(0) / np.maximum(number, 1), np.nan)


def _robust_top(values: np.ndarray) -> float:
    return max(float(np.nanpercentile(values, 99.5)), 1e-9) if np.isfinite(values).any() else 1.0


def time_label(align: str) -> str:
    """The label of a time axis whose 0 is an event, or the trial's start."""
    return f"time from {align} (ms)" if align else "time in trial (ms)"


def mark_event(axes: Axes, ends: tuple[float, float], align: str, color: str = style.QUIET) -> None:
    """Draw a dotted line at 0, the event that windows are aligned to, unless the window begins there."""
    if align and ends[0] < 0 <= ends[1]:
        axes.axvline(0, color=color, lw=0.9, ls=":")


def draw_raster(axes: Axes, counts: np.ndarray, bin_ms: float, start_ms: float, color: Any = style.TRUE) -> None:
    """Draw (L, N) counts as ticks, one line a neuron; a bin with more spikes has a thicker tick.

    Args:
        axes: where.
        counts: (L, N), NaN where unobserved.
        bin_ms: bin width in ms.
        start_ms: when the first bin begins.
        color: of the ticks, or one of each neuron (N,).
    """
    bins, neurons = np.nonzero(np.nan_to_num(counts) > 0)
    widths = 0.8 + 0.5 * (counts[bins, neurons] - 1).clip(0, 3)
    color = color if isinstance(color, str) else np.asarray(color)[neurons]
    axes.vlines(start_ms + (bins + 0.5) * bin_ms, neurons - 0.4, neurons + 0.4, color=color, lw=widths)


def trial_curves(
    scores: np.ndarray, condition: np.ndarray | None, angles: Mapping[int, float] | None = None
) -> list[tuple[np.ndarray, dict[str, Any], bool]]:
    """Paths (L, n) of single trials and of conditions' means, each with its color and line, and whether it is a mean.

    Args:
        scores: (B, L, n).
        condition: (B,) the trials' conditions, -1 for none.
        angles: the direction of each condition in radians, where known.
    """
    names = np.unique(condition[condition >= 0]) if condition is not None else np.zeros(0, int)
    if not len(names):
        return [(path, {"color": style.MODEL}, False) for path in scores[:MAX_LINES]]
    names = names[style.evenly_spaced(len(names), MAX_CONDITIONS)]
    looks = condition_looks(names, angles)
    trials = np.flatnonzero(np.isin(condition, names))[:MAX_LINES]
    means = [(known_mean(scores[condition == name]), look, True) for name, look in looks.items()]
    return [(scores[trial], looks[condition[trial]], False) for trial in trials] + means


def condition_looks(names: np.ndarray, angles: Mapping[int, float] | None = None) -> dict[int, dict[str, Any]]:
    """The color and the line style of each condition (C,), as arguments of ``Axes.plot``."""
    at = None if angles is None else np.array([angles.get(int(name), np.nan) for name in names])
    pairs = zip(style.condition_colors(len(names), at), style.condition_lines(len(names), at), strict=True)
    return {int(name): {"color": color, "ls": line} for name, (color, line) in zip(names, pairs, strict=True)}


def draw_paths(axes: Axes, curves: list[tuple[np.ndarray, dict[str, Any], bool]]) -> None:
    """Draw paths (L, n) in space, each with its color and line, and whether it is a mean; a dot is its start."""
    n = 3 if axes.name == "3d" else 2
    for line, look, is_mean in curves:
        path = np.pad(line, ((0, 0), (0, max(n - line.shape[1], 0)))).T[:n]
        axes.plot(*path, **look, lw=1.5 if is_mean else 0.6, alpha=1 if is_mean else 0.45)
        axes.plot(*path[:, :1], ".", color=look["color"], ms=7 if is_mean else 3)
    for k, name in enumerate("xyz"[:n]):
        axis = getattr(axes, f"{name}axis")
        axis.set_label_text(f"PC{k + 1}")
        axis.set_ticklabels([])
        if n == 3:
            axis.labelpad = -10
            axis.set_pane_color("#fafafa")
