"""Read units, trials and continuous series of any NWB file.

NWB (Neurodata Without Borders, https://www.nwb.org) is the standard that the Neural Latents Benchmark and most
recordings on DANDI come in. ``pynwb`` does the reading, lazily: units and trials are small and read at once, a
continuous series only when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from neuro_lightning.errors import DataError


@dataclass(frozen=True)
class Series:
    """A continuous recording, such as the hand's velocity.

    Attributes:
        times: (S,) the samples' times in s.
        data: (S, K) the samples, in the file's own unit (its ``conversion`` is not applied).
        columns: (K,) the channels' names.
        rate: samples per second where the file says so, None where it gives each sample's time.
    """

    times: np.ndarray
    data: np.ndarray
    columns: tuple[str, ...]
    rate: float | None = None


@dataclass
class NWBRecording:
    """The units and trials of an NWB file, and a way to its continuous series.

    Attributes:
        path: the file.
        unit_ids: (U,) int64, the units' numbers.
        heldout: (U,) bool, the units that a benchmark hides; all False where the file does not say.
        spike_times: U arrays of sorted spike times in s; a unit without spikes has an empty one.
        obs_intervals: U arrays (k, 2) of the start and stop, in s, of the times in which spikes were recorded;
            the whole recording where the file does not say.
        trials: the scalar columns of the trial table, each (B,), ``id``, ``start_time`` and ``stop_time`` (s) first.
        series_names: the continuous series of acquisition and processing. A series inside a container, like a
            ``Position``, is named ``container/series``.
        simulated: whether the file says that it is simulated.
        identifier: the file's own name for the session.
        session: what the file says of which session it is: ``identifier``, ``session_start_time``, ``session_id`` and
            ``subject_id``, None where it does not say.
    """

    path: Path
    unit_ids: np.ndarray
    heldout: np.ndarray
    spike_times: list[np.ndarray]
    obs_intervals: list[np.ndarray]
    trials: dict[str, np.ndarray]
    series_names: tuple[str, ...] = ()
    simulated: bool = False
    identifier: str = ""
    session: dict[str, str | None] = field(default_factory=dict)

    @property
    def n_trials(self) -> int:
        """Rows of the trial table."""
        return len(self.trials["start_time"])

    @property
    def end_time(self) -> float:
        """The end of the last observed interval of any unit, in s."""
        return max((float(k[-1, 1]) for k in self.obs_intervals if len(k)), default=0.0)

    def column(self, name: str) -> np.ndarray:
        """(B,) one column of the trial table.

        Raises:
            DataError: the trial table has no scalar column of that name.
        """
        if name not in self.trials:
            raise DataError(f"{self.path}: the trial table has no column {name!r}; it has {', '.join(self.trials)}")
        return self.trials[name]

    def read_series(self, name: str) -> Series:
        """Read one continuous series, all of it.

        Args:
            name: one of ``series_names``, or the last part of one where no two end alike.

        Raises:
            DataError: there is no such series, or it cannot be read.
        """
        matches = [n for n in self.series_names if name in (n, n.rsplit("/", 1)[-1])]
        if name in matches:
            matches = [name]
        if len(matches) != 1:
            trouble = "has no series" if not matches else "has more than one series that ends in"
            names = ", ".join(self.series_names) or "none"
            raise DataError(f"{self.path} {trouble} {name!r}; its series are: {names}")
        with _opened(self.path) as nwb:
            return _read_series(dict(_walk_series(nwb))[matches[0]], self.path, matches[0])


def open_nwb(path: str | Path) -> NWBRecording:
    """Read the units and the trial table of an NWB file.

    Args:
        path: the file.

    Raises:
        DataError: there is no such file; it is damaged, cut short or not NWB; it has no units, no spike times or
            no trials; its tables contradict themselves.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise DataError(f"{path} {what}: an NWB file is expected there")
    with _opened(path) as nwb:
        if nwb.units is None or "spike_times" not in nwb.units.colnames or not len(nwb.units):
            raise DataError(f"{path} has no units with spike times, so there is nothing to model in it")
        if nwb.trials is None or not len(nwb.trials):
            raise DataError(f"{path} has no trial table; add one (start_time, stop_time) with pynwb's add_trial")
        trials = _read_trials(nwb.trials, path)
        spikes = _read_spikes(nwb.units, path)
        heldout = nwb.units["heldout"].data[:] if "heldout" in nwb.units.colnames else np.zeros(len(spikes), bool)
        return NWBRecording(
            path=path,
            unit_ids=np.asarray(nwb.units.id[:], np.int64),
            heldout=np.asarray(heldout, bool),
            spike_times=spikes,
            obs_intervals=_read_intervals(nwb.units, spikes, trials, path),
            trials=trials,
            series_names=tuple(name for name, _ in _walk_series(nwb)),
            simulated=_simulated(nwb),
            identifier=str(nwb.identifier),
            session=_session(nwb),
        )


def _session(nwb: Any) -> dict[str, str | None]:
    values = {name: getattr(nwb, name) for name in ("identifier", "session_start_time", "session_id")}
    values["subject_id"] = nwb.subject.subject_id if nwb.subject is not None else None
    if _simulated(nwb):  # twins of all seeds have one name; how they were made stands in their notes
        values["notes"] = nwb.notes
    return {name: str(value) if value not in (None, "") else None for name, value in values.items()}


def _simulated(nwb: Any) -> bool:
    return any("simulated" in str(text).lower() for text in (nwb.session_description, nwb.keywords))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The open file; whatever goes wrong while it is read becomes one DataError."""
    import pynwb

    try:
        with pynwb.NWBHDF5IO(str(path), mode="r", load_namespaces=True) as io:
            yield io.read()
    except DataError:
        raise
    except Exception as error:  # h5py, hdmf and pynwb raise a dozen different classes for a damaged file
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"{path} cannot be read: it is damaged, cut short or not an NWB file; fetch or write it again ({reason})"
        ) from error


def _read_trials(table: Any, path: Path) -> dict[str, np.ndarray]:
    """The scalar columns of the trial table; text comes as str, ragged columns are left out."""
    trials = {"id": np.asarray(table.id[:], np.int64)}
    for name in table.colnames:
        column = table[name]
        if type(column).__name__ != "VectorData" or column.data is None:
            continue
        values = np.asarray(column.data[:])
        if values.ndim == 1:
            trials[name] = values.astype(str) if values.dtype.kind in "OSU" else values
    if short := [name for name, values in trials.items() if len(values) != len(table)]:
        raise DataError(f"{path}: the trial table's columns {', '.join(short)} are not as long as the others")
    return trials


def _read_ragged(units: Any, name: str, path: Path) -> list[np.ndarray]:
    """One array a unit, cut out of a ragged column."""
    index = units[name]
    ends = np.asarray(index.data[:], np.int64)
    values = np.asarray(index.target.data[:], np.float64)
    if len(ends) != len(units) or (np.diff(ends, prepend=0) < 0).any() or ends[-1] != len(values):
        raise DataError(f"{path}: the units' {name} do not fit their index; the file is damaged, fetch it again")
    return np.split(values, ends[:-1])


def _read_spikes(units: Any, path: Path) -> list[np.ndarray]:
    spikes = _read_ragged(units, "spike_times", path)
    for unit, times in enumerate(spikes):
        if not np.isfinite(times).all():
            raise DataError(f"{path}: unit {units.id[unit]} has spike times that are not finite numbers")
        if (np.diff(times) < 0).any():
            spikes[unit] = np.sort(times)
    return spikes


def _read_intervals(units: Any, spikes: list, trials: dict, path: Path) -> list[np.ndarray]:
    """The units' observed intervals, or one that spans the recording."""
    if "obs_intervals" in units.colnames:
        intervals = _read_ragged(units, "obs_intervals", path)
        if all(k.ndim == 2 and k.shape[1] == 2 and np.isfinite(k).all() for k in intervals):
            return intervals
        raise DataError(f"{path}: the units' obs_intervals are not pairs of finite times; the file is damaged")
    times = [t[[0, -1]] for t in spikes if len(t)]
    times += [c[np.isfinite(c)] for c in (trials["start_time"], trials["stop_time"])]
    times = np.concatenate(times)
    whole = np.array([[min(0.0, times.min(initial=0.0)), times.max(initial=0.0)]])
    return [whole] * len(spikes)


def _walk_series(nwb: Any) -> Iterator[tuple[str, Any]]:
    """Every continuous series with its name, those of processing before those of acquisition."""
    from pynwb import TimeSeries

    seen = set()
    groups = [*(module.data_interfaces for module in nwb.processing.values()), nwb.acquisition]
    for name, item in ((name, item) for group in groups for name, item in group.items()):
        inner = [(name, item)] if isinstance(item, TimeSeries) else []
        if not inner:
            inner = [(f"{name}/{c.name}", c) for c in item.children if isinstance(c, TimeSeries)]
        for full_name, series in inner:
            if full_name not in seen:
                seen.add(full_name)
                yield full_name, series


def _read_series(series: Any, path: Path, name: str) -> Series:
    data = np.asarray(series.data[:])
    if data.dtype.kind not in "fiub" or data.ndim not in (1, 2):
        raise DataError(f"{path}: series {name!r} is not samples x channels of numbers, but {data.shape}")
    data = data.reshape(len(data), -1)
    if series.timestamps is not None:
        times, rate = np.asarray(series.timestamps[:], np.float64), None
    else:
        rate = float(series.rate)
        times = np.arange(len(data)) / rate + (series.starting_time or 0.0)
    if len(times) != len(data) or not np.isfinite(times).all():
        raise DataError(f"{path}: series {name!r} has {len(data)} samples but {len(times)} usable times")
    if (np.diff(times) < 0).any():
        raise DataError(f"{path}: the times of series {name!r} run backwards; the file is damaged")
    return Series(times, data, _column_names(series.comments or "", data.shape[1]), rate)


def _column_names(comments: str, n_columns: int) -> tuple[str, ...]:
    """The benchmark's files name a series' channels in its comments, as in ``columns=[x,y]``."""
    if "columns=" in comments:
        names = tuple(c.strip() for c in comments.split("[")[-1].split("]")[0].split(","))
        if len(names) == n_columns:
            return names
    return tuple(f"{i:04d}" for i in range(n_columns))
