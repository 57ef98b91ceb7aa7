"""Read units, trials, series and intervals of any brainsets file.

brainsets (https://github.com/neuro-galaxy/brainsets) are HDF5 files in the layout of the package ``temporaldata``, in
which torch_brain's pipelines and IBL BrainWideBench keep recordings. Each group names its class in the attribute
``object``: ``Data`` holds others, ``Interval`` has ``start`` and ``end``, ``IrregularTimeSeries`` ``timestamps``, and
``RegularTimeSeries`` a ``sampling_rate``. h5py reads what is asked for: waveforms and series that nobody uses are never
loaded. Objects are named by their place, as in Python: ``movement_phases.reach_period``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from neuro_lightning.data.checks.bounds import check_stored
from neuro_lightning.data.checks.plausible import check_units_of_time, name_file_in_errors, sort_spike_times
from neuro_lightning.data.formats.columns import decode_text, read_dataset, read_yes_no
from neuro_lightning.data.formats.intervals import CONTINUOUS, intersect_intervals, merge_intervals, sort_intervals
from neuro_lightning.data.formats.spike_recording import Series, SpikeRecording, closest_names
from neuro_lightning.data.formats.unreadable import why_unreadable
from neuro_lightning.errors import DataError

KIND = "a brainsets file"

CHUNK = 2**22
"""Spikes that are read at a time."""

ROUNDING_S = 1e-9
"""By which times that are the same may differ."""

SERIES = ("IrregularTimeSeries", "RegularTimeSeries")
NO_FIELDS = {"timestamps", "timestamp_indices_1s", "domain"}
"""What is in the group of a time series beside its fields."""


def open_brainset(path: str | Path, trials: str | None = None, *, heldout: str = "heldout") -> SpikeRecording:
    """Read the units, the spikes and one table of intervals of a brainsets file.

    Spikes were recorded in the file's ``domain`` as far as it is in ``spikes.domain``. The latter does not count where
    it has several intervals, and each begins and ends with a spike: then it says when spikes came (a domain that was
    made trial by trial from the spikes), not what was recorded.

    Args:
        path: the file.
        trials: the name of the intervals that are the trials; ``continuous`` for none, which leaves the table empty.
            None: ``trials`` where the file has them, else none.
        heldout: the units' column that marks held-out ones; not needed.

    Raises:
        DataError: there is no such file; it is damaged, cut short or of another kind; it has no spikes or no such
            intervals; its tables contradict themselves; its times cannot be seconds of one clock.
    """
    path = Path(path).expanduser()
    with opened(path) as file:
        found = dict(_objects(file))
        names = tuple(name for name, group in found.items() if kind(group) == "Interval")
        if trials is None:
            trials = "trials" if "trials" in names else CONTINUOUS
        table, lines = _read_trials(found, trials, names, path)
        columns = _read_columns(found["units"], path, "units")[0] if kind(found.get("units")) == "ArrayDict" else {}
        spikes, ids, sorted_lines = _read_spikes(found, columns, path)
        marks = np.zeros(len(ids), bool)
        if heldout in columns:
            marks = read_yes_no(columns[heldout], ids, f"{path}: the units' column {heldout!r}")
        with name_file_in_errors(path):
            odd = check_units_of_time(spikes, table["start"], table["end"])
        observed = _observed(found, spikes, table, path)
        recording = SpikeRecording(
            path=path,
            unit_ids=ids,
            heldout=marks,
            spike_times=spikes,
            obs_intervals=[observed] * len(ids),
            trials=table,
            table=trials,
            start_column="start",
            stop_column="end",
            units=columns,
            interval_names=names,
            interval_reader=partial(_open_intervals, path),
            series_names=tuple(_series_names(found)),
            series_reader=partial(_open_series, path),
            simulated=bool(file.attrs.get("simulated", False)),
            session=_session(file),
            absolute_start=float(file.attrs.get("absolute_start", 0.0)),
        )
    for line in (*lines, *sorted_lines, *odd):
        recording.warn(line)
    return recording


def read_attributes(path: str | Path, name: str = "") -> dict[str, Any]:
    """The plain values of a ``Data`` object, such as ``brainset`` or ``session``; of the whole file without a name.

    Raises:
        DataError: the file cannot be read, or has no such object.
    """
    with opened(Path(path).expanduser()) as file:
        objects = {"": file, **dict(_objects(file))}
        if name not in objects:
            raise DataError(f"{path} has no {name!r}; {closest_names(name, list(objects)[1:])}")
        return _attributes(objects[name])


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """The open file; whatever goes wrong while it is read becomes one DataError."""
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise DataError(f"{path} {what}: {KIND} is expected there")
    try:
        with h5py.File(path, "r") as file:
            if "nwb_version" in file.attrs or "nwb_version" in file:
                raise DataError(f"{path} is an NWB file, not {KIND}: read it with data=nwb")
            if kind(file) != "Data":
                raise DataError(
                    f"{path} is an HDF5 file, but not {KIND}: its root has no attribute object='Data'; data=lfads_h5 "
                    "and data=arrays read other layouts"
                )
            yield file
    except DataError:
        raise
    except Exception as error:  # h5py and numpy raise a dozen different classes for a damaged file
        raise DataError(why_unreadable(path, error, KIND)) from error


def kind(group: Any) -> str | None:
    """The class of an object in the file; None where it says none."""
    name = group.attrs.get("object") if hasattr(group, "attrs") else None
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else name


def _objects(group: h5py.Group, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, h5py.Group]]:
    """Every object inside of a ``Data`` with its name."""
    for name, item in group.items():
        if not isinstance(item, h5py.Group):
            continue
        yield f"{prefix}{name}", item
        if kind(item) == "Data" and depth < 8:
            yield from _objects(item, f"{prefix}{name}.", depth + 1)


def _attributes(group: h5py.Group) -> dict[str, Any]:
    plain = {}
    for name, value in group.attrs.items():
        if name not in ("object", "_unicode_keys", "timekeys"):
            value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
            plain[name] = value.item() if isinstance(value, np.generic) else value
    return plain


def _session(file: h5py.File) -> dict[str, str | None]:
    """What the file says of its session; of a simulated one also how it was made."""
    brainset, session, subject = (_attributes(file[n]) if n in file else {} for n in ("brainset", "session", "subject"))
    parts = [brainset.get("id"), session.get("id")]
    values = {
        "identifier": "/".join(map(str, parts)) if all(parts) else None,
        "session_start_time": session.get("recording_date"),
        "session_id": session.get("id"),
        "subject_id": subject.get("id"),
    }
    if file.attrs.get("simulated", False):
        values["notes"] = _attributes(file).get("notes")
    return {name: str(value) if value not in (None, "") else None for name, value in values.items()}


def _read_columns(group: h5py.Group, path: Path, name: str) -> tuple[dict[str, np.ndarray], list[str]]:
    """The scalar columns of a table, text as str, and lines on what was left out.

    Raises:
        DataError: a column is not as long as the others.
    """
    columns, lines = {}, []
    for key, data in group.items():
        if not isinstance(data, h5py.Dataset) or len(data.shape) != 1 or data.dtype.kind not in "OSUbiuf":
            continue
        try:
            values = read_dataset(data, path, f"{name}.{key}")
        except Exception as error:
            if key in ("start", "end", "id"):
                raise
            reason = " ".join(str(error).split())[:100]
            lines.append(f"{name}.{key} cannot be read and is left out ({reason})")
            continue
        columns[key] = decode_text(values) if values.dtype.kind in "OSU" else values
    if len({len(values) for values in columns.values()}) > 1:
        lengths = ", ".join(f"{key} {len(values)}" for key, values in columns.items())
        raise DataError(f"{path}: the columns of {name} differ in length: {lengths}; the file is damaged")
    return columns, lines


def _read_trials(
    found: Mapping[str, h5py.Group], name: str, names: tuple[str, ...], path: Path
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The columns of the intervals that are the trials, ``id`` first, and lines on what was left out."""
    if name == CONTINUOUS:
        return {key: np.zeros(0) for key in ("id", "start", "end")}, []
    if name not in names:
        which = f"{name!r} is a {kind(found[name])}, not intervals" if name in found else f"has no intervals {name!r}"
        raise DataError(
            f"{path} {which}; {closest_names(name, names)}: data.trials=NAME takes one of them, "
            "data.trials=continuous cuts consecutive windows without"
        )
    columns, lines = _read_columns(found[name], path, name)
    for side in ("start", "end"):
        if side not in columns or columns[side].dtype.kind not in "fiu":
            raise DataError(f"{path}: {name} has no column {side} of numbers, in s; the file is damaged")
    if not len(columns["start"]):
        raise DataError(f"{path}: {name} is empty; {closest_names('', names)}: data.trials=NAME takes one of them")
    return {"id": np.arange(len(columns["start"])), **columns}, lines


def _open_intervals(path: Path, name: str) -> np.ndarray:
    with opened(path) as file:
        return _intervals(file[name.replace(".", "/")], path, name)


def _intervals(group: h5py.Group, path: Path, name: str) -> np.ndarray:
    """(k, 2) start and stop of an ``Interval``, in s, by their start."""
    sides = [np.asarray(read_dataset(group[side], path, f"{name}.{side}"), np.float64) for side in ("start", "end")]
    return sort_intervals(np.stack(sides, axis=1), f"{path}: {name}")


def _observed(found: Mapping[str, h5py.Group], spikes: list[np.ndarray], trials: dict, path: Path) -> np.ndarray:
    """(k, 2) the times in s in which spikes were recorded."""
    whole = _intervals(found["domain"], path, "domain") if kind(found.get("domain")) == "Interval" else None
    own = found["spikes"].get("domain")
    own = None if own is None else _intervals(own, path, "spikes.domain")
    if whole is not None and own is not None and len(own) > 1 and _made_of_spikes(own, spikes):
        own = None
    known = [merge_intervals(intervals) for intervals in (whole, own) if intervals is not None]
    if not known:
        edges = [t[[0, -1]] for t in spikes if len(t)]
        edges += [c[np.isfinite(c)] for c in (trials["start"], trials["end"])]
        edges = np.concatenate(edges)
        return np.array([[edges.min(initial=0.0), edges.max(initial=0.0)]])
    observed = known[0] if len(known) == 1 else intersect_intervals(*known)
    if not len(observed):
        raise DataError(f"{path}: domain and spikes.domain have no time in common; the file is damaged")
    return observed


def _made_of_spikes(intervals: np.ndarray, spikes: list[np.ndarray]) -> bool:
    """Whether each of some intervals begins and ends with a spike."""
    edges = intervals.ravel()
    there = np.zeros(len(edges), bool)
    for times in spikes:
        if len(times):
            there |= times[np.searchsorted(times, edges).clip(max=len(times) - 1)] == edges
    return bool(there.all())


def _read_spikes(
    found: Mapping[str, h5py.Group], units: dict[str, np.ndarray], path: Path
) -> tuple[list[np.ndarray], np.ndarray, list[str]]:
    """The units' spike times in order, their ids, and a line where times were not in order."""
    group = found.get("spikes")
    if group is None or kind(group) != "IrregularTimeSeries" or "unit_index" not in group:
        raise DataError(_no_spikes(found, path))
    times, index = group["timestamps"], group["unit_index"]
    for name, data in (("timestamps", times), ("unit_index", index)):
        check_stored(data, f"{path}: spikes.{name}")
    if times.shape != index.shape or len(times.shape) != 1 or index.dtype.kind not in "iu":
        raise DataError(
            f"{path}: spikes.timestamps {times.shape} and spikes.unit_index {index.shape} {index.dtype} are not one "
            "time and one whole number a spike; the file is damaged"
        )
    table = found.get("units", {})
    n_units = next((data.shape[0] for data in table.values() if isinstance(data, h5py.Dataset) and data.shape), None)
    counts = _count_by_unit(index, n_units, path)
    ids = _unit_ids(units, len(counts), path)
    spikes, unsorted = [], []
    for unit, values in zip(ids, _sort_by_unit(times, index, counts), strict=True):
        values, line = sort_spike_times(values, f"{path}: unit {unit}")
        spikes.append(values)
        unsorted += [f"unit {unit}: {line}"] if line else []
    lines = [f"spike times were sorted for {len(unsorted)} units ({unsorted[0]})"] if unsorted else []
    return spikes, ids, lines


def _no_spikes(found: Mapping[str, h5py.Group], path: Path) -> str:
    if "spikes" in found:
        return f"{path}: spikes must be an IrregularTimeSeries with timestamps and unit_index for data=brainset"
    traces = [name for name in _series_names(found) if "calcium" in name or "df_over_f" in name]
    if traces:
        return (
            f"{path} has calcium traces ({', '.join(traces[:3])}) and no spikes: data=brainset reads spikes; write "
            "them as an array (bins x neurons) for data=array_traces"
        )
    return f"{path} has no spikes, so there is nothing to model in it; {closest_names('spikes', list(found))}"


def _count_by_unit(index: h5py.Dataset, n_units: int | None, path: Path) -> np.ndarray:
    """(U,) spikes of each unit; as many units as the largest index asks for where their number is not known."""
    counts = np.zeros(n_units or 0, np.int64)
    for begin in range(0, len(index), CHUNK):
        part = index[begin : begin + CHUNK].astype(np.int64)
        low, high = int(part.min()), int(part.max())
        if low < 0 or (n_units is not None and high >= n_units) or high > 10**6:
            odd = low if low < 0 else high
            raise DataError(f"{path}: spikes.unit_index holds {odd}, but there are {n_units or 'fewer'} units")
        found = np.bincount(part, minlength=len(counts))
        found[: len(counts)] += counts
        counts = found
    if not len(counts):
        raise DataError(f"{path} has no units, so there is nothing to model in it")
    return counts


def _sort_by_unit(times: h5py.Dataset, index: h5py.Dataset, counts: np.ndarray) -> list[np.ndarray]:
    """U arrays of spike times in s; in memory are they themselves and one chunk of the file."""
    ends = np.cumsum(counts)
    sorted_times, place = np.empty(ends[-1]), ends - counts
    for begin in range(0, len(times), CHUNK):
        units = index[begin : begin + CHUNK].astype(np.int64)
        order = np.argsort(units, kind="stable")
        found = np.bincount(units, minlength=len(counts))
        shift = np.repeat(place - (np.cumsum(found) - found), found)
        sorted_times[shift + np.arange(len(units))] = times[begin : begin + CHUNK][order]
        place += found
    return np.split(sorted_times, ends[:-1])


def _unit_ids(units: dict[str, np.ndarray], n_units: int, path: Path) -> np.ndarray:
    """(U,) the units' names or numbers; their places where the file gives neither."""
    ids = units.get("id", np.arange(n_units))
    if ids.dtype.kind == "U":
        return ids
    if ids.dtype.kind not in "iuf" or (ids % 1 != 0).any():
        raise DataError(f"{path}: units.id must be text or whole numbers, not {ids.dtype}")
    return ids.astype(np.int64)


def _series_names(found: Mapping[str, h5py.Group]) -> Iterator[str]:
    """The fields of all time series but the spikes."""
    for name, group in found.items():
        if kind(group) in SERIES and name != "spikes":
            for field, data in group.items():
                if field not in NO_FIELDS and isinstance(data, h5py.Dataset):
                    yield f"{name}.{field}"


def _open_series(path: Path, name: str) -> Series:
    place, _, field = name.rpartition(".")
    with opened(path) as file:
        group = file[place.replace(".", "/")]
        data = read_dataset(group[field], path, name)
        if data.dtype.kind not in "fiub" or data.ndim not in (1, 2):
            raise DataError(f"{path}: series {name!r} is not samples x channels of numbers, but {data.shape}")
        data = data.reshape(len(data), -1)
        domain = _intervals(group["domain"], path, f"{place}.domain") if "domain" in group else None
        if kind(group) == "RegularTimeSeries":
            rate = float(group.attrs.get("sampling_rate", np.nan))
            if not (np.isfinite(rate) and rate > 0) or domain is None or not len(domain):
                raise DataError(f"{path}: series {name!r} has the rate {rate} and the domain {domain}; it is damaged")
            times = domain[0, 0] + np.arange(len(data)) / rate
        else:
            rate, times = None, np.asarray(read_dataset(group["timestamps"], path, f"{place}.timestamps"), np.float64)
    return _clean(times, data, rate, domain, path, name)


def _clean(
    times: np.ndarray, data: np.ndarray, rate: float | None, domain: np.ndarray | None, path: Path, name: str
) -> Series:
    """A series without samples that have no time, and NaN outside of its domain."""
    if times.shape != (len(data),):
        raise DataError(f"{path}: series {name!r} has {len(data)} samples and {times.shape} times; it is damaged")
    known, lines = np.isfinite(times), []
    if not known.all():
        lines.append(f"{int((~known).sum())} samples of series {name!r} have no time and are left out")
        times, data = times[known], data[known]
    if (np.diff(times) < 0).any():
        raise DataError(f"{path}: the times of series {name!r} run back; brainsets keep them in order")
    if domain is not None:
        middle = times + 0.5 / rate if rate else times  # a domain of regular samples ends one step after the last
        outside = ~_inside(middle, merge_intervals(domain))
        if outside.any():
            data = data.astype(data.dtype if data.dtype.kind == "f" else np.float64)
            data[outside] = np.nan
    field = name.rpartition(".")[2]
    columns = (field,) if data.shape[1] == 1 else tuple(f"{field}_{k}" for k in range(data.shape[1]))
    return Series(times, data, columns, rate, warnings=tuple(lines))


def _inside(times: np.ndarray, intervals: np.ndarray) -> np.ndarray:
    """(S,) bool, the times inside of intervals that are sorted and apart, their edges too."""
    if not len(intervals):
        return np.zeros(len(times), bool)
    before = np.searchsorted(intervals[:, 0] - ROUNDING_S, times, "right")
    return (before > 0) & (times <= intervals[np.maximum(before, 1) - 1, 1] + ROUNDING_S)
