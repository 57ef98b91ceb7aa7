"""Write a twin's NWB file: units, electrodes, trial table and behavior, laid out as in the benchmark's published files.

Trial columns and series that neither our readers nor the benchmark's code read are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from neuro_lightning.artifacts.h5_files import h5_file
from neuro_lightning.data.nlb.params import NLBParams
from neuro_lightning.data.nlb.tasks.common import Session

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
    "heldout": "Whether the unit is held out (True) or not",
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
    from pynwb.epoch import TimeIntervals
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
    nwb.electrodes = _electrodes_table(nwb, params.name)
    nwb.units = _units_table(units, None if params.name == "dmfc_rsg" else nwb.electrodes)
    ids = np.arange(len(session.trials["start_time"]))
    nwb.trials = TimeIntervals(name="trials", description="experimental trials", id=ids, **_columns(session.trials))
    if session.velocity is not None:
        module = nwb.create_processing_module("behavior", "Processed behavioral data")
        module.add(_velocity(params, session))
    with h5_file(path) as file, NWBHDF5IO(file=file, mode="w") as io:
        io.write(nwb)


def _electrodes_table(nwb: Any, dataset: str) -> Any:
    """The electrodes table: two arrays of 96 (maze), one (rtt, area 2), or three probes of 24 (dmfc)."""
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
    return ElectrodesTable(id=np.arange(1, len(arrays) + 1), **_columns(values))


def _units_table(units: Units, electrodes: Any | None) -> Any:
    """``units``: heldout, spike_times, obs_intervals and electrodes, ragged ones with an index."""
    from hdmf.common import DynamicTableRegion
    from pynwb.misc import Units as UnitsTable

    n = len(units.ids)
    content = {"heldout": units.heldout, "spike_times": units.spike_times, "obs_intervals": [units.intervals] * n}
    if electrodes is not None:
        # as in the published files, an M1 unit of the maze points at its electrode's row within its own array
        content["electrodes"] = list((units.ids // 10 % 100 - 1)[:, None])
    columns = _columns(content, electrodes=partial(DynamicTableRegion, table=electrodes))
    about = "data on spiking units"
    return UnitsTable(name="units", description=about, id=units.ids, electrode_table=electrodes, **columns)


def _columns(content: dict[str, Any], **kinds: Callable[..., Any]) -> dict[str, list[Any]]:
    """What a table is made of: its columns and their names.

    Args:
        content: a value a row, or a list of arrays for a ragged column and its index.
        kinds: the columns that are no ``VectorData``.
    """
    from hdmf.common import VectorData, VectorIndex

    columns = []
    for name, values in content.items():
        ragged = isinstance(values[0], np.ndarray)
        if ragged:
            ends, values = np.cumsum([len(part) for part in values]).tolist(), np.concatenate(values)
        elif isinstance(values[0], str):
            values = [str(value) for value in values]  # the NWB writer takes text as a list of str
        data = kinds.get(name, VectorData)(name=name, description=DESCRIPTIONS.get(name, name), data=values)
        columns += [data, VectorIndex(name=f"{name}_index", data=ends, target=data)] if ragged else [data]
    return {"columns": columns, "colnames": list(content)}


def _velocity(params: NLBParams, session: Session) -> Any:
    """The behavior; its channels' names stand in the comments, as ``columns=[x,y]``."""
    from pynwb import TimeSeries

    times = {"rate": 1000.0, "starting_time": 0.0}
    if session.samples_ms is not None:
        times = {"timestamps": session.samples_ms / 1000}
    unit = "cm/s" if params.name == "area2_bump" else "mm/s"
    return TimeSeries(name=params.behavior, data=session.velocity, unit=unit, comments="columns=[x,y]", **times)
