"""The figure of a stream: how long bins took, and what was said of them."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from neuro_lightning.display import style
from neuro_lightning.display.figures_traces import similarity_order

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_BINS = 500
MOST_NEURONS = 400
CHANNELS = 3


class StreamedTrial(Protocol):
    """What is drawn of a trial; NaN where a bin never came, or nothing was said of it.

    Attributes:
        counts: (T, N_in).
        rates: (T, N) spikes per bin.
        decoded: (T, K); None without a decoder.
        behavior: (T, K) as measured; None where it is not known.
    """

    counts: np.ndarray
    rates: np.ndarray
    decoded: np.ndarray | None
    behavior: np.ndarray | None


@style.package_style()
def stream_figure(
    trials: Sequence[StreamedTrial],
    latency_ms: np.ndarray,
    computing_ms: np.ndarray,
    *,
    bin_ms: float,
    title: str = "Real time",
    simulated: bool = False,
) -> Figure:
    """Counts, rates and decoded behavior of the last trials over time; at the right latency and decoded paths.

    Neurons that fire together stand together. Paths are sums of two decoded channels, which are velocities, from each
    trial's start; bins of which nothing was said are left out of them.

    Args:
        trials: in the order in which they came; at least one.
        latency_ms: of each bin, from its end to the answer.
        computing_ms: what the model took of it.
        bin_ms: bin width in ms.
        title: above the figure.
        simulated: whether the data are simulated.
    """
    shown = _last(trials)
    counts, rates = (np.concatenate([getattr(trial, name) for trial in shown]) for name in ("counts", "rates"))
    decoded = shown[0].decoded
    channels = 0 if decoded is None else min(decoded.shape[1], CHANNELS)
    figure, _ = style.new_figure(10.2, 4.4 + 0.9 * channels, title, simulated=simulated, rows=0, columns=0)
    left, right = figure.add_gridspec(1, 2, width_ratios=(2.1, 1))
    rows = left.subgridspec(2 + channels, 1, height_ratios=[2.2, 2.2] + [1] * channels)
    panels = [figure.add_subplot(rows[0])]
    panels += [figure.add_subplot(rows[k], sharex=panels[0]) for k in range(1, 2 + channels)]
    ends = np.cumsum([0, *(len(trial.counts) for trial in shown)]) * bin_ms / 1000
    _heat_maps(figure, panels[:2], counts, rates, bin_ms)
    for k in range(channels):
        _channel(panels[2 + k], shown, k, bin_ms)
    if channels:
        panels[2].set_title(_explained(trials))
    for axes in panels:
        for end in ends[1:-1]:
            axes.axvline(end, color=style.QUIET, lw=0.6, ls=(0, (3, 2)))
        axes.label_outer()
    panels[0].set_xlim(0, ends[-1])
    panels[-1].set_xlabel(f"time in the last {len(shown)} of {len(trials)} trials (s)")
    path = decoded is not None and decoded.shape[1] == 2
    cells = right.subgridspec(2 if path else 1, 1)
    _latency(figure.add_subplot(cells[0]), latency_ms, computing_ms)
    if path:
        _paths(figure.add_subplot(cells[1]), shown, bin_ms)
    return figure


def _last(trials: Sequence[StreamedTrial]) -> list[StreamedTrial]:
    """The last trials that have ``MOST_BINS`` together; of a single one that has more, its last bins."""
    total = np.cumsum([len(trial.counts) for trial in trials[::-1]])
    shown = list(trials[len(trials) - max(1, int((total <= MOST_BINS).sum())) :])
    if len(shown[0].counts) > MOST_BINS:
        cut = {name: getattr(shown[0], name) for name in ("counts", "rates", "decoded", "behavior")}
        shown[0] = SimpleNamespace(**{n: None if v is None else v[-MOST_BINS:] for n, v in cut.items()})
    return shown


def _heat_maps(figure: Figure, panels: Sequence[Axes], counts: np.ndarray, rates: np.ndarray, bin_ms: float) -> None:
    """Counts above the rates of the same neurons, in spikes/s."""
    n_in = counts.shape[1]
    known = np.nan_to_num(rates[:, :n_in])
    order = similarity_order(known)
    order = order[style.evenly_spaced(n_in, MOST_NEURONS)]
    ends = 0, len(counts) * bin_ms / 1000
    some = counts[np.isfinite(counts)]
    top = max(1.0, float(np.percentile(some, 99.5))) if some.size else 1.0
    shown = {"counts": (counts, "spikes in a bin", "Greys", top)}
    hz = rates[:, :n_in] * 1000 / bin_ms
    shown["rates"] = hz, "rate (spikes/s)", style.RATES, float(np.nanpercentile(hz, 99.5))
    for axes, (name, (values, label, colors, most)) in zip(panels, shown.items(), strict=True):
        image = style.heat_map(axes, values[:, order], ends, cmap=colors, vmin=0, vmax=most)
        axes.set_ylabel(f"{name}\nneurons")
        axes.set_facecolor("#f0a58f")  # bins that never came
        style.whole_ticks(axes, 4)
        bar = figure.colorbar(image, ax=axes, label=label, pad=0.01, aspect=12, extend="max")
        bar.ax.locator_params(axis="y", nbins=5, integer=True)
    if np.isnan(counts).all(1).any():
        panels[0].set_title("red: bins that never came")


def _channel(axes: Axes, shown: Sequence[StreamedTrial], k: int, bin_ms: float) -> None:
    """One channel of behavior over time, decoded and as measured."""
    decoded = np.concatenate([trial.decoded for trial in shown])[:, k]
    time = (np.arange(len(decoded)) + 0.5) * bin_ms / 1000
    if shown[0].behavior is not None:
        axes.plot(time, np.concatenate([trial.behavior for trial in shown])[:, k], color=style.TRUE, lw=1)
    axes.plot(time, decoded, color=style.MODEL, lw=1)
    axes.set_ylabel(f"channel {k}")
    axes.locator_params(axis="y", nbins=3)


def _explained(trials: Sequence[StreamedTrial]) -> str:
    """What the lines of behavior are, and how much of its variance is decoded, the mean over channels."""
    if any(trial.behavior is None for trial in trials):
        return "decoded behavior"
    measured, decoded = (np.concatenate([getattr(trial, n) for trial in trials]) for n in ("behavior", "decoded"))
    known = np.isfinite(measured + decoded).all(1)
    left = np.square(measured - decoded)[known].sum(0)
    total = np.square(measured - measured[known].mean(0))[known].sum(0)
    return f"behavior, measured (black) and decoded (blue): R2 {np.mean(1 - left / total):.3f} in {known.sum()} bins"


def _latency(axes: Axes, latency_ms: np.ndarray, computing_ms: np.ndarray) -> None:
    """Two histograms over the logarithm of time, with the median and the 99th percentile of the first."""
    both = np.maximum(np.concatenate([latency_ms, computing_ms]), 1e-3)
    edges = np.geomspace(both.min() * 0.9, both.max() * 1.1, 60)
    for values, color, name in (
        (computing_ms, style.QUIET, "the model alone"), (latency_ms, style.MODEL, "from a bin's end to the answer"),
    ):  # fmt: skip
        axes.hist(np.maximum(values, 1e-3), edges, color=color, alpha=0.75, label=name)
    for share, line in ((50, "-"), (99, style.DASHED)):
        value = np.percentile(latency_ms, share)
        axes.axvline(value, color=style.BASELINE, lw=1.1, ls=line, label=f"p{share}: {value:.2f} ms")
    axes.set(xscale="log", xlabel="time (ms)", ylabel="bins", title=f"latency of {len(latency_ms)} bins")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylim(top=1.7 * axes.get_ylim()[1])
    axes.legend(loc="upper right")


def _paths(axes: Axes, shown: Sequence[StreamedTrial], bin_ms: float) -> None:
    """The paths of two channels of velocity, each from its trial's start."""
    for trial in shown:
        gone = np.isnan(trial.decoded).any(1)
        for values, color in ((trial.behavior, style.TRUE), (trial.decoded, style.MODEL)):
            if values is not None:
                steps = np.where(gone[:, None], 0, values) * bin_ms / 1000
                axes.plot(*np.concatenate([np.zeros((1, 2)), np.nancumsum(steps, axis=0)]).T, color=color, lw=1)
    for color, name in ((style.TRUE, "measured"), (style.MODEL, "decoded")):
        axes.plot([], [], color=color, label=name)
    axes.set(
        title="paths, from each trial's start", xlabel="sum of channel 0", ylabel="sum of channel 1", aspect="equal"
    )
    axes.set_adjustable("datalim")
    axes.legend(loc="best")
