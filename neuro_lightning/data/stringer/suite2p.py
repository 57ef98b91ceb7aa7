"""Read what suite2p writes for a plane: ``spks.npy`` or ``F.npy`` with ``stat.npy``, ``iscell.npy`` and ``ops.npy``.

Source: https://suite2p.readthedocs.io (outputs).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neuro_lightning.data.checks.bounds import check_array, check_arrays, npy_header, read_npy, reading
from neuro_lightning.data.formats.safe_pickle import load_dict, load_list
from neuro_lightning.errors import DataError

COMPANIONS = ("iscell.npy", "stat.npy", "ops.npy")


def is_traces(path: Path) -> bool:
    """Whether an ``.npy`` file holds an array of numbers, as suite2p's traces are, and no dictionary."""
    if path.suffix != ".npy" or not path.is_file():
        return False
    with reading(path), path.open("rb") as file:
        shape, _, dtype = npy_header(file)
    return dtype.kind in "fiu" and len(shape) == 2


def companion_files(path: Path) -> list[Path]:
    """The files that belong to a file of traces."""
    return [file for name in COMPANIONS if (file := path.with_name(name)).is_file()] if is_traces(path) else []


def read_suite2p(path: Path, bin_ms: int | None) -> tuple[dict[str, np.ndarray], int]:
    """Traces of the regions that are cells, with their places.

    Args:
        path: ``spks.npy``, ``F.npy`` or any array of the same form, neurons x frames.
        bin_ms: width of a frame; None for what ``ops.npy`` says.

    Returns:
        ``(arrays, bin_ms)``: ``sresp`` (N, T) and ``xyz`` (3, N) in pixels and planes, 0 where nothing tells them.

    Raises:
        DataError: a file is damaged or does not fit the others, or nothing tells the width of a frame.
    """
    with reading(path):
        traces = read_npy(path)
    check_array(traces, str(path), kinds="fiu", axes=("neurons", "frames"), what="traces")
    n, frame_ms = len(traces), bin_ms or _frame_ms(path.with_name("ops.npy"))
    if frame_ms is None:
        raise DataError(
            f"{path} is read as suite2p's traces, {n} neurons x {traces.shape[1]} frames, but no ops.npy beside it "
            "tells the frame rate: give data.bin_ms=MILLISECONDS of a frame"
        )
    xyz, keep = np.zeros((3, n)), np.ones(n, bool)
    if (stat := path.with_name("stat.npy")).is_file():
        xyz = _positions(stat, n)
    if (cells := path.with_name("iscell.npy")).is_file():
        with reading(cells):
            found = read_npy(cells)
        check_arrays(f"{cells}: ", {"iscell": found}, {"iscell": "NK"})
        if len(found) != n:
            raise DataError(f"{cells} tells of {len(found)} regions, but {path.name} has {n}: they are of other runs")
        keep = found[:, 0] > 0
    if not keep.any():
        raise DataError(f"{cells} says that none of the {n} regions is a cell")
    return {"sresp": traces[keep], "xyz": xyz[:, keep]}, frame_ms


def _positions(path: Path, n: int) -> np.ndarray:
    """(3, n) x, y and plane of each region."""
    regions = load_list(path)
    if len(regions) != n:
        raise DataError(f"{path} tells of {len(regions)} regions, but the traces beside it are {n}: of other runs")
    with reading(path):
        xyz = np.array([[*reversed([float(v) for v in r["med"]][:2]), float(r.get("iplane", 0))] for r in regions]).T
    check_arrays(f"{path}: ", {"med": xyz}, {"med": "3N"})
    return xyz


def _frame_ms(ops: Path) -> int | None:
    """Width of a frame by the settings of the run; None where they do not tell or hold what is not read."""
    try:
        rate = float(load_dict(ops, ["fs"])["fs"])
    except (DataError, TypeError, ValueError):
        return None
    return max(1, round(1000 / rate)) if 0.1 <= rate <= 1000 else None
