"""Intervals of a recording, each a start and a stop in s; and windows without trials."""

from __future__ import annotations

import numpy as np

from neuro_lightning.errors import DataError

CONTINUOUS = "continuous"
"""The name that asks for consecutive windows instead of a table."""


def sort_intervals(intervals: np.ndarray, what: str) -> np.ndarray:
    """Intervals by their start.

    Args:
        intervals: (k, 2) start and stop in s.
        what: the file and the intervals' name, for the error.

    Raises:
        DataError: a time is not finite, or an interval stops before it starts.
    """
    if intervals.ndim != 2 or intervals.shape[1] != 2 or not np.isfinite(intervals).all():
        raise DataError(f"{what} are not pairs of finite times; the file is damaged")
    if (bad := np.flatnonzero(intervals[:, 1] < intervals[:, 0])).size:
        start, stop = intervals[bad[0]]
        raise DataError(
            f"{what}: {bad.size} of {len(intervals)} stop before they start ({start:.6g} to {stop:.6g} s): they must "
            "be start and stop in s, not start and duration"
        )
    return intervals[np.argsort(intervals[:, 0], kind="stable")]


def merge_intervals(intervals: np.ndarray) -> np.ndarray:
    """(m, 2) what intervals (k, 2) by their start cover together: those that overlap or touch are one."""
    if len(intervals) < 2:
        return intervals
    latest = np.maximum.accumulate(intervals[:, 1])
    begins = np.flatnonzero(np.r_[True, intervals[1:, 0] > latest[:-1]])
    return np.stack([intervals[begins, 0], latest[np.r_[begins[1:] - 1, len(intervals) - 1]]], axis=1)


def intersect_intervals(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(m, 2) what two sets of intervals (k, 2), each sorted and apart, have in common.

    Example:
        >>> intersect_intervals(np.array([[0.0, 4.0], [6.0, 9.0]]), np.array([[1.0, 2.0], [3.0, 7.0]])).tolist()
        [[1.0, 2.0], [3.0, 4.0], [6.0, 7.0]]
    """
    low = np.searchsorted(other[:, 1], one[:, 0], "right")
    counts = np.maximum(np.searchsorted(other[:, 0], one[:, 1], "left") - low, 0)
    mine = np.repeat(np.arange(len(one)), counts)
    theirs = np.repeat(low - np.cumsum(counts) + counts, counts) + np.arange(len(mine))
    start = np.maximum(one[mine, 0], other[theirs, 0])
    return np.stack([start, np.minimum(one[mine, 1], other[theirs, 1])], axis=1)


def consecutive_windows(observed: np.ndarray, origin: int, length: int, bin_ms: int) -> np.ndarray:
    """Starts in s of windows that follow each other through the observed time, from each stretch's first whole bin.

    Args:
        observed: (S,) bool, samples of 1 ms.
        origin: the first one's number.
        length: samples of a window, whole bins.
        bin_ms: bin width in ms.
    """
    edges = np.flatnonzero(np.diff(np.r_[False, observed, False].astype(np.int8))).reshape(-1, 2) + origin
    begin = -(-edges[:, 0] // bin_ms) * bin_ms
    starts = [np.arange(low, high - length + 1, length) for low, high in zip(begin, edges[:, 1], strict=True)]
    return np.concatenate([*starts, np.empty(0, np.int64)]) / 1000.0
