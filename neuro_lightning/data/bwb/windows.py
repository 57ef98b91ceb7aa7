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
        known: (bins,) bool, False where nothing was recorded or may be seen.
    """

    start: float
    counts: np.ndarray
    known: np.ndarray

    def windows(self, first: np.ndarray, length: int) -> np.ndarray:
        """(B, length, N) counts of the windows that begin with the bins ``first``; copied."""
        return self.counts[first[:, None] + np.arange(length)]

    def known_in(self, first: np.ndarray, length: int) -> np.ndarray:
        """(B, length) bool, the known bins of the same windows."""
        return self.known[first[:, None] + np.arange(length)]


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


def known_bins(start: float, n_bins: int, recorded: np.ndarray, closed: np.ndarray) -> np.ndarray:
    """(n_bins,) bool, which bins from ``start`` on were recorded and touch no closed time.

    Args:
        start: of the first bin, s.
        n_bins: bins.
        recorded: (k, 2) start and end of what was recorded, s.
        closed: (k, 2) likewise, of what must not be seen.

    Example:
        >>> known_bins(9.94, 5, np.array([[9.96, 99.0]]), np.array([[10.0, 20.0]]))
        array([False,  True,  True, False, False])
    """
    low = start + np.arange(n_bins) * BIN_S
    high = low + BIN_S
    inside = (low[:, None] >= recorded[:, 0] - SLACK_S) & (high[:, None] <= recorded[:, 1] + SLACK_S)
    touched = (low[:, None] < closed[:, 1] - SLACK_S) & (high[:, None] > closed[:, 0] + SLACK_S)
    return inside.any(1) & ~touched.any(1)


def cut(
    spike_times: Sequence[np.ndarray],
    intervals: np.ndarray,
    step_bins: int,
    length: int,
    *,
    history: int = 0,
    recorded: np.ndarray | None = None,
    closed: np.ndarray | None = None,
) -> Iterator[tuple[np.ndarray, Stretch, np.ndarray]]:
    """The windows of each interval: their starts in s, the interval's bins, and the first bin of each window.

    Windows that begin on the interval's own grid of bins share one array. The last window, which ends with the
    interval, has an array of its own where it is off that grid. With a history the array begins so many bins before
    the interval, and a window's first bin is that of its history.

    Args:
        spike_times: N sorted arrays, s.
        intervals: (k, 2) start and end, s.
        step_bins: bins between the starts of windows.
        length: bins of a window.
        history: bins before a window.
        recorded: (k, 2) start and end of what was recorded, s; needed with a history.
        closed: (k, 2) likewise, of times that must not be seen; needed with a history.
    """

    def stretch(start: float, n_bins: int) -> Stretch:
        begin = start - history * BIN_S
        known = np.ones(history + n_bins, bool)
        if history:
            known[:history] = known_bins(begin, history, recorded, closed)
        return Stretch(begin, bin_spikes(spike_times, begin, history + n_bins), known)

    for start, end in intervals:
        starts = window_starts(float(start), float(end), step_bins * BIN_S, length * BIN_S)
        if not len(starts):
            continue
        place = (starts - start) / BIN_S
        on_grid = np.abs(place - place.round()) < 1e-4
        first = place.round().astype(np.int64)
        shared = first[on_grid]
        if len(shared):
            yield starts[on_grid], stretch(float(start), int(shared[-1]) + length), shared
        for alone in starts[~on_grid]:
            yield np.array([alone]), stretch(float(alone), length), np.zeros(1, np.int64)
