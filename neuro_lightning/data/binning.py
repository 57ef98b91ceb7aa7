"""From spike times and continuous series to bins on one global grid, without ever making the grid of a whole session.

The rules are those of the Neural Latents Benchmark (nlb_tools 0.0.4, ``NWBDataset``), so that counts are the same
to the last spike:

* a recording is a row of 1 ms *samples*, sample k being [k, k + 1) ms; a spike at t s lies in sample
  ``floor(round(1000 t, 6))``;
* a *bin* of ``bin_ms`` samples counts from session time zero, not from the trial: a window starts at the first bin
  whose start is not before the window's;
* where a recording begins far from zero, the row begins at a later (or negative) sample, the ``origin``, and all
  numbers count from there; it is a whole number of bins, so that bins stay the same;
* a sample is observed where an observation interval covers all of it, a bin where its first sample is observed.

Times are in s where they come from a file, in samples (ms) or bins everywhere else.
"""

from __future__ import annotations

import numpy as np

from neuro_lightning.data.formats.spike_recording import Series

FIR_ORDER = 500
"""Order of the anti-aliasing filter that resamples behavior."""


def to_ns(seconds: np.ndarray) -> np.ndarray:
    """Seconds as whole nanoseconds, which compare without rounding errors.

    Args:
        seconds: (B,) finite times in s.

    Returns:
        (B,) int64.
    """
    seconds = np.asarray(seconds, np.float64)
    whole = np.floor(seconds)
    return whole.astype(np.int64) * 10**9 + (np.round(seconds - whole, 9) * 1e9).astype(np.int64)


def first_bins(align: np.ndarray, offset_ms: int, bin_ms: int) -> np.ndarray:
    """The first bin of each window that starts ``offset_ms`` after ``align``.

    Args:
        align: (B,) finite times in s.
        offset_ms: where the window starts, in ms from ``align``.
        bin_ms: bin width in ms.

    Returns:
        (B,) int64 bin numbers on the global grid.
    """
    start = to_ns(align) + offset_ms * 10**6
    return -(-start // (bin_ms * 10**6))


def spike_samples(spike_times: list[np.ndarray], observed: np.ndarray, origin: int = 0) -> list[np.ndarray]:
    """The samples in which each unit spiked; spikes outside the observed samples are dropped.

    Args:
        spike_times: U sorted arrays of times in s.
        observed: (S,) bool, see :func:`observed_samples`.
        origin: the first sample's number.

    Returns:
        U sorted int64 arrays, counted from the origin.
    """
    samples = []
    for times in spike_times:
        index = np.floor(np.round(times * 1000.0, 6)).astype(np.int64) - origin
        index = index[(index >= 0) & (index < len(observed))]
        samples.append(index[observed[index]])
    return samples


def observed_samples(intervals: np.ndarray, n_samples: int, origin: int = 0) -> np.ndarray:
    """Which samples lie inside the observation intervals.

    Args:
        intervals: (k, 2) start and stop in s.
        n_samples: samples in the recording.
        origin: the first sample's number.

    Returns:
        (n_samples,) bool.
    """
    observed = np.zeros(n_samples, bool)
    starts = np.ceil(np.round(intervals[:, 0] * 1000.0, 6)).astype(np.int64) - origin
    stops = np.floor(np.round(intervals[:, 1] * 1000.0, 6)).astype(np.int64) - origin
    for start, stop in zip(np.maximum(starts, 0), np.maximum(stops, 0), strict=True):
        observed[start:stop] = True
    return observed


def observed_bins(observed: np.ndarray, first: np.ndarray, n_bins: int, bin_ms: int) -> np.ndarray:
    """Which bins of each window were observed; none is outside the recording.

    Args:
        observed: (S,) bool.
        first: (B,) first bins.
        n_bins: bins in a window.
        bin_ms: bin width in ms.

    Returns:
        (B, n_bins) bool.
    """
    sample = (first[:, None] + np.arange(n_bins)) * bin_ms
    inside = (sample >= 0) & (sample < len(observed))
    return inside & observed[np.where(inside, sample, 0)]


def spikes_in_windows(samples: np.ndarray, start: np.ndarray, stop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One unit's spikes in windows, which may overlap.

    Args:
        samples: sorted samples of the unit's spikes.
        start: (B,) first sample of each window.
        stop: (B,) the sample after each window.

    Returns:
        The window and the sample of each spike, two int64 arrays of one length.
    """
    low, high = np.searchsorted(samples, start), np.searchsorted(samples, stop)
    counts = np.maximum(high - low, 0)
    window = np.repeat(np.arange(len(start)), counts)
    begin = np.repeat(low - np.cumsum(counts) + counts, counts)
    return window, samples[begin + np.arange(len(window))]


def count_spikes(samples: list[np.ndarray], first: np.ndarray, n_bins: int, bin_ms: int) -> np.ndarray:
    """Spike counts in windows.

    Args:
        samples: U arrays of spike samples, see :func:`spike_samples`.
        first: (B,) the windows' first bins.
        n_bins: bins in a window.
        bin_ms: bin width in ms.

    Returns:
        (B, n_bins, U) uint8, or float32 where a bin holds more than 255 spikes.
    """
    n_trials = len(first)
    counts = np.zeros((n_trials, n_bins, len(samples)), np.uint8)
    start = first * bin_ms
    for unit, spikes in enumerate(samples):
        window, sample = spikes_in_windows(spikes, start, start + n_bins * bin_ms)
        cell = window * n_bins + (sample - start[window]) // bin_ms
        flat = np.bincount(cell, minlength=n_trials * n_bins)
        if flat.max(initial=0) > 255 and counts.dtype == np.uint8:
            counts = counts.astype(np.float32)
        counts[:, :, unit] = flat.reshape(n_trials, n_bins)
    return counts


def series_on_samples(series: Series, n_samples: int, origin: int = 0) -> np.ndarray:
    """A series on the recording's 1 ms samples.

    A series with one value a millisecond keeps its values, at the nearest sample; any other is interpolated linearly,
    but not across gaps of more than two sample intervals.

    Args:
        series: the series.
        n_samples: samples in the recording.
        origin: the first sample's number.

    Returns:
        (n_samples, K) float, NaN where there is no value.
    """
    dtype = series.data.dtype if series.data.dtype.kind == "f" else np.float64
    grid = np.full((n_samples, series.data.shape[1]), np.nan, dtype)
    if len(series.times) == 0:
        return grid
    position = np.round(series.times * 1000.0, 6) - origin
    nearest = np.rint(position).astype(np.int64)
    steps = np.diff(position)
    # frames that come in bursts, or twice with one time, tell nothing of the usual interval
    steps = steps[steps > 0.1 * np.percentile(steps, 75)] if len(steps) else steps
    step = np.median(steps) if len(steps) else 1.0
    if abs(step - 1.0) < 0.01 and (np.diff(nearest) > 0).all():
        inside = (nearest >= 0) & (nearest < n_samples)
        grid[nearest[inside]] = series.data[inside]
        return grid
    sample = np.arange(max(int(np.ceil(position[0])), 0), min(int(position[-1]) + 1, n_samples))
    after = np.clip(np.searchsorted(position, sample), 1, len(position) - 1)
    near = (position[after] - position[after - 1] <= max(2.0 * step, 1.0)) | (position[after] == sample)
    for channel in range(grid.shape[1]):
        values = np.interp(sample, position, series.data[:, channel])
        grid[sample, channel] = np.where(near, values, np.nan)
    return grid


def resample(values: np.ndarray, bin_ms: int) -> np.ndarray:
    """Samples to bins: fill the gaps linearly, filter against aliasing, take every ``bin_ms``-th, empty the gaps again.

    The filter is scipy's ``decimate(n=500, ftype="fir")``, without phase shift, over the whole recording.

    Args:
        values: (S, K) one value per ms, NaN where unknown.
        bin_ms: bin width in ms.

    Returns:
        (ceil(S / bin_ms), K), NaN where a bin's first sample is.
    """
    from scipy.signal import decimate

    if bin_ms == 1:
        return values
    out = np.full((-(-len(values) // bin_ms), values.shape[1]), np.nan, values.dtype)
    for channel in range(values.shape[1]):
        column = values[:, channel].copy()
        unknown = np.isnan(column)
        if unknown.all():
            continue
        if unknown.any():
            known = np.flatnonzero(~unknown)
            column[unknown] = np.interp(np.flatnonzero(unknown), known, column[known])
        out[:, channel] = decimate(column, bin_ms, n=FIR_ORDER, ftype="fir")
        out[unknown[::bin_ms], channel] = np.nan
    return out


def take_windows(values: np.ndarray, first: np.ndarray, n_bins: int) -> np.ndarray:
    """Cut windows out of binned values.

    Args:
        values: (n, K) one row per bin of the recording.
        first: (B,) the windows' first bins.
        n_bins: bins in a window.

    Returns:
        (B, n_bins, K), NaN where a window leaves the recording.
    """
    index = first[:, None] + np.arange(n_bins)
    inside = (index >= 0) & (index < len(values))
    windows = values[np.where(inside, index, 0)]
    windows[~inside] = np.nan
    return windows
