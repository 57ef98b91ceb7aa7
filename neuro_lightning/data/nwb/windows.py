"""Windows cut out of an NWB recording: spike counts and behavior about each trial, or one window after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neuro_lightning.data import binning
from neuro_lightning.data.checks.overlap import Spans
from neuro_lightning.data.checks.plausible import (
    LONGEST_S,
    check_event,
    check_trials,
    multiples_warning,
    name_file_in_errors,
)
from neuro_lightning.data.formats.nwb import NWBRecording
from neuro_lightning.data.formats.nwb_tables import CONTINUOUS, consecutive_windows, merge_intervals
from neuro_lightning.errors import ConfigError, DataError

MARGIN_MS = 2000
"""How long before the first observed time the row of samples begins: longer than the filter that resamples behavior."""

FAR_S = 3600
"""A recording that begins within so many seconds has a row of samples that begins at zero."""

COVERED, INSIDE, SPARSE = 0.8, 0.5, 0.2
"""Shares below which it is said: behavior in the windows; spikes in observed times; the windows' mean rate of all."""

LARGEST_GIB = 16.0
"""Memory that a series may take on samples of 1 ms."""


@dataclass(frozen=True)
class WindowSettings:
    """How trials are cut out of a recording.

    Attributes:
        align: the trial column (s) that windows are aligned to.
        window_ms: start and stop of the observed window around ``align``, in ms, [start, stop).
        bin_ms: bin width in ms.
        forward_ms: length of the window to predict right after the observed one, in ms.
        behavior: the continuous series that is decoded, or None.
        lag_ms: by how many ms the behavior window comes after the spike window.
        conditions: the trial columns whose combinations are the conditions.
        trials: the table whose rows are the trials, or ``continuous``.
    """

    align: str
    window_ms: tuple[int, int]
    bin_ms: int
    forward_ms: int = 0
    behavior: str | None = None
    lag_ms: int = 0
    conditions: tuple[str, ...] = ()
    trials: str = "trials"

    @property
    def n_bins(self) -> int:
        """Observed bins T."""
        return (self.window_ms[1] - self.window_ms[0]) // self.bin_ms

    @property
    def n_forward(self) -> int:
        """Forward bins F."""
        return self.forward_ms // self.bin_ms


@dataclass
class Windows:
    """Trials cut out of a file, all chosen units together.

    Attributes:
        row: (B,) rows of the trial table.
        time: (B,) alignment times in s.
        counts: (B, L, U) spike counts.
        behavior: (B, T, K), or None.
        dropped: trials that could not be cut.
    """

    row: np.ndarray
    time: np.ndarray
    counts: np.ndarray
    behavior: np.ndarray | None
    dropped: int


def cut_windows(nwb: NWBRecording, units: np.ndarray, settings: WindowSettings) -> Windows:
    """Count spikes in every trial's window. Trials that leave the observed time are dropped, and one line says so.

    Args:
        nwb: the file; without trials (``continuous``), its trial table is filled with consecutive windows.
        units: indices of the units to count.
        settings: where to cut.

    Raises:
        DataError: a column or series is missing, no trial is left, or times contradict each other.
    """
    observed, origin = observed_time(nwb, units, settings.bin_ms)
    length = settings.n_bins + settings.n_forward
    if settings.trials == CONTINUOUS:
        start = consecutive_windows(observed, origin, length * settings.bin_ms, settings.bin_ms)
        stop = start + length * settings.bin_ms / 1000
        nwb.trials = {"id": np.arange(len(start)), "start_time": start, "stop_time": stop}
        usable, n_reversed = np.arange(len(start)), 0
    else:
        usable, n_reversed = usable_trials(nwb, settings.align)
    align = _times(nwb, settings.align)
    first = binning.first_bins(align[usable], settings.window_ms[0], settings.bin_ms) - origin // settings.bin_ms
    # every millisecond of the window must be observed, not only each bin's first one
    inside = binning.observed_bins(observed, first * settings.bin_ms, length * settings.bin_ms, 1).all(axis=1)
    row, first = usable[inside], first[inside]
    dropped = nwb.n_trials - len(row)
    extent = f"{settings.window_ms[0]} to {settings.window_ms[0] + length * settings.bin_ms} ms around {settings.align}"
    if not len(row):
        empty = [str(nwb.unit_ids[u]) for u in units if not len(nwb.obs_intervals[u])]
        which = f" (units {', '.join(empty[:10])} have no observed times at all)" if empty else ""
        raise DataError(
            f"{nwb.path}: no trial's window ({extent}) lies inside the times in which all units were recorded{which}; "
            "change data.align or data.window_ms, or leave units out with data.units"
        )
    if dropped > n_reversed:
        nwb.warn(
            f"{dropped - n_reversed} of {nwb.n_trials} trials are left out, since their window ({extent}) is not "
            f"inside the recorded times or their {settings.align} is not known"
        )
    samples = binning.spike_samples([nwb.spike_times[unit] for unit in units], observed, origin)
    counts = binning.count_spikes(samples, first, length, settings.bin_ms)
    _check_counts(nwb, units, counts, samples, int(observed.sum()), settings.bin_ms)
    behavior = _behavior(nwb, settings, align[row], len(observed), origin)
    return Windows(row, align[row], counts, behavior, dropped)


def observed_time(nwb: NWBRecording, units: np.ndarray, bin_ms: int) -> tuple[np.ndarray, int]:
    """(S,) bool, the samples in which all of the units were recorded and the file does not call them invalid.

    Returns:
        ``(observed, origin)``: the row begins at zero, or where the recording does if that is far from it.
    """
    begin = min((float(k[0, 0]) for k in nwb.obs_intervals if len(k)), default=0.0)
    if nwb.end_time - begin > LONGEST_S:
        days = (nwb.end_time - begin) / 86400
        raise DataError(f"{nwb.path}: the observed times last {days:.4g} days: obs_intervals must be in s")
    origin = 0 if 0 <= begin <= FAR_S else int((begin * 1000 - MARGIN_MS) // bin_ms) * bin_ms
    n_samples = int(np.ceil(round(nwb.end_time * 1000, 6))) - origin
    observed = np.ones(n_samples, bool)
    distinct = {nwb.obs_intervals[unit].tobytes(): nwb.obs_intervals[unit] for unit in units}
    for intervals in distinct.values():
        observed &= binning.observed_samples(merge_intervals(intervals), n_samples, origin)
    for start, stop in np.clip(nwb.invalid_times * 1000 - origin, 0, n_samples):
        observed[int(np.floor(start)) : int(np.ceil(stop))] = False
    return observed, origin


def usable_trials(nwb: NWBRecording, align: str) -> tuple[np.ndarray, int]:
    """Rows of the trials whose alignment is known and whose times can be; and how many end before they start.

    Raises:
        DataError: the trials' times contradict each other.
    """
    event, start, stop = (_times(nwb, name) for name in (align, "start_time", "stop_time"))
    with name_file_in_errors(nwb.path):
        good, lines = check_trials(start, stop, nwb.trials["id"])
        for line in lines:
            nwb.warn(line)
        if align != "start_time":
            nwb.warn(check_event(event, start, stop, align))
    return np.flatnonzero(good & np.isfinite(event)), int((~good).sum())


def _check_counts(
    nwb: NWBRecording, units: np.ndarray, counts: np.ndarray, samples: list[np.ndarray], observed: int, bin_ms: int
) -> None:
    """Say where few of the spikes lie in observed times or in windows, or where counts are no counts."""
    total, kept = sum(len(nwb.spike_times[u]) for u in units), sum(len(s) for s in samples)
    inside, window_ms = int(counts.sum(dtype=np.int64)), len(counts) * counts.shape[1] * bin_ms
    expected = kept / max(observed, 1) * window_ms
    if (total >= 50 and not kept) or (expected >= 100 and not inside):
        where = "the observed times (obs_intervals, invalid_times)" if not kept else "any trial's window"
        raise DataError(f"{nwb.path}: none of the {total} spikes lies in {where}: are all times seconds of one clock?")
    if total >= 50 and kept < INSIDE * total:
        nwb.warn(
            f"{1 - kept / total:.0%} of the spikes lie outside the times in which all units were recorded, and do not "
            "count (obs_intervals, invalid_times)"
        )
    if expected >= 100 and inside < SPARSE * expected:
        nwb.warn(
            f"the windows hold {inside} spikes, {inside / expected:.0%} of what as much other time holds: are trials "
            "and spikes on one clock?"
        )
    nwb.warn(multiples_warning([counts]))


def window_spans(time: np.ndarray, settings: WindowSettings) -> Spans:
    """The samples that windows aligned to ``time`` (B,) in s are counted in, observed and forward bins.

    Behavior is cut the same way, later by one lag for all: where these windows do not overlap, it does not either.
    """
    start = binning.first_bins(time, settings.window_ms[0], settings.bin_ms) * settings.bin_ms
    return Spans(start, start + (settings.n_bins + settings.n_forward) * settings.bin_ms)


def choose_window(
    nwb: NWBRecording, trials: str, align: str, window_ms: Sequence[int] | None, bin_ms: int, forward_ms: int
) -> tuple[int, int]:
    """The observed window in whole bins; arguments as in ``load_nwb_trials``.

    Raises:
        ConfigError: the window is not two numbers, or a trial-less recording has none.
        DataError: no trial tells how long it is, or a bin does not fit.
    """
    if trials == CONTINUOUS and (window_ms is None or len(window_ms) != 2 or window_ms[0] != 0):
        raise ConfigError("data.trials=continuous needs the windows' length in ms: data.window_ms=[0,LENGTH]")
    if window_ms is None:
        usable, _ = usable_trials(nwb, align)
        start, stop = _times(nwb, align)[usable], _times(nwb, "stop_time")[usable]
        known = np.isfinite(stop)
        if not known.any():
            raise DataError(f"{nwb.path}: no trial has both {align} and stop_time; set data.window_ms=[START,STOP]")
        shortest = (binning.to_ns(stop[known]) - binning.to_ns(start[known])).min() // 10**6
        window_ms = (0, int(shortest) - forward_ms)
        reason = f"the shortest trial has {shortest} ms after {align}; set data.window_ms=[START,STOP]"
    else:
        reason = "give [START,STOP] in ms"
        if len(window_ms) != 2:
            raise ConfigError(f"data.window_ms={list(window_ms)}: {reason}")
    start, stop = (int(value) for value in window_ms)
    n_bins = (stop - start) // bin_ms
    if n_bins < 1:
        raise DataError(
            f"{nwb.path}: the window from {start} to {stop} ms is shorter than a bin of {bin_ms} ms; {reason}"
        )
    return start, start + n_bins * bin_ms


def _times(nwb: NWBRecording, name: str) -> np.ndarray:
    """A trial column of times in s."""
    values = nwb.column(name)
    if values.dtype.kind not in "fiu":
        raise DataError(f"{nwb.path}: the trial column {name!r} holds no times, so windows cannot be aligned to it")
    return values.astype(np.float64)


def _behavior(
    nwb: NWBRecording, settings: WindowSettings, align: np.ndarray, n_samples: int, origin: int
) -> np.ndarray | None:
    """(B, T, K) the series in the windows, ``lag_ms`` later, in its physical unit; NaN where it has no values."""
    if settings.behavior is None:
        return None
    series = nwb.read_series(settings.behavior)
    if (need := n_samples * series.data.shape[1] * 8 / 2**30) > LARGEST_GIB:
        raise DataError(
            f"{nwb.path}: series {settings.behavior!r} would take {need:.0f} GiB ({series.data.shape[1]} channels over "
            f"{n_samples / 1000:.0f} s): is it behavior?"
        )
    on_grid = binning.series_on_samples(series, n_samples, origin)
    on_grid[~np.isfinite(on_grid)] = np.nan
    binned = binning.resample(on_grid, settings.bin_ms)
    first = (
        binning.first_bins(align, settings.window_ms[0] + settings.lag_ms, settings.bin_ms) - origin // settings.bin_ms
    )
    windows = binning.take_windows(binned, first, settings.n_bins)
    known = ~np.isnan(windows)
    alive = known.any(axis=(0, 1))
    if not alive.any():
        raise DataError(
            f"{nwb.path}: series {settings.behavior!r} has no values in the trials' windows; "
            f"{_extent(series.times)}, trials from {align.min():.6g} to {align.max():.6g} s; see data.lag_ms"
        )
    if not alive.all():
        silent = ", ".join(np.array(series.columns)[~alive])
        nwb.warn(
            f"the channels {silent} of {settings.behavior!r} have no values in the trials' windows and are left out"
        )
        windows, known = windows[:, :, alive], known[:, :, alive]
    if (covered := known.all(axis=2).mean()) < COVERED:
        nwb.warn(f"{settings.behavior!r} is known in {covered:.0%} of the windows' bins; {_extent(series.times)}")
    if series.conversion != 1 or series.offset != 0:
        windows = windows * series.conversion + series.offset
    return windows


def _extent(times: np.ndarray) -> str:
    return f"its times are {times[0]:.6g} to {times[-1]:.6g} s" if len(times) else "it has no samples"
