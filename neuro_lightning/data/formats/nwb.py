"""Read units, trials and continuous series of any NWB file.

NWB (Neurodata Without Borders, https://www.nwb.org) is the standard that the Neural Latents Benchmark and most
recordings on DANDI come in. ``pynwb`` does the reading, lazily: units and trials are small and read at once, a
continuous series only when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from neuro_lightning.data.checks.plausible import LONGEST_S, check_units_of_time, name_file_in_errors, sort_spike_times
from neuro_lightning.data.formats.columns import read_dataset, read_yes_no
from neuro_lightning.data.formats.intervals import CONTINUOUS, sort_intervals
from neuro_lightning.data.formats.nwb_tables import find_table, read_columns
from neuro_lightning.data.formats.spike_recording import Series, SpikeRecording
from neuro_lightning.data.formats.unreadable import why_unreadable
from neuro_lightning.errors import DataError

DAY_S = 86400.0


def open_nwb(path: str | Path, trials: str | None = "trials") -> SpikeRecording:
    """Read the units and the trial table of an NWB file.

    Args:
        path: the file.
        trials: the table of intervals that are the trials; ``continuous`` for none, which leaves the table empty. None:
            ``trials`` where the file has some, else none.

    Raises:
        DataError: there is no such file; it is damaged, cut short or not NWB; it has no units, no spike times or
            no trials; its tables contradict themselves; its times cannot be seconds of one clock.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise DataError(f"{path} {what}: an NWB file is expected there")
    with _opened(path) as nwb:
        if nwb.units is None or "spike_times" not in nwb.units.colnames or not len(nwb.units):
            raise DataError(f"{path} has no units with spike times, so there is nothing to model in it")
        table, lines = {name: np.zeros(0) for name in ("id", "start_time", "stop_time")}, []
        if trials is None:
            trials = "trials" if nwb.trials is not None and len(nwb.trials) else CONTINUOUS
        if trials != CONTINUOUS:
            table, lines = read_columns(find_table(nwb, trials, path), path)
        ids = np.asarray(read_dataset(nwb.units.id, path, "the units' id"), np.int64)
        spikes, sorted_lines = _read_spikes(nwb.units, ids, path)
        heldout = np.zeros(len(ids), bool)
        if "heldout" in nwb.units.colnames:
            values = np.asarray(read_dataset(nwb.units["heldout"].data, path, "the units' heldout"))
            heldout = read_yes_no(values, ids, f"{path}: the units' column 'heldout'")
        resolution = getattr(nwb.units, "resolution", None)
        start, stop = (table[c].astype(np.float64) for c in ("start_time", "stop_time"))
        with name_file_in_errors(path):
            odd = check_units_of_time(spikes, start, stop, resolution)
        recording = SpikeRecording(
            path=path,
            unit_ids=ids,
            heldout=heldout,
            spike_times=spikes,
            obs_intervals=_read_intervals(nwb.units, ids, spikes, table, path),
            trials=table,
            table=trials,
            series_names=tuple(name for name, _ in _find_series(nwb)),
            series_reader=partial(_open_series, path),
            simulated=_simulated(nwb),
            session=_session(nwb),
            invalid_times=_read_invalid(nwb, path),
        )
        for line in (*lines, *sorted_lines, *odd):
            recording.warn(line)
        return recording


def _session(nwb: Any) -> dict[str, str | None]:
    values = {name: getattr(nwb, name) for name in ("identifier", "session_start_time", "session_id")}
    values["subject_id"] = nwb.subject.subject_id if nwb.subject is not None else None
    if _simulated(nwb):  # twins of all seeds have one name; how they were made stands in their notes
        values["notes"] = nwb.notes
    return {name: str(value) if value not in (None, "") else None for name, value in values.items()}


def _simulated(nwb: Any) -> bool:
    return any("simulated" in str(text).lower() for text in (nwb.session_description, nwb.keywords))


def is_simulated(path: Path) -> bool:
    """Whether an NWB file's description or keywords say that it is simulated."""
    import h5py

    try:
        with h5py.File(path) as file:
            texts = [file[name][()] for name in ("session_description", "general/keywords") if name in file]
    except OSError:
        return False
    return any("simulated" in str(text).lower() for text in texts)


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
        raise DataError(why_unreadable(path, error)) from error


def _read_ragged(units: Any, name: str, path: Path) -> list[np.ndarray]:
    """One array a unit, cut out of a ragged column."""
    index = units[name]
    ends = np.asarray(read_dataset(index.data, path, f"the index of {name}"), np.int64)
    values = np.asarray(read_dataset(index.target.data, path, name), np.float64)
    if len(ends) != len(units) or (np.diff(ends, prepend=0) < 0).any() or ends[-1] != len(values):
        raise DataError(f"{path}: the units' {name} do not fit their index; the file is damaged, fetch it again")
    return np.split(values, ends[:-1])


def _read_spikes(units: Any, ids: np.ndarray, path: Path) -> tuple[list[np.ndarray], list[str]]:
    """The units' spike times in order, and a line where some were not."""
    spikes, unsorted = [], []
    for unit, times in zip(ids, _read_ragged(units, "spike_times", path), strict=True):
        if times.ndim != 1:
            raise DataError(f"{path}: the units' spike_times are not one time a spike; the file is damaged")
        times, line = sort_spike_times(times, f"{path}: unit {unit}")
        spikes.append(times)
        unsorted += [f"unit {unit}: {line}"] if line else []
    lines = [f"spike times were sorted for {len(unsorted)} units ({unsorted[0]})"] if unsorted else []
    return spikes, lines


def _read_intervals(units: Any, ids: np.ndarray, spikes: list, trials: dict, path: Path) -> list[np.ndarray]:
    """The units' observed intervals, or one that spans the recording."""
    times = [t[[0, -1]] for t in spikes if len(t)]
    times += [c[np.isfinite(c)] for c in (trials["start_time"], trials["stop_time"])]
    times = np.concatenate(times) if times else np.zeros(0)
    first, last = times.min(initial=np.inf), times.max(initial=-np.inf)
    if "obs_intervals" in units.colnames:
        intervals = _read_ragged(units, "obs_intervals", path)
        intervals = [
            sort_intervals(k, f"{path}: the obs_intervals of unit {u}") for u, k in zip(ids, intervals, strict=True)
        ]
        hull = [(k[0, 0], k[:, 1].max()) for k in intervals if len(k)]
        if hull and max(b for _, b in hull) - min(a for a, _ in hull) > LONGEST_S and len(times):
            # such as 0 to 1e9 for "all of it": beyond spikes and trials there is nothing to cut
            intervals = [np.clip(k, first - DAY_S / 24, last + DAY_S / 24) for k in intervals]
        return intervals
    if not len(times):
        return [np.zeros((1, 2))] * len(spikes)
    start = 0.0 if 0 <= first < DAY_S and len(trials["start_time"]) else first
    return [np.array([[start, last]])] * len(spikes)


def _read_invalid(nwb: Any, path: Path) -> np.ndarray:
    """The intervals that the file says not to use."""
    table = nwb.invalid_times
    if table is None or not len(table):
        return np.zeros((0, 2))
    pairs = [
        np.asarray(read_dataset(table[c].data, path, f"invalid_times {c}"), float) for c in ("start_time", "stop_time")
    ]
    return sort_intervals(np.stack(pairs, axis=1), f"{path}: the table invalid_times")


def _find_series(nwb: Any) -> Iterator[tuple[str, Any]]:
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


def _open_series(path: Path, name: str) -> Series:
    with _opened(path) as nwb:
        return _read_series(dict(_find_series(nwb))[name], path, name)


def _read_series(series: Any, path: Path, name: str) -> Series:
    data = read_dataset(series.data, path, f"series {name!r}")
    if data.dtype.kind not in "fiub" or data.ndim not in (1, 2):
        raise DataError(f"{path}: series {name!r} is not samples x channels of numbers, but {data.shape}")
    data = data.reshape(len(data), -1)
    if series.timestamps is not None:
        times, rate = np.asarray(read_dataset(series.timestamps, path, f"the times of {name!r}"), np.float64), None
    else:
        rate = float(series.rate)
        if not (np.isfinite(rate) and rate > 0):
            raise DataError(f"{path}: series {name!r} has a rate of {rate} samples/s and no timestamps")
        times = np.arange(len(data)) / rate + float(series.starting_time or 0.0)
    known = np.isfinite(times)
    if times.shape != (len(data),) or (len(data) and not known.any()):
        raise DataError(f"{path}: series {name!r} has {len(data)} samples but {int(known.sum())} usable times")
    lines = [] if known.all() else [f"{int((~known).sum())} samples of series {name!r} have no time and are left out"]
    if lines:
        times, data = times[known], data[known]
    if (backward := np.flatnonzero(np.diff(times) < 0)).size:
        lines.append(f"the times of series {name!r} run backwards at {backward.size} of {len(times)} samples; sorted")
        order = _sorting_order(times, path, name)
        times, data = times[order], data[order]
    columns = _column_names(series.comments or "", data.shape[1])
    scale, shift = float(series.conversion), float(series.offset)
    if not (np.isfinite(scale) and np.isfinite(shift) and scale):
        raise DataError(f"{path}: series {name!r} has the conversion {scale} and the offset {shift}: give finite ones")
    return Series(times, data, columns, rate, scale, shift, tuple(lines))


def _sorting_order(times: np.ndarray, path: Path, name: str) -> np.ndarray:
    """The order of a list of events; a signal sampled at regular times whose clock begins anew is refused."""
    steps = np.diff(times)
    forward = steps[steps > 0]
    usual = np.median(forward) if forward.size else 0.0
    regular = len(times) >= 20 and np.mean(np.abs(steps - usual) <= 0.5 * usual) > 0.9
    worst = int(steps.argmin())
    if regular and -steps[worst] > 10 * usual:
        raise DataError(
            f"{path}: the clock of series {name!r} begins anew: its times run back from {times[worst]:.6g} to "
            f"{times[worst + 1]:.6g} s; write them on the session's clock"
        )
    return np.argsort(times, kind="stable")


def _column_names(comments: str, n_columns: int) -> tuple[str, ...]:
    """The benchmark's files name a series' channels in its comments, as in ``columns=[x,y]``."""
    if "columns=" in comments:
        names = tuple(c.strip() for c in comments.split("[")[-1].split("]")[0].split(","))
        if len(names) == n_columns:
            return names
    return tuple(f"{i:04d}" for i in range(n_columns))
