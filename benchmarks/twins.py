"""Simulated twins of the maze datasets beside the recordings: statistics in a table, and one figure.

    python benchmarks/twins.py mc_maze=FILE.nwb mc_maze_medium=FILE.nwb mc_maze_small=FILE.nwb --out twins.png

The files are the benchmark's public test files (or parts of them). Each twin has as many test trials and held-in
neurons as its file. What the columns mean is said in ``neuro_lightning.functional.spike_statistics``.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neuro_lightning.data.nlb.reader import load_test_trials
from neuro_lightning.data.nlb.twin import write_twin
from neuro_lightning.display import style
from neuro_lightning.display.figures_spikes import draw_raster
from neuro_lightning.functional.spike_statistics import (
    LEAST_HZ,
    SUM_MS,
    spectrum,
    spike_statistics,
    sum_bins,
    trial_correlations,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BIN_MS = 5
COLORS = {"recorded": style.TRUE, "simulated": style.MODEL}
HEAD = "{:<16}{:<10} {:>7} {:>8} {:>10} {:>6} {:>8} {:>11}"
ROW = "{:<16}{:<10} {:>7} {:>8} {:>10.2f} {:>6.2f} {:>8.3f} {:>11}"


def twin_counts(dataset: str, n_trials: int, seed: int = 0) -> np.ndarray:
    """(B, T, N) held-in spikes of a twin's test trials; it trains on as many."""
    with tempfile.TemporaryDirectory() as folder:
        _, test = write_twin(dataset, folder, seed=seed, n_trials=n_trials, n_test_trials=n_trials)
        return load_test_trials(dataset, test, bin_ms=BIN_MS).heldin


def table(recordings: dict[str, dict[str, np.ndarray]]) -> str:
    """The statistics of recordings and twins, one below the other."""
    lines = [HEAD.format("", "", "trials", "neurons", "median Hz", "Fano", "mean |r|", "components")]
    for dataset, both in recordings.items():
        for kind, counts in both.items():
            numbers = astuple(spike_statistics(counts, BIN_MS))
            lines.append(ROW.format(dataset, kind, len(counts), counts.shape[2], *numbers))
    return "\n".join(lines)


@style.package_style()
def figure_of(recordings: dict[str, dict[str, np.ndarray]]) -> Figure:
    """A row a dataset: spikes of a recorded and of a simulated trial, then four statistics of both."""
    figure, axes = style.new_figure(
        15, 0.6 + 2.4 * len(recordings), "Recordings and their twins", simulated=False, rows=len(recordings), columns=6
    )
    for row, (dataset, both) in zip(axes, recordings.items(), strict=True):
        for ax, (kind, counts) in zip(row, both.items(), strict=False):
            rates = counts.mean((0, 1))
            draw_raster(ax, counts[0][:, np.argsort(rates)], BIN_MS, -250)
            ax.set(title=f"{dataset}, {kind}", xlabel="ms from movement onset", ylabel="neuron, by rate")
        for kind, counts in both.items():
            _draw_statistics(row[2:], counts, kind)
        row[2].legend()
    return figure


def _draw_statistics(axes: np.ndarray, counts: np.ndarray, kind: str) -> None:
    """Rates, variance over mean, correlations and principal components of one recording."""
    look = {"color": COLORS[kind], "label": kind}
    rates = counts.mean((0, 1)) * 1000 / BIN_MS
    _draw_share(axes[0], rates, **look)
    axes[0].set(xscale="log", xlabel="rate (spikes/s)", ylabel="share of neurons")
    active = counts[:, :, rates >= LEAST_HZ]
    trials = active.sum(1, dtype=float)
    axes[1].scatter(trials.mean(0), trials.var(0, ddof=1) / trials.mean(0), s=8, alpha=0.6, **look)
    axes[1].set(xscale="log", ylim=(0, 8), xlabel="spikes in a trial", ylabel="Fano factor")
    _draw_share(axes[2], trial_correlations(trials), **look)
    axes[2].set(xlim=(-0.6, 0.6), xlabel="correlation of two neurons", ylabel="share of pairs")
    shares = np.cumsum(spectrum(sum_bins(active, SUM_MS // BIN_MS)))
    axes[3].plot(np.arange(1, len(shares) + 1), shares, **look)
    axes[3].axhline(0.5, color=style.QUIET, lw=0.8)
    axes[3].set(xlabel="principal components", ylabel="share of variance", ylim=(0, 1))


def _draw_share(ax: Axes, values: np.ndarray, **look: str) -> None:
    """The share of values that are at most so large."""
    ax.plot(np.sort(values), np.arange(1, len(values) + 1) / len(values), **look)


def main() -> None:
    """Read the recordings, simulate the twins, print the table, save the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="DATASET=FILE", help="a test file of a maze dataset")
    parser.add_argument("--seed", type=int, default=0, help="of the twins")
    parser.add_argument("--out", type=Path, default=Path("twins.png"))
    args = parser.parse_args()
    recordings = {}
    for dataset, _, path in (word.partition("=") for word in args.files):
        recorded = load_test_trials(dataset, path, bin_ms=BIN_MS).heldin
        recordings[dataset] = {"recorded": recorded, "simulated": twin_counts(dataset, len(recorded), args.seed)}
    print(table(recordings))
    figure_of(recordings).savefig(args.out)
    print(f"figure      {args.out}")


if __name__ == "__main__":
    main()
