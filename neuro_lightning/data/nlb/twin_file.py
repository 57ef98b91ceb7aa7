"""The NWB file itself: units, electrodes, trial table and behavior, laid out as in the benchmark's published files."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np

from neuro_lightning.data.nlb.params import NLBParams
from neuro_lightning.data.nlb.tasks.common import BehaviorSeries, Session

SESSION_DATES = {
    "mc_maze": (2009, 9, 25),
    "mc_maze_large": (2009, 10, 6),
    "mc_maze_medium": (2009, 9, 29),
    "mc_maze_small": (2009, 9, 28),
    "mc_rtt": (2017, 2, 2),
    "area2_bump": (2017, 12, 7),
    "dmfc_rsg": (2016, 12, 11),
}

DESCRIPTIONS = {
    "start_time": "Start time of epoch, in seconds",
    "stop_time": "Stop time of epoch, in seconds",
    "split": "Trial split that the trial belongs to for the Neural Latents Benchmark",
    "move_onset_time": "Time of movement onset",
}


@dataclass(frozen=True)
class Units:
    """The units of a file.

    Attributes:
        ids: (N,) numbers as in the published files: electrode x 10 + unit, after the array's digit in the maze.
        heldout: (N,) bool.
        spike_times: N sorted arrays, s.
        intervals: (k, 2) the observed intervals, s, the same for all units.
    """

    ids: np.ndarray
    heldout: np.ndarray
    spike_times: list[np.ndarray]
    intervals: np.ndarray


def write_nwb(path: Path, params: NLBParams, units: Units, session: Session, description: str, note: str) -> None:
    """Write one NWB file.

    Args:
        path: where; an existing file is replaced.
        params: the dataset it is a twin of.
        units: its units.
        session: trial table and behavior; the blocks are not used.
        description: the session description.
        note: kept in ``general/notes``.
    """
    from pynwb import NWBHDF5IO, NWBFile
    from pynwb.file import Subject

    subject = params.train.path.split("/")[0].removeprefix("sub-")
    start = datetime(*SESSION_DATES[params.name], tzinfo=timezone(timedelta(hours=-7)))
    nwb = NWBFile(
        session_description=description,
        identifier=f"simulated-{params.name}",
        session_start_time=start,
        file_create_date=start,
        notes=note,
        keywords=["simulated"],
        subject=Subject(subject_id=subject, sex="M", species="Macaca mulatta", description="simulated"),
    )
    electrodes = _add_electrodes(nwb, params.name)
    nwb.units = _units_table(units, None if params.name == "dmfc_rsg" else electrodes)
    nwb.trials = _trial_table(session.trials)
    if session.series:
        module = nwb.create_processing_module("behavior", "Processed behavioral data")
        for series in session.series:
            module.add(_time_series(series, session.samples_ms))
    with NWBHDF5IO(str(path), "w") as io:
        io.write(nwb)


def _add_electrodes(nwb: Any, dataset: str) -> Any:
    """The electrodes table: two arrays of 96 (maze), one (rtt, area 2), or three probes of 24 (dmfc)."""
    from hdmf.common import VectorData
    from pynwb.ecephys import ElectrodesTable

    if dataset.startswith("mc_maze"):
        groups = [("PMd", 96), ("M1", 96)]
    else:
        groups = {"mc_rtt": [("M1", 96)], "area2_bump": [("S1", 96)], "dmfc_rsg": [(f"DMFC_{k}", 24) for k in range(3)]}
        groups = groups[dataset]
    arrays = []
    for name, size in groups:
        about = f"simulated electrodes in {name}"
        device = nwb.create_device(f"electrode_array_{name}", description=about)
        arrays += [nwb.create_electrode_group(f"electrode_group_{name}", about, name, device)] * size
    unknown = np.full(len(arrays), np.nan)
    filtering = "1000 Hz" if dataset.startswith("mc_maze") else "unknown"
    values = {"x": unknown, "y": unknown, "z": unknown, "imp": unknown}
    values["location"] = [group.location for group in arrays]
    values["filtering"] = [filtering] * len(arrays)
    values["group"] = arrays
    values["group_name"] = [group.name for group in arrays]
    nwb.electrodes = ElectrodesTable(
        id=np.arange(1, len(arrays) + 1),
        columns=[VectorData(name=name, description=name, data=data) for name, data in values.items()],
        colnames=list(values),
    )
    return nwb.electrodes


def _units_table(units: Units, electrodes: Any | None) -> Any:
    """``units``: heldout, spike_times, obs_intervals and electrodes, ragged ones with an index."""
    from hdmf.common import DynamicTableRegion, VectorIndex
    from pynwb.misc import Units as UnitsTable

    n = len(units.ids)
    columns = [
        *_columns("heldout", "Whether the unit is held out (True) or not", units.heldout),
        *_columns("spike_times", "the spike times for each unit", units.spike_times),
        *_columns("obs_intervals", "the observation intervals for each unit", [units.intervals] * n),
    ]
    names = ["heldout", "spike_times", "obs_intervals"]
    if electrodes is not None:
        # as in the published files, an M1 unit of the maze points at its electrode's row within its own array
        rows = units.ids // 10 % 100 - 1
        about = "the electrodes that each spike unit came from"
        region = DynamicTableRegion(name="electrodes", data=rows, description=about, table=electrodes)
        index = VectorIndex(name="electrodes_index", data=_smallest_unsigned(np.arange(1, n + 1)), target=region)
        columns += [region, index]
        names.append("electrodes")
    return UnitsTable(
        name="units",
        description="data on spiking units",
        id=units.ids,
        columns=columns,
        colnames=names,
        electrode_table=electrodes,
    )


def _smallest_unsigned(values: np.ndarray) -> np.ndarray:
    """An index in the smallest unsigned type it fits into."""
    return values.astype(np.min_scalar_type(int(values[-1])))


def _trial_table(trials: dict[str, np.ndarray | list[np.ndarray]]) -> Any:
    """``intervals/trials``, its columns in the order given; lists of arrays become ragged columns."""
    from pynwb.epoch import TimeIntervals

    pairs = [_columns(name, DESCRIPTIONS.get(name, name.replace("_", " ")), v) for name, v in trials.items()]
    columns = [column for pair in pairs for column in pair]
    ids = np.arange(len(trials["start_time"]))
    return TimeIntervals(
        name="trials", description="experimental trials", id=ids, columns=columns, colnames=list(trials)
    )


def _columns(name: str, about: str, values: np.ndarray | list[np.ndarray]) -> list[Any]:
    """A column with a value a row; or of a list of arrays a ragged column and its index."""
    from hdmf.common import VectorData, VectorIndex

    if isinstance(values, list):
        data = VectorData(name=name, description=about, data=np.concatenate(values))
        ends = _smallest_unsigned(np.cumsum([len(v) for v in values]))
        return [data, VectorIndex(name=f"{name}_index", data=ends, target=data)]
    # the NWB writer takes text as a list of str
    values = [str(v) for v in values] if values.dtype.kind in "OU" else values
    return [VectorData(name=name, description=about, data=values)]


def _time_series(series: BehaviorSeries, samples_ms: np.ndarray) -> Any:
    """One behavior series; its channels' names stand in the comments, as ``columns=[x,y]``."""
    from pynwb import TimeSeries
    from pynwb.behavior import SpatialSeries

    common = {
        "name": series.name,
        "data": series.data,
        "unit": series.unit,
        "description": series.name.replace("_", " "),
        "comments": f"columns=[{','.join(series.columns)}]",
    }
    if series.rate_based:
        common |= {"rate": 1000.0, "starting_time": 0.0}
    else:
        common |= {"timestamps": samples_ms / 1000}
    if series.spatial:
        return SpatialSeries(reference_frame="(0, 0) is the center of the screen", **common)
    return TimeSeries(**common)
