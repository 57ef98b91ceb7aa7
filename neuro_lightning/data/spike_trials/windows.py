"""Windows cut out of a recording: spike counts and behavior about each trial, or one window after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

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
from neuro_lightning.data.formats.intervals import CONTINUOUS, consecutive_windows, merge_intervals
from neuro_lightning.data.formats.spike_recording import SpikeRecording
from neuro_lightning.data.spike_trials.behavior import behavior_in_windows
from neuro_lightning.data.spike_trials.settings import WHOLE, WindowSettings
from neuro_lightning.errors import ConfigError, DataError

MARGIN_MS = 2000
"""How long before the first observed time the row of samples begins: longer than the filter that resamples behavior."""

FAR_S = 3600
"""A recording that begins within so many seconds has a row of samples that begins at zero."""

INSIDE, SPARSE = 0.5, 0.2
"""Shares below which it is said: spikes in observed times; the windows' mean rate of all."""

FAR_LONGER = 5
"""How many times the median a trial may last before it is said."""


@dataclass
class Windows:
    """Trials cut out of a file, all chosen units together.

    Attributes:
        row: (B,) rows of the trial table.
        time: (B,) alignment times in s.
        counts: (B, L, U) spike counts.
        behavior: (B, T, K), or None.
        dropped: trials that could not be cut.
        n_bins: (B,) bins of each trial, L at most.
        observed: (B, L, U) bool, where units were recorded in a trial; None is everywhere.
    """

    row: np.ndarray
    time: np.ndarray
    counts: np.ndarray
    behavior: np.ndarray | None
    dropped: int
    n_bins: np.ndarray
    observed: np.ndarray | None = None


def cut_windows(source: SpikeRecording, units: np.ndarray, settings: WindowSettings) -> Windows:
    """Count spikes in every trial's window. Trials that leave the observed time are dropped, and one line says so.

    Args:
        source: the file; without trials (``continuous``), its trial table is filled with consecutive windows.
        units: indices of the units to count.
        settings: where to cut.

    Raises:
        DataError: a column or series is missing, no trial is left, or times contradict each other.
    """
    partial, bin_ms = settings.partial_units, settings.bin_ms
    observed, origin = observed_time(source, () if partial else units, bin_ms)
    length = settings.n_bins + settings.n_forward
    if settings.trials == CONTINUOUS:
        start = consecutive_windows(observed, origin, length * bin_ms, bin_ms)
        stop = start + length * bin_ms / 1000
        source.trials = {"id": np.arange(len(start)), source.start_column: start, source.stop_column: stop}
        usable, n_reversed = np.arange(len(start)), 0
    else:
        usable, n_reversed = usable_trials(source, settings.align)
    align = _times(source, settings.align)
    first = binning.first_bins(align[usable], settings.window_ms[0], bin_ms) - origin // bin_ms
    n_bins = np.full(len(usable), length)
    if settings.to_stop:
        n_bins = trial_bins(source, settings.align, usable, bin_ms)
    # every millisecond of the window must be observed, not only each bin's first one
    within = np.arange(length) < n_bins[:, None]
    whole = _whole_bins(observed, first, length, bin_ms)
    inside = (whole | ~within).all(axis=1) & (n_bins > 0)
    by_grid = "" if settings.to_stop else _lost_to_bins(observed, origin, align[usable], settings, inside)
    row, first, n_bins, within = usable[inside], first[inside], n_bins[inside], within[inside]
    recorded = _recorded(source, units, settings, within, first, origin)
    if partial and len(row):
        any_unit = recorded.any(axis=(1, 2))
        row, first, n_bins, recorded = row[any_unit], first[any_unit], n_bins[any_unit], recorded[any_unit]
    dropped = source.n_trials - len(row)
    extent = f"{settings.window_ms[0]} to {settings.window_ms[0] + length * bin_ms} ms around {settings.align}"
    if settings.to_stop:
        extent = f"{settings.align} to {source.stop_column}"
    if not len(row):
        empty = [str(source.unit_ids[u]) for u in units if not len(source.obs_intervals[u])]
        which = f" (units {', '.join(empty[:10])} have no observed times at all)" if empty else ""
        raise DataError(
            f"{source.path}: no trial's window ({extent}) lies inside the times in which all units were recorded"
            f"{which}{by_grid}; change data.align or data.window_ms, or leave units out with data.units"
        )
    if dropped > n_reversed:
        source.warn(
            f"{dropped - n_reversed} of {source.n_trials} trials are left out, since their window ({extent}) is not "
            f"inside the recorded times or their {settings.align} is not known{by_grid}"
        )
    n_bins = _cut_longer(source, n_bins, length, bin_ms)
    samples = binning.spike_samples([source.spike_times[unit] for unit in units], observed, origin)
    counts = binning.count_spikes(samples, first, length, bin_ms)
    if recorded is not None:
        counts[~recorded] = 0
    _check_counts(source, units, counts, samples, int(observed.sum()), int(n_bins.sum()) * bin_ms)
    behavior = behavior_in_windows(source, settings, align[row], len(observed), origin)
    if behavior is not None and settings.to_stop:
        behavior[np.arange(settings.n_bins) >= n_bins[:, None]] = np.nan
    return Windows(row, align[row], counts, behavior, dropped, n_bins, recorded)


def _lost_to_bins(
    observed: np.ndarray, origin: int, align: np.ndarray, settings: WindowSettings, inside: np.ndarray
) -> str:
    """How many windows are in the observed time themselves, and their bins are not, in words; nothing if none is.

    Bins count from session time zero: a window's first one begins up to a bin after the window, and its last one ends
    so much later.
    """
    bin_ms = settings.bin_ms
    if inside.all() or bin_ms == 1:
        return ""
    start = binning.first_bins(align, settings.window_ms[0], 1) - origin
    exact = _whole_bins(observed, start, (settings.n_bins + settings.n_forward) * bin_ms, 1).all(axis=1)
    lost = int((exact & ~inside).sum())
    if not lost:
        return ""
    return (
        f"; {lost} of them are lost to data.bin_ms={bin_ms} alone: bins count from the session's time 0, not from the "
        f"window's start, and end up to {bin_ms - 1} ms after it (a width that divides the start times, or a window "
        "shorter by a bin, keeps them)"
    )


def trial_bins(source: SpikeRecording, align: str, rows: np.ndarray, bin_ms: int) -> np.ndarray:
    """(B,) whole bins of trials from ``align`` to their stop; 0 where it is not known, or not recorded."""
    start, stop = _times(source, align)[rows], _times(source, source.stop_column)[rows]
    end = binning.to_ns(np.where(stop <= source.end_time + 1e-6, stop, start)) // (bin_ms * 10**6)
    return (end - binning.first_bins(start, 0, bin_ms)).clip(min=0)


def _cut_longer(source: SpikeRecording, n_bins: np.ndarray, length: int, bin_ms: int) -> np.ndarray:
    """(B,) bins of trials, ``length`` at most, and a line where those of another file than the first are longer."""
    if longer := int((n_bins > length).sum()):
        source.warn(
            f"{longer} of {len(n_bins)} trials are longer than the longest one that the model was trained on, and are "
            f"cut after {length * bin_ms} ms"
        )
    return n_bins.clip(max=length)


def _whole_bins(observed: np.ndarray, first: np.ndarray, n_bins: int, bin_ms: int) -> np.ndarray:
    """(B, n_bins) bool, the bins of windows of which every millisecond was observed, ``observed`` (S,)."""
    number = np.concatenate([[0], np.cumsum(observed)])
    start = (first[:, None] + np.arange(n_bins)) * bin_ms
    low, high = (np.clip(edge, 0, len(observed)) for edge in (start, start + bin_ms))
    return number[high] - number[low] == bin_ms


def _recorded(
    source: SpikeRecording,
    units: np.ndarray,
    settings: WindowSettings,
    within: np.ndarray,
    first: np.ndarray,
    origin: int,
) -> np.ndarray | None:
    """(B, L, U) bool, the bins ``within`` (B, L) a trial in which each unit was recorded; None where all were."""
    if not settings.partial_units and not settings.to_stop:
        return None
    recorded = np.repeat(within[..., None], len(units), axis=2)
    n_samples = _n_samples(source, origin)
    for intervals in _distinct(source, units) if settings.partial_units else ():
        same = [k for k, unit in enumerate(units) if np.array_equal(source.obs_intervals[unit], intervals)]
        observed = binning.observed_samples(merge_intervals(intervals), n_samples, origin)
        recorded[:, :, same] &= _whole_bins(observed, first, within.shape[1], settings.bin_ms)[..., None]
    return recorded


def observed_time(source: SpikeRecording, units: Sequence[int] | np.ndarray, bin_ms: int) -> tuple[np.ndarray, int]:
    """(S,) bool, the samples in which all of some units were recorded and the file does not call them invalid.

    Returns:
        ``(observed, origin)``: the row begins at zero, or where the recording does if that is far from it.

    Raises:
        DataError: the recording lasts longer than any does: its times are not in s.
    """
    begin = min((float(k[0, 0]) for k in source.obs_intervals if len(k)), default=0.0)
    if source.end_time - begin > LONGEST_S:
        days = (source.end_time - begin) / 86400
        raise DataError(f"{source.path}: the observed times last {days:.4g} days: they must be in s")
    origin = 0 if 0 <= begin <= FAR_S else int((begin * 1000 - MARGIN_MS) // bin_ms) * bin_ms
    n_samples = _n_samples(source, origin)
    observed = np.ones(n_samples, bool)
    for intervals in _distinct(source, units):
        observed &= binning.observed_samples(merge_intervals(intervals), n_samples, origin)
    for start, stop in np.clip(source.invalid_times * 1000 - origin, 0, n_samples):
        observed[int(np.floor(start)) : int(np.ceil(stop))] = False
    return observed, origin


def _n_samples(source: SpikeRecording, origin: int) -> int:
    return int(np.ceil(round(source.end_time * 1000, 6))) - origin


def _distinct(source: SpikeRecording, units: Sequence[int] | np.ndarray) -> list[np.ndarray]:
    """The observed intervals of the units, each once."""
    return list({source.obs_intervals[unit].tobytes(): source.obs_intervals[unit] for unit in units}.values())


def usable_trials(source: SpikeRecording, align: str) -> tuple[np.ndarray, int]:
    """Rows of the trials whose alignment is known and whose times can be; and how many end before they start.

    Raises:
        DataError: the trials' times contradict each other.
    """
    event, start, stop = (_times(source, name) for name in (align, source.start_column, source.stop_column))
    with name_file_in_errors(source.path):
        good, lines = check_trials(start, stop, source.trials["id"])
        for line in lines:
            source.warn(line)
        if align != source.start_column:
            source.warn(check_event(event, start, stop, align))
    return np.flatnonzero(good & np.isfinite(event)), int((~good).sum())


def _check_counts(
    source: SpikeRecording,
    units: np.ndarray,
    counts: np.ndarray,
    samples: list[np.ndarray],
    observed: int,
    window_ms: int,
) -> None:
    """Say where few of the spikes lie in observed times or in windows, or where counts are no counts."""
    total, kept = sum(len(source.spike_times[u]) for u in units), sum(len(s) for s in samples)
    inside = int(counts.sum(dtype=np.int64))
    expected = kept / max(observed, 1) * window_ms
    if (total >= 50 and not kept) or (expected >= 100 and not inside):
        where = "the observed times (obs_intervals or domain, invalid_times)" if not kept else "any trial's window"
        raise DataError(
            f"{source.path}: none of the {total} spikes lies in {where}: are all times seconds of one clock?"
        )
    if total >= 50 and kept < INSIDE * total:
        source.warn(
            f"{1 - kept / total:.0%} of the spikes lie outside the times in which all units were recorded, and do not "
            "count (obs_intervals or domain, invalid_times)"
        )
    if expected >= 100 and inside < SPARSE * expected:
        source.warn(
            f"the windows hold {inside} spikes, {inside / expected:.0%} of what as much other time holds: are trials "
            "and spikes on one clock?"
        )
    source.warn(multiples_warning([counts]))


def window_spans(windows: Windows, settings: WindowSettings) -> Spans:
    """The samples that windows are counted in, observed and forward bins.

    Behavior is cut the same way, later by one lag for all: where these windows do not overlap, it does not either.
    """
    start = binning.first_bins(windows.time, settings.window_ms[0], settings.bin_ms) * settings.bin_ms
    return Spans(start, start + windows.n_bins * settings.bin_ms)


def choose_window(
    source: SpikeRecording,
    align: str,
    window_ms: Sequence[int] | Literal["trial"] | None,
    bin_ms: int,
    forward_ms: int,
) -> tuple[int, int]:
    """The observed window in whole bins, of whole trials that of the longest; arguments as in ``load_trials``.

    Raises:
        ConfigError: the window is not two numbers, a trial-less recording has none, or whole trials have forward bins.
        DataError: no trial tells how long it is, or a bin does not fit.
    """
    if window_ms == WHOLE:
        return _longest_window(source, align, bin_ms, forward_ms)
    if source.table == CONTINUOUS and (window_ms is None or len(window_ms) != 2 or window_ms[0] != 0):
        raise ConfigError("data.trials=continuous needs the windows' length in ms: data.window_ms=[0,LENGTH]")
    if window_ms is None:
        usable, _ = usable_trials(source, align)
        start, stop = _times(source, align)[usable], _times(source, source.stop_column)[usable]
        known = np.isfinite(stop)
        if not known.any():
            raise DataError(
                f"{source.path}: no trial has both {align} and {source.stop_column}; set data.window_ms=[START,STOP]"
            )
        shortest = (binning.to_ns(stop[known]) - binning.to_ns(start[known])).min() // 10**6
        window_ms = (0, int(shortest) - forward_ms)
        reason = f"the shortest trial has {shortest} ms after {align}; set data.window_ms=[START,STOP]"
    else:
        reason = "give [START,STOP] in ms"
        if isinstance(window_ms, str) or len(window_ms) != 2:
            given = window_ms if isinstance(window_ms, str) else list(window_ms)
            raise ConfigError(f"data.window_ms={given}: {reason}, or {WHOLE}")
    start, stop = (int(value) for value in window_ms)
    n_bins = (stop - start) // bin_ms
    if n_bins < 1:
        raise DataError(
            f"{source.path}: the window from {start} to {stop} ms is shorter than a bin of {bin_ms} ms; {reason}"
        )
    return start, start + n_bins * bin_ms


def _longest_window(source: SpikeRecording, align: str, bin_ms: int, forward_ms: int) -> tuple[int, int]:
    """From 0 to the end of the longest trial in whole bins, and a line on a trial that is far longer than others."""
    if source.table == CONTINUOUS:
        raise ConfigError(f"data.window_ms={WHOLE} takes trials, and data.trials=continuous has none")
    if forward_ms:
        raise ConfigError(f"data.forward_ms={forward_ms}: data.window_ms={WHOLE} ends with the trial; set it to 0")
    usable, _ = usable_trials(source, align)
    n_bins = trial_bins(source, align, usable, bin_ms)
    if not n_bins.any():
        raise DataError(f"{source.path}: no trial has a bin of {bin_ms} ms between {align} and {source.stop_column}")
    longest, median = int(n_bins.max()), float(np.median(n_bins[n_bins > 0]))
    if longest > FAR_LONGER * median:
        trial = source.trials["id"][usable[n_bins.argmax()]]
        source.warn(
            f"trial {trial} lasts {longest * bin_ms} ms, {longest / median:.0f} times the median, and all trials take "
            f"as much memory: is its {source.stop_column} right? data.window_ms=[0,STOP] cuts all at STOP"
        )
    return 0, longest * bin_ms


def _times(source: SpikeRecording, name: str) -> np.ndarray:
    """A trial column of times in s."""
    values = source.column(name)
    if values.dtype.kind not in "fiu":
        raise DataError(f"{source.path}: the trial column {name!r} holds no times, so windows cannot be aligned to it")
    return values.astype(np.float64)
