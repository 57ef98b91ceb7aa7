"""Windows of the benchmark: where they start, and their counts as views of one array of bins for each interval."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

BIN_S = 0.02
SLACK_S = 1e-6


@dataclass(frozen=True)
class Stretch:
    """One interval in bins, all units together.

    Attributes:
        start: of its first bin, s.
        counts: (bins, N) uint8 spike counts.
    """

    start: float
    counts: np.ndarray

    def windows(self, first: np.ndarray, length: int) -> np.ndarray:
        """(B, length, N) counts of the windows that begin with the bins ``first``; copied."""
        return self.counts[first[:, None] + np.arange(length)]


def window_starts(start: float, end: float, step_s: float, length_s: float) -> np.ndarray:
    """(B,) starts of the windows in an interval, s: one every ``step_s`` from its start, and one at its end.

    The last window ends with the interval, and overlaps the one before if the interval is no multiple of the step;
    torch_brain's sequential sampler cuts alike. An interval that is shorter than a window has none.

    Example:
        >>> window_starts(10.0, 12.3, 0.5, 1.0)
        array([10. , 10.5, 11. , 11.3])
    """
    if end - start < length_s - SLACK_S:
        return np.zeros(0)
    starts = np.arange(start, end, step_s)
    starts = starts[starts + length_s <= end + SLACK_S]
    if end - (starts[-1] + length_s) > SLACK_S:
        starts = np.append(starts, end - length_s)
    return starts


def bin_spikes(spike_times: Sequence[np.ndarray], start: float, n_bins: int) -> np.ndarray:
    """(n_bins, N) uint8 counts in bins of 20 ms from ``start`` on: bin k holds the spikes in [start + k bin, + 1).

    A spike that lies on an edge, up to rounding errors of its time, belongs to the later bin.

    Args:
        spike_times: N sorted arrays, s.
        start: of the first bin, s.
        n_bins: bins.
    """
    counts = np.zeros((n_bins, len(spike_times)), np.uint8)
    for unit, times in enumerate(spike_times):
        low, high = np.searchsorted(times, [start - SLACK_S, start + n_bins * BIN_S])
        index = np.floor(np.round((times[low:high] - start) / BIN_S, 6)).astype(np.int64)
        index = index[(index >= 0) & (index < n_bins)]
        found = np.bincount(index, minlength=n_bins)
        counts[:, unit] = found.clip(max=255)
    return counts


def cut(
    spike_times: Sequence[np.ndarray], intervals: np.ndarray, step_bins: int, length: int
) -> Iterator[tuple[np.ndarray, Stretch, np.ndarray]]:
    """The windows of each interval: their starts in s, the interval's bins, and the first bin of each window.

    Windows that begin on the interval's own grid of bins share one array. The last window, which ends with the
    interval, has an array of its own where it is off that grid.

    Args:
        spike_times: N sorted arrays, s.
        intervals: (k, 2) start and end, s.
        step_bins: bins between the starts of windows.
        length: bins of a window.
    """
    for start, end in intervals:
        starts = window_starts(float(start), float(end), step_bins * BIN_S, length * BIN_S)
        if not len(starts):
            continue
        place = (starts - start) / BIN_S
        on_grid = np.abs(place - place.round()) < 1e-4
        first = place.round().astype(np.int64)
        shared = first[on_grid]
        if len(shared):
            stretch = Stretch(float(start), bin_spikes(spike_times, float(start), int(shared[-1]) + length))
            yield starts[on_grid], stretch, shared
        for alone in starts[~on_grid]:
            own = Stretch(float(alone), bin_spikes(spike_times, float(alone), length))
            yield np.array([alone]), own, np.zeros(1, np.int64)
