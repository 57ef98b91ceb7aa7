"""Statistics of a recording's spike counts that a simulated recording must share to be a fair stand-in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEAST_HZ = 1.0
"""Neurons below this rate count for the median rate alone: of a few spikes nothing else can be told."""

SUM_MS = 100
"""Width of the bins whose principal components are counted, in ms."""


@dataclass(frozen=True)
class SpikeStatistics:
    """What :func:`spike_statistics` finds.

    Attributes:
        median_rate_hz: median over neurons of the mean rate, Hz.
        trial_fano: median over neurons of variance over mean of a trial's spike count.
        mean_correlation: mean over pairs of neurons of the absolute correlation of their trials' spike counts.
        half_variance: how many principal components hold half of the variance of standardised counts in 100 ms bins.
    """

    median_rate_hz: float
    trial_fano: float
    mean_correlation: float
    half_variance: int


def spike_statistics(counts: np.ndarray, bin_ms: float) -> SpikeStatistics:
    """Rate, over-dispersion, correlation and dimension of a population; all but the rate of neurons above 1 Hz.

    The absolute correlation and the dimension depend on the numbers of trials and neurons: compare recordings of the
    same size.

    Args:
        counts: (B, T, N) spikes of trials of equal length, without NaN.
        bin_ms: bin width.

    Raises:
        ValueError: fewer than two trials, or fewer than two neurons above 1 Hz.
    """
    counts = np.asarray(counts, np.float64)
    rates = counts.mean((0, 1)) * 1000 / bin_ms
    active = counts[:, :, rates >= LEAST_HZ]
    if len(active) < 2 or active.shape[2] < 2:
        raise ValueError(f"{active.shape[2]} neurons above {LEAST_HZ} Hz in {len(active)} trials tell no statistics")
    trials = active.sum(1)
    return SpikeStatistics(
        median_rate_hz=float(np.median(rates)),
        trial_fano=float(np.median(trials.var(0, ddof=1) / trials.mean(0))),
        mean_correlation=float(np.abs(trial_correlations(trials)).mean()),
        half_variance=int((np.cumsum(spectrum(sum_bins(active, max(1, round(SUM_MS / bin_ms))))) < 0.5).sum() + 1),
    )


def sum_bins(counts: np.ndarray, width: int) -> np.ndarray:
    """(B, T // width, N) sums over ``width`` bins; an incomplete last one is left out."""
    n_trials, n_bins, n_units = counts.shape
    n_bins //= width
    return counts[:, : n_bins * width].reshape(n_trials, n_bins, width, n_units).sum(2)


def trial_correlations(trials: np.ndarray) -> np.ndarray:
    """(P,) correlations of all pairs of neurons from (B, N) spikes of each trial; every neuron must vary."""
    return np.corrcoef(trials.T)[np.triu_indices(trials.shape[1], 1)]


def spectrum(counts: np.ndarray) -> np.ndarray:
    """(N,) shares of the principal components in the variance of standardised counts (B, T, N), the largest first."""
    flat = counts.reshape(-1, counts.shape[2])
    flat = flat[:, flat.std(0) > 0]
    values = np.linalg.eigvalsh(np.corrcoef(flat.T))[::-1]
    return values / values.sum()
