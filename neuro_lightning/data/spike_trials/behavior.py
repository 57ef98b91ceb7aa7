"""Behavior in the windows of trials: series that go on through a recording, binned with the spikes."""

from __future__ import annotations

import numpy as np

from neuro_lightning.data import binning
from neuro_lightning.data.formats.spike_recording import SpikeRecording
from neuro_lightning.data.spike_trials.settings import WindowSettings
from neuro_lightning.errors import DataError

COVERED = 0.8
"""Share of the windows' bins below which it is said in how many the behavior is known."""

LARGEST_GIB = 16.0
"""Memory that a series may take on samples of 1 ms."""


def behavior_in_windows(
    source: SpikeRecording, settings: WindowSettings, align: np.ndarray, n_samples: int, origin: int
) -> np.ndarray | None:
    """(B, T, K) all series in the windows, ``lag_ms`` later, in their physical unit; NaN where they have no values.

    Args:
        source: the recording.
        settings: where windows lie, and which series.
        align: (B,) times in s to which windows are aligned.
        n_samples: samples of 1 ms of the recording.
        origin: the first one's number.

    Raises:
        DataError: a series is not there, has no values in the windows, or is too large to be behavior.
    """
    found = [_series_in_windows(source, name, settings, align, n_samples, origin) for name in settings.behaviors]
    return np.concatenate(found, axis=2) if len(found) > 1 else found[0] if found else None


def _series_in_windows(
    source: SpikeRecording, name: str, settings: WindowSettings, align: np.ndarray, n_samples: int, origin: int
) -> np.ndarray:
    """(B, T, K) one series; arguments as above."""
    series = source.read_series(name)
    if (need := n_samples * series.data.shape[1] * 8 / 2**30) > LARGEST_GIB:
        raise DataError(
            f"{source.path}: series {name!r} would take {need:.0f} GiB ({series.data.shape[1]} channels over "
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
            f"{source.path}: series {name!r} has no values in the trials' windows; "
            f"{_extent(series.times)}, trials from {align.min():.6g} to {align.max():.6g} s; see data.lag_ms"
        )
    if not alive.all():
        silent = ", ".join(np.array(series.columns)[~alive])
        source.warn(f"the channels {silent} of {name!r} have no values in the trials' windows and are left out")
        windows, known = windows[:, :, alive], known[:, :, alive]
    if (covered := known.all(axis=2).mean()) < COVERED:
        source.warn(f"{name!r} is known in {covered:.0%} of the windows' bins; {_extent(series.times)}")
    if series.conversion != 1 or series.offset != 0:
        windows = windows * series.conversion + series.offset
    return windows


def _extent(times: np.ndarray) -> str:
    return f"its times are {times[0]:.6g} to {times[-1]:.6g} s" if len(times) else "it has no samples"
