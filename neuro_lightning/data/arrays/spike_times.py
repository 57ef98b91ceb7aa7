"""Spike times and trial times, as Python holds them, to spike counts in trials."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuro_lightning.data import binning
from neuro_lightning.data.checks.plausible import check_units_of_time, sort_spike_times
from neuro_lightning.data.formats.spike_recording import Series, SpikeRecording
from neuro_lightning.data.spike_trials.settings import WindowSettings
from neuro_lightning.data.spike_trials.windows import choose_window, cut_windows
from neuro_lightning.errors import ConfigError, DataError

log = logging.getLogger(__name__)

WHERE = Path("spikes")  # what messages name in place of a file


def bin_spike_times(
    spikes: Mapping[int, Any] | Sequence[Any],
    trials: Any,
    *,
    bin_ms: int,
    window_ms: Sequence[int] | None = None,
    behavior: Any = None,
    lag_ms: int = 0,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Count spikes in trials by the rules of :mod:`neuro_lightning.data.binning`, which are those for NWB files.

    Args:
        spikes: of each unit its spike times in s: a list, a dictionary by the unit's number, or pynapple's TsGroup.
        trials: ``(starts, stops)`` in s, an array (B, 2), or pynapple's IntervalSet.
        bin_ms: bin width in ms.
        window_ms: start and stop around each trial's start; None for as long as the shortest trial.
        behavior: ``(times (S,) in s, values (S, K))``, or pynapple's Tsd or TsdFrame; None without.
        lag_ms: the behavior comes so long after the spikes.

    Returns:
        ``(arrays, rows)``: ``counts`` (B, T, N), ``times`` (B,) when the first bin starts, s, ``unit_ids`` (N,),
        ``bin_ms`` and, where it is given, ``behavior`` (B, T, K); and the trials that are used, which may be fewer.

    Raises:
        DataError: times that cannot be seconds of one clock, that run back, or in which no trial lies.
        ConfigError: a window that cannot be.
    """
    ids, times = _units(spikes)
    starts, stops = trial_times(trials)
    lines = []
    for k, (unit, values) in enumerate(zip(ids, times, strict=True)):
        times[k], line = sort_spike_times(values, f"unit {unit}")
        lines += [f"unit {unit}: {line}"] if line else []
    lines += check_units_of_time(times, starts, stops)
    known = np.concatenate([starts[np.isfinite(starts)], stops[np.isfinite(stops)], *times])
    interval = np.array([[known.min(), known.max()]])
    series = None if behavior is None else _series(behavior)
    session = SpikeRecording(
        path=WHERE,
        unit_ids=ids,
        heldout=np.zeros(len(ids), bool),
        spike_times=times,
        obs_intervals=[interval] * len(ids),
        trials={"id": np.arange(len(starts)), "start_time": starts, "stop_time": stops},
        series_names=("behavior",),
        series_reader=lambda _: series,
    )
    for line in lines:
        session.warn(line)
    if isinstance(window_ms, str):
        raise ConfigError(f"window_ms={window_ms}: give (START,STOP) in ms, or None")
    window = choose_window(session, "start_time", window_ms, bin_ms, 0)
    settings = WindowSettings(
        "start_time", window, bin_ms, behavior=None if behavior is None else "behavior", lag_ms=lag_ms
    )
    found = cut_windows(session, np.arange(len(ids)), settings)
    for line in session.warnings:
        log.warning(line)
    first = binning.first_bins(found.time, window[0], bin_ms)
    arrays = {
        "counts": found.counts,
        "times": first * bin_ms / 1000,
        "unit_ids": ids,
        "bin_ms": np.array(bin_ms),
        **({} if found.behavior is None else {"behavior": found.behavior}),
    }
    return arrays, found.row


def are_spike_times(spikes: Any) -> bool:
    """Whether spikes are given as times of each unit, and not as counts in an array."""
    if isinstance(spikes, Mapping) or hasattr(spikes, "keys"):
        return True
    return isinstance(spikes, list | tuple) and all(
        unit.ndim == 1 if hasattr(unit, "ndim") else all(map(np.isscalar, unit)) for unit in spikes
    )


def trial_times(trials: Any) -> tuple[np.ndarray, np.ndarray]:
    """Starts and stops of trials in s, each (B,).

    Raises:
        DataError: they are no pairs of times.
    """
    if hasattr(trials, "start") and hasattr(trials, "end"):  # pynapple's IntervalSet
        starts, stops = trials.start, trials.end
    elif isinstance(trials, tuple | list) and len(trials) == 2 and np.ndim(trials[0]) == 1:
        starts, stops = trials
    elif np.ndim(trials) == 2 and np.shape(trials)[1] == 2:
        starts, stops = np.asarray(trials).T
    else:
        raise DataError("trials must be (starts, stops) in s, an array of trials x 2, or pynapple's IntervalSet")
    starts, stops = np.asarray(starts, np.float64), np.asarray(stops, np.float64)
    if starts.shape != stops.shape or not len(starts):
        raise DataError(f"trials have {len(starts)} starts and {len(stops)} stops; give as many of both")
    return starts, stops


def _units(spikes: Any) -> tuple[np.ndarray, list[np.ndarray]]:
    """Each unit's number and spike times."""
    named = hasattr(spikes, "keys")
    keys = list(spikes.keys()) if named else list(range(len(spikes)))
    times = [np.asarray(_times(spikes[key]), np.float64).reshape(-1) for key in keys]
    try:
        ids = np.array([int(key) for key in keys], np.int64)
    except (TypeError, ValueError):
        ids = np.arange(len(keys))
    if not len(ids):
        raise DataError("spikes hold no unit")
    return ids, times


def _times(values: Any) -> Any:
    """The times of an object of pynapple, or what was given."""
    return values.t if hasattr(values, "t") and not isinstance(values, np.ndarray) else values


def _series(behavior: Any) -> Series:
    """Behavior as a series, its times in order.

    Raises:
        DataError: times and values do not fit.
    """
    if isinstance(behavior, tuple | list) and len(behavior) == 2:
        times, values = behavior
    elif hasattr(behavior, "t"):  # pynapple's Tsd or TsdFrame
        times, values = behavior.t, behavior.values
    else:
        raise DataError("behavior beside spike times must be (times, values), or pynapple's Tsd or TsdFrame")
    times, values = np.asarray(times, np.float64), np.asarray(values, np.float64)
    values = values[:, None] if values.ndim == 1 else values
    if times.ndim != 1 or values.ndim != 2 or len(times) != len(values):
        raise DataError(f"behavior has {times.shape} times and {values.shape} values; give one row of values a time")
    if not np.isfinite(times).all() or (np.diff(times) < 0).any():
        raise DataError("behavior has times that run back or are not finite; give them in order, in s")
    return Series(times, values, tuple(f"channel {k}" for k in range(values.shape[1])))
