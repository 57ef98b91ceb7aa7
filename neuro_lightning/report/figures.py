"""The figures of a run, from numpy arrays: each function returns a matplotlib figure and touches nothing else.

Axes letters as in ``neuro_lightning.contracts``; rates come in spikes per bin and are shown in spikes/s.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from neuro_lightning.report.style import (
    BASELINE,
    MODEL,
    QUIET,
    RATES,
    TRUE,
    condition_colors,
    new_figure,
    note,
    style,
)

MAX_CONDITIONS = 8
MAX_LINES = 60


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
        rates: (B, L, N) predicted spikes per bin.
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
    order = np.argsort(rates.mean(0).argmax(0), kind="stable") if n_trials else np.arange(n_neurons)
    to_hz = 1000 / bin_ms
    panels = {"predicted": rates[..., order] * to_hz}
    if true_rates is not None:
        panels["true"] = true_rates[..., order] * to_hz
    rows, columns = 1 + len(panels), max(n_trials, 1)
    with style():
        figure, axes = new_figure(
            1.2 + 2.6 * columns,
            0.6 + 1.7 * rows,
            "Spikes and rates",
            simulated=simulated,
            rows=rows,
            columns=columns,
            sharex=True,
            sharey=True,
        )
        if not rates.size:
            note(axes[0, 0], "no trials")
            return figure
        starts = np.broadcast_to(np.asarray(start_ms, float), n_trials)
        top = _robust_top(np.concatenate([panel.ravel() for panel in panels.values()]))
        for column in range(n_trials):
            ends = (starts[column], starts[column] + n_total * bin_ms)
            _raster(axes[0, column], spikes[column][:, order], bin_ms, ends[0])
            for row, panel in enumerate(panels.values(), start=1):
                image = axes[row, column].imshow(
                    panel[column].T, aspect="auto", origin="lower", cmap=RATES, vmin=0, vmax=top,
                    extent=(*ends, -0.5, n_neurons - 0.5), interpolation="nearest",
                )  # fmt: skip
            number = column if trials is None else int(trials[column])
            axes[0, column].set_title(f"trial {number}")
            axes[-1, column].set_xlabel(_time_label(align))
            for row in range(rows):
                color = TRUE if row == 0 else "white"
                if n_bins is not None and n_bins < n_total:
                    axes[row, column].axvline(ends[0] + n_bins * bin_ms, color=color, lw=0.9, ls=(0, (3, 2)))
                _mark_event(axes[row, column], ends, align, color)
        axes[0, 0].set_xlim(starts.min(), starts.max() + n_total * bin_ms)  # shared
        for row, name in enumerate(["spikes", *(f"{name} rates" for name in panels)]):
            axes[row, 0].set_ylabel(f"{name}\n{neurons}")
        axes[0, 0].yaxis.set_major_locator(MaxNLocator(5, integer=True))
        figure.colorbar(image, ax=axes[1:, :], label="rate (spikes/s)", shrink=0.8, pad=0.01, extend="max")
    return figure


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
    with style():
        figure, axes = new_figure(7.4, 2.9, "Learning curve", simulated=simulated, columns=2)
        losses, scores = axes[0]
        drawn = [
            _curve(losses, metrics, "train/loss", QUIET, "training"),
            _curve(losses, metrics, "val/loss", MODEL, "validation"),
        ]
        losses.set(xlabel="training step", ylabel=loss)
        losses.legend() if any(drawn) else note(losses, "no loss was logged")

        if _curve(scores, metrics, metric, MODEL, "validation"):
            seen = np.isfinite(metrics[metric])
            best = (np.nanargmax if mode == "max" else np.nanargmin)(metrics[metric])
            scores.plot(metrics["step"][best], metrics[metric][best], "o", color=MODEL, ms=4.5, zorder=3)
            text = f"{metrics[metric][best]:.3f}"
            right = metrics["step"][best] > metrics["step"][seen].mean()
            scores.annotate(
                text,
                (metrics["step"][best], metrics[metric][best]),
                textcoords="offset points",
                xytext=(-5 if right else 5, 5),
                ha="right" if right else "left",
                color=MODEL,
            )
        for name, value in (references or {}).items():
            color = TRUE if name.startswith(("true rates", "noise ceiling")) else BASELINE
            scores.axhline(value, color=color, lw=1, ls=(0, (4, 2)), label=f"{name} ({value:.3f})")
        scores.set(xlabel="training step", ylabel=label)
        scores.legend() if scores.lines else note(scores, "nothing was logged")
    return figure


def latents_figure(
    latents: np.ndarray,
    *,
    bin_ms: float,
    start_ms: float = 0,
    align: str = "",
    condition: np.ndarray | None = None,
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
        simulated: whether the data are simulated.
    """
    scores, explained = principal_components(latents, 3)
    n_shown = scores.shape[2]
    lines, means, colors = _by_condition(scores, condition)
    time = start_ms + (np.arange(scores.shape[1]) + 0.5) * bin_ms
    with style():
        figure, _ = new_figure(8, 3.9, "Latents' principal components", simulated=simulated, rows=0, columns=0)
        grid = figure.add_gridspec(max(n_shown, 1), 2, width_ratios=(1.15, 1))
        space = figure.add_subplot(grid[:, 0], projection="3d" if n_shown == 3 else None)
        if not scores.size:
            note(space, "no latents")
            return figure
        _trajectories(space, lines, means, colors)
        for k in range(n_shown):
            axes = figure.add_subplot(grid[k, 1])
            for line, color in zip(lines, colors[: len(lines)], strict=True):
                axes.plot(time, line[:, k], color=color, lw=0.6, alpha=0.35)
            for line, color in zip(means, colors[len(lines) :], strict=True):
                axes.plot(time, line[:, k], color=color, lw=1.6)
            _mark_event(axes, (start_ms, start_ms + len(time) * bin_ms), align)
            axes.set_ylabel(f"PC{k + 1} ({100 * explained[k]:.0f} %)")
            axes.tick_params(labelbottom=k == n_shown - 1)
        axes.set_xlabel(_time_label(align))
    return figure


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
    kept = np.flatnonzero(~np.isnan(predicted).all((1, 2)) & ~np.isnan(true).all((1, 2)))
    kept = kept[np.unique(np.linspace(0, len(kept) - 1, MAX_CONDITIONS).round().astype(int))] if len(kept) else kept
    predicted, true = predicted[kept], true[kept]
    with np.errstate(invalid="ignore"):
        spread = np.nan_to_num(np.ma.masked_invalid(true).std((0, 1)).filled(0.0)) if true.size else np.zeros(0)
    chosen = np.argsort(-spread, kind="stable")[:n_neurons]
    columns = min(max(len(chosen), 1), 3)
    rows = -(-max(len(chosen), 1) // columns)
    time = start_ms + (np.arange(predicted.shape[1]) + 0.5) * bin_ms
    with style():
        figure, axes = new_figure(
            0.8 + 2.5 * columns,
            0.7 + 1.9 * rows,
            "Predicted and true PSTHs",
            simulated=simulated,
            rows=rows,
            columns=columns,
            sharex=True,
        )
        colors = condition_colors(len(kept))
        for panel, neuron in zip(axes.flat, chosen, strict=False):
            for c, color in enumerate(colors):
                panel.plot(time, true[c, :, neuron] * 1000 / bin_ms, color=color, lw=0.9, ls=(0, (2, 1)), alpha=0.75)
                panel.plot(time, predicted[c, :, neuron] * 1000 / bin_ms, color=color, lw=1.5)
            _mark_event(panel, (start_ms, start_ms + len(time) * bin_ms), align)
            panel.set_title(f"neuron {neuron}")
            panel.set_ylim(bottom=0)
        for panel in axes.flat[len(chosen) :]:
            panel.set_axis_off()
        if not len(chosen):
            note(axes[0, 0], "no conditions")
            return figure
        for panel in axes[-1]:
            panel.set_xlabel(_time_label(align))
        for panel in axes[:, 0]:
            panel.set_ylabel("rate (spikes/s)")
        lines = [
            axes[0, 0].plot([], [], color=TRUE, ls=ls, label=name)[0]
            for ls, name in (("-", "predicted"), ((0, (2, 1)), "true"))
        ]
        figure.legend(handles=lines, loc="outside upper right", ncols=2)
    return figure


def neuron_bits_figure(
    bits: np.ndarray, *, label: str = "co-smoothing (bits/spike)", simulated: bool = False
) -> Figure:
    """How the score is spread over the neurons.

    Args:
        bits: (N,) bits per spike of each neuron, NaN for one without spikes.
        label: how the axis is called.
        simulated: whether the data are simulated.
    """
    known = bits[np.isfinite(bits)]
    with style():
        figure, axes = new_figure(4.6, 3.0, "Score of each neuron", simulated=simulated)
        panel = axes[0, 0]
        if not known.size:
            note(panel, "no neuron fired")
            return figure
        low, high = np.percentile(known, [1, 99]) if known.size > 1 else (known[0], known[0])
        reach = max(high - low, 1e-3)
        n_bins = int(np.clip(2 * np.sqrt(known.size), 8, 25))
        edges = np.linspace(min(low - 0.1 * reach, 0), max(high + 0.1 * reach, 0), n_bins + 1)
        panel.hist(np.clip(known, edges[0], edges[-1]), edges, color=MODEL, alpha=0.85, edgecolor="white", lw=0.5)
        panel.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        panel.axvline(0, color=QUIET, lw=1)
        panel.axvline(np.median(known), color=TRUE, lw=1.2, ls=(0, (4, 2)))
        worse = int((known < 0).sum())
        panel.set_title(f"{known.size} neurons, median {np.median(known):.3f}, {worse} below 0", color="#555555")
        panel.set(xlabel=label, ylabel="neurons")
    return figure


def principal_components(latents: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The first principal components over trials and bins.

    Args:
        latents: (B, L, D).
        n: components wanted; there are fewer where D or the number of bins is smaller.

    Returns:
        Scores (B, L, n) and the share of variance that each explains (n,).
    """
    flat = latents.reshape(-1, latents.shape[2]).astype(np.float64)
    if not flat.size:
        return np.zeros((*latents.shape[:2], 0)), np.zeros(0)
    flat = flat - flat.mean(0)
    _, values, axes = np.linalg.svd(flat, full_matrices=False)
    axes = axes[:n]
    axes = axes * np.where(axes[np.arange(len(axes)), np.abs(axes).argmax(1)] < 0, -1, 1)[:, None]  # a fixed sign
    total = max(float((values**2).sum()), np.finfo(float).tiny)
    return (flat @ axes.T).reshape(*latents.shape[:2], len(axes)), values[:n] ** 2 / total


def _robust_top(values: np.ndarray) -> float:
    return max(float(np.nanpercentile(values, 99.5)), 1e-9) if np.isfinite(values).any() else 1.0


def _time_label(align: str) -> str:
    return f"time from {align} (ms)" if align else "time in trial (ms)"


def _mark_event(axes: Axes, ends: tuple[float, float], align: str, color: str = QUIET) -> None:
    """A dotted line at 0, the event that windows are aligned to, where it is not their begin."""
    if align and ends[0] < 0 <= ends[1]:
        axes.axvline(0, color=color, lw=0.9, ls=":")


def _raster(axes: Axes, counts: np.ndarray, bin_ms: float, start_ms: float) -> None:
    """(L, N) counts as ticks, one line a neuron; a bin with more spikes has a thicker tick."""
    bins, neurons = np.nonzero(np.nan_to_num(counts) > 0)
    widths = 0.8 + 0.5 * (counts[bins, neurons] - 1).clip(0, 3)
    axes.vlines(start_ms + (bins + 0.5) * bin_ms, neurons - 0.4, neurons + 0.4, color=TRUE, lw=widths)


def _curve(axes: Axes, metrics: Mapping[str, np.ndarray], name: str, color: str, label: str) -> bool:
    values = metrics.get(name)
    if values is None or not np.isfinite(values).any():
        return False
    seen = np.isfinite(values)
    axes.plot(metrics["step"][seen], values[seen], color=color, label=label, marker="o" if seen.sum() < 3 else None)
    return True


def _by_condition(
    scores: np.ndarray, condition: np.ndarray | None
) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Single trials, the conditions' means, and a color for each of both."""
    names = np.unique(condition[condition >= 0]) if condition is not None else np.zeros(0, int)
    if not len(names):
        lines = list(scores[:MAX_LINES])
        return lines, [], np.tile(to_rgba(MODEL), (len(lines), 1))
    names = names[np.unique(np.linspace(0, len(names) - 1, MAX_CONDITIONS).round().astype(int))]
    palette = condition_colors(len(names))
    shown = np.flatnonzero(np.isin(condition, names))[:MAX_LINES]
    means = [scores[condition == name].mean(0) for name in names]
    return list(scores[shown]), means, np.concatenate([palette[np.searchsorted(names, condition[shown])], palette])


def _trajectories(axes: Axes, lines: list[np.ndarray], means: list[np.ndarray], colors: np.ndarray) -> None:
    n = 3 if axes.name == "3d" else 2
    for i, (line, color) in enumerate(zip([*lines, *means], colors, strict=True)):
        single = i < len(lines)
        path = np.pad(line, ((0, 0), (0, max(n - line.shape[1], 0)))).T[:n]
        axes.plot(*path, color=color, lw=0.6 if single else 1.5, alpha=0.45 if single else 1)
        axes.plot(*path[:, :1], ".", color=color, ms=3 if single else 7)
    for k, name in enumerate("xyz"[:n]):
        axis = getattr(axes, f"{name}axis")
        axis.set_label_text(f"PC{k + 1}")
        axis.set_ticklabels([])
        if n == 3:
            axis.labelpad = -10
            axis.set_pane_color("#fafafa")
