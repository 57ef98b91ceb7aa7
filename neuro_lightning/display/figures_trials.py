"""Figures of single trials, from numpy arrays: rates by condition, rasters sorted by a latent, decoded behavior.

Each function returns a matplotlib figure. Axes letters as in ``neuro_lightning.contracts``; rates come in spikes per
bin and are shown in spikes/s. Trials are called by the numbers given, such as their rows in the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from neuro_lightning.display import style
from neuro_lightning.display.figures_spikes import (
    condition_looks,
    draw_raster,
    mark_event,
    time_label,
    trial_curves,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_CHANNELS = 3
MAX_PATHS = 60


@style.package_style()
def single_trials_figure(
    rates: np.ndarray,
    *,
    bin_ms: float,
    start_ms: float = 0,
    align: str = "",
    condition: np.ndarray | None = None,
    angles: Mapping[int, float] | None = None,
    n_in: int | None = None,
    n_neurons: int = 3,
    simulated: bool = False,
) -> Figure:
    """Predicted rates of single trials, colored by condition, of the neurons whose rates vary most.

    Thin lines are trials, thick ones the means of conditions.

    Args:
        rates: (B, T, N) spikes per bin, NaN after the end of shorter trials.
        bin_ms: bin width in ms.
        start_ms: when the first bin begins; 0 is the event that windows are aligned to.
        align: what that event is called; empty for none.
        condition: (B,) the trials' conditions, -1 for none.
        angles: the direction of each condition in radians, such as that of its reach, by which more than eight are
            colored; None where unknown.
        n_in: held-in neurons, the others are marked as held out; None marks none.
        n_neurons: panels at most.
        simulated: whether the data are simulated.
    """
    rates = rates * 1000 / bin_ms
    spread = np.ma.masked_invalid(rates).std((0, 1)).filled(0.0) if rates.size else np.zeros(0)
    chosen = np.argsort(-spread, kind="stable")[:n_neurons]
    figure, axes = style.panel_grid(
        len(chosen), "Predicted rates of single trials", columns=3, panel=(2.5, 1.9), margin=(0.8, 0.6),
        empty="no trials", simulated=simulated, sharex=True,
    )  # fmt: skip
    if not len(chosen):
        return figure
    time = start_ms + (np.arange(rates.shape[1]) + 0.5) * bin_ms
    curves = trial_curves(rates[..., chosen], condition, angles)
    for k, (panel, neuron) in enumerate(zip(axes.flat, chosen, strict=False)):
        for path, look, is_mean in curves:
            panel.plot(time, path[:, k], **look, lw=1.8 if is_mean else 0.6, alpha=1 if is_mean else 0.35)
        mark_event(panel, (start_ms, start_ms + len(time) * bin_ms), align)
        held = "" if n_in is None else ", held-in" if neuron < n_in else ", held-out"
        panel.set_title(f"neuron {neuron}{held}")
        panel.set_ylim(bottom=0)
    style.label_outer(axes, x=time_label(align), y="rate (spikes/s)")
    return figure


@style.package_style()
def sorted_raster_figure(
    spikes: np.ndarray,
    latent: np.ndarray,
    weights: np.ndarray,
    *,
    bin_ms: float,
    start_ms: float = 0,
    align: str = "",
    trial: int | None = None,
    latent_name: str = "PC1 of the latents",
    heldout: np.ndarray | None = None,
    simulated: bool = False,
) -> Figure:
    """Spikes of one trial below a latent, neurons sorted by how they go with it.

    Args:
        spikes: (T, N) counts, NaN where unobserved.
        latent: (T,).
        weights: (N,) each neuron's weight or correlation with the latent, NaN for none; the largest is at the top.
        bin_ms: bin width in ms.
        start_ms: when the first bin begins; 0 is the event that windows are aligned to.
        align: what that event is called; empty for none.
        trial: the trial's number.
        latent_name: what the latent is called.
        heldout: (N,) bool, True for neurons that the model was not shown, drawn in another color.
        simulated: whether the data are simulated.
    """
    n_bins, n_neurons = spikes.shape
    order = np.argsort(np.nan_to_num(weights), kind="stable")
    colors = np.full(n_neurons, style.TRUE, dtype=object)
    if heldout is not None:
        colors[heldout] = style.BASELINE
    name = "Raster sorted by a latent" + ("" if trial is None else f", trial {trial}")
    figure, axes = style.new_figure(
        6.4, 4.2, name, simulated=simulated, rows=2, columns=2,
        gridspec_kw={"height_ratios": (1, 3), "width_ratios": (5, 1)},
    )  # fmt: skip
    ends = (start_ms, start_ms + n_bins * bin_ms)
    axes[0, 0].plot(start_ms + (np.arange(len(latent)) + 0.5) * bin_ms, latent, color=style.MODEL)
    axes[0, 0].set_ylabel(latent_name.replace(" of ", "\nof ", 1))
    draw_raster(axes[1, 0], spikes[:, order], bin_ms, start_ms, colors[order])
    axes[1, 0].set(xlabel=time_label(align), ylabel="neurons, sorted", ylim=(-0.5, n_neurons - 0.5))
    style.whole_ticks(axes[1, 0])
    for panel in axes[:, 0]:
        panel.set_xlim(*ends)
        mark_event(panel, ends, align)
    axes[0, 0].tick_params(labelbottom=False)
    axes[1, 1].barh(np.arange(n_neurons), np.nan_to_num(weights)[order], height=0.9, color=list(colors[order]))
    axes[1, 1].set(xlabel="correlation", ylim=(-0.5, n_neurons - 0.5), yticks=[], xlim=(-1, 1))
    axes[1, 1].axvline(0, color=style.QUIET, lw=0.8)
    axes[0, 1].set_axis_off()
    if heldout is not None and heldout.any():
        for text, color, height in (("held-in", style.TRUE, 0.55), ("held-out", style.BASELINE, 0.2)):
            axes[0, 1].text(0.1, height, text, color=color, transform=axes[0, 1].transAxes)
    return figure


@style.package_style()
def decoding_figure(
    behavior: np.ndarray,
    decoded: Mapping[str, np.ndarray],
    *,
    bin_ms: float,
    start_ms: float = 0,
    align: str = "",
    trials: np.ndarray | None = None,
    condition: np.ndarray | None = None,
    angles: Mapping[int, float] | None = None,
    names: Sequence[str] = (),
    unit: str = "",
    scores: Mapping[str, float] | None = None,
    paths: bool = True,
    n_trials: int = 3,
    simulated: bool = False,
) -> Figure:
    """Decoded behavior over true behavior in single trials and, of velocity in a plane, the paths that it gives.

    A path is the sum of velocities from the trial's first known bin, which is put at the origin.

    Args:
        behavior: (B, T, K), NaN where unknown.
        decoded: by the decoder's name, (B, T, K), NaN where it is not decoded.
        bin_ms: bin width in ms.
        start_ms: when the first bin begins; 0 is the event that windows are aligned to.
        align: what that event is called; empty for none.
        trials: (B,) the trials' numbers.
        condition: (B,) the trials' conditions, -1 for none; they color the paths.
        angles: the direction of each condition in radians, such as that of its reach, by which more than eight are
            colored; None where unknown.
        names: (K,) what the channels are called.
        unit: of the behavior.
        scores: R2 by the decoder's name, written into the legend.
        paths: whether the behavior is a velocity; paths are drawn of the first two channels.
        n_trials: shown over time.
        simulated: whether the data are simulated.
    """
    usable = np.flatnonzero(np.isfinite(behavior).all(2).sum(1) > 1) if behavior.size else np.zeros(0, int)
    shown = usable[style.evenly_spaced(len(usable), n_trials)] if len(usable) else usable
    rows, columns = min(behavior.shape[2], MAX_CHANNELS), max(len(shown), 1)
    with_paths = paths and behavior.shape[2] >= 2 and len(usable) > 0
    width = 1.0 + 2.1 * columns + (2.4 * (1 + len(decoded)) if with_paths else 0)
    figure, _ = style.new_figure(width, 0.9 + 1.5 * rows, "Decoded and true behavior", simulated=simulated, rows=0)
    if not len(shown):
        style.note(figure.add_subplot(), "no trial with known behavior")
        return figure
    # subfigures keep the paths' equal axes from narrowing the panels over time
    parts = figure.subfigures(1, 2, width_ratios=(1 + 2.1 * columns, 2.4 * (1 + len(decoded)))) if with_paths else None
    left = figure if parts is None else parts[0]
    axes = left.subplots(rows, columns, squeeze=False, sharex=True, sharey="row")
    colors = dict(zip(decoded, (style.MODEL, style.BASELINE, "#5b8c5a", "#8e6c8a"), strict=False))
    time = start_ms + (np.arange(behavior.shape[1]) + 0.5) * bin_ms
    for column, trial in enumerate(shown):
        axes[0, column].set_title(f"trial {trial if trials is None else trials[trial]}")
        for row in range(rows):
            axes[row, column].plot(time, behavior[trial, :, row], color=style.TRUE, lw=1.2, label="true")
            for name, values in decoded.items():
                score = f" (R2 {scores[name]:.2f})" if scores and name in scores else ""
                axes[row, column].plot(time, values[trial, :, row], color=colors[name], label=f"{name}{score}")
            mark_event(axes[row, column], (start_ms, start_ms + len(time) * bin_ms), align)
    style.label_outer(axes, x=time_label(align), y="")
    for row in range(rows):
        name = names[row] if row < len(names) else f"channel {row}"
        axes[row, 0].set_ylabel(f"{name} ({unit})" if unit else name)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    if parts is not None:
        right = parts[1].subplots(1, 1 + len(decoded), squeeze=False)[0]
        known = usable[style.evenly_spaced(len(usable), MAX_PATHS)]
        for panel, (name, values) in zip(right, {"true": behavior, **decoded}.items(), strict=True):
            _paths(panel, values[known], bin_ms, None if condition is None else condition[known], angles)
            panel.set_title(f"paths, {name}")
            panel.set(xlim=right[0].get_xlim(), ylim=right[0].get_ylim())  # those of the true ones
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def integrated(velocity: np.ndarray, bin_ms: float) -> np.ndarray:
    """Paths (B, T, K) of velocities (B, T, K) per second from the first known bin on, NaN where velocity is unknown."""
    return np.where(np.isfinite(velocity), np.nancumsum(velocity, axis=1) * bin_ms / 1000, np.nan)


def _paths(
    panel: Axes,
    velocity: np.ndarray,
    bin_ms: float,
    condition: np.ndarray | None,
    angles: Mapping[int, float] | None = None,
) -> None:
    none: dict[str, Any] = {"color": style.MODEL}
    looks = {} if condition is None else condition_looks(np.unique(condition[condition >= 0]), angles)
    for k, path in enumerate(integrated(velocity[..., :2], bin_ms)):
        look = none if condition is None else looks.get(int(condition[k]), none)
        panel.plot(*path.T, **look, lw=0.8, alpha=0.7)
    panel.set_aspect("equal")
    panel.set(xticks=[], yticks=[])
