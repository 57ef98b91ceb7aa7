"""Read the files that spontaneous activity of mouse V1 is published in: Neuromatch Academy's and the original ones.

Source: Stringer, Pachitariu et al. 2019, Science 364:255. Neuromatch Academy's ``stringer_spontaneous.npy`` is one of
the original recordings (mouse MP019, 2016-04-05), three frames to a bin.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuro_lightning.data.checks.bounds import check_arrays
from neuro_lightning.data.formats.mat import read_mat
from neuro_lightning.data.formats.safe_pickle import load_dict
from neuro_lightning.data.stringer.suite2p import is_traces, read_suite2p
from neuro_lightning.errors import DataError

URL = "https://osf.io/dpqaj/download"
MAT_URL = "https://figshare.com/articles/dataset/6163622"
NAME = "stringer_spontaneous.npy"
NPY_BIN_MS = 1200
MAT_BIN_MS = 400  # a frame; the files do not say it, but Neuromatch's 1.2 s are three frames

SHAPES = {"sresp": "NT", "xyz": "3N", "run": "T1", "pupilArea": "T1", "pupilCOM": "T2", "beh_svd_time": "TK"}
BEHAVIOR = {"running": "run", "pupil_area": "pupilArea", "pupil_com": "pupilCOM", "face": "beh_svd_time"}
"""Behavior by our names and Neuromatch's keys; ``beh_svd_mask[..., k]`` is the picture of face component k."""


@dataclass
class SpontaneousFile:
    """What a file holds, in its own bins.

    Attributes:
        path: the file.
        activity: (N, T) deconvolved activity, or fluorescence, which may be negative (dF/F).
        xyz: (3, N) positions, um.
        behavior: ``running`` (T, 1), ``pupil_area`` (T, 1), ``pupil_com`` (T, 2) and ``face`` (T, K): components of
            the face's motion energy. What a file lacks is left out.
        bin_ms: width of a bin.
    """

    path: Path
    activity: np.ndarray
    xyz: np.ndarray
    behavior: dict[str, np.ndarray]
    bin_ms: int


def find_file(path: str | Path | None, root: str | Path) -> Path:
    """The file of the recording.

    Args:
        path: the file itself, or None for ``root/stringer/stringer_spontaneous.npy``.
        root: the folder of data.

    Raises:
        DataError: it is not there; says where it is published and where it belongs.
    """
    found = Path(root) / "stringer" / NAME if path is None else Path(path)
    found = found.expanduser()
    if not found.is_file():
        raise DataError(
            f"{found} is not there. Fetch it with `curl -L --create-dirs -o {found} {URL}` (an original recording, "
            f"spont_*.mat from {MAT_URL}, goes in by data.path=FILE), or use data.simulate=true"
        )
    return found


def read_spontaneous(path: str | Path, *, bin_ms: int | None = None) -> SpontaneousFile:
    """Read Neuromatch Academy's dictionary, an original MATLAB file, or suite2p's ``spks.npy`` or ``F.npy``.

    Args:
        path: the file.
        bin_ms: width of the file's bins in ms; None means 1200 for the dictionary and 400 for the original files.

    Raises:
        DataError: the file is damaged or of another layout, its shapes contradict each other, activity or positions
            hold NaN, or there is no imaging plane to be told apart.
    """
    path = Path(path).expanduser()
    if path.suffix == ".mat":
        arrays, default = _read_mat(path), MAT_BIN_MS
    elif is_traces(path):
        arrays, default = read_suite2p(path, bin_ms)
    else:
        optional = [key for key in SHAPES if key not in ("sresp", "xyz")]
        arrays, default = load_dict(path, ["sresp", "xyz"], optional), NPY_BIN_MS
        for key in ("run", "pupilArea"):
            if key in arrays and arrays[key].ndim == 1:
                arrays[key] = arrays[key][:, None]
    check_arrays(f"{path}: ", arrays, SHAPES, {key: {"may_be_nan": True} for key in BEHAVIOR.values()})
    activity = arrays["sresp"]
    behavior = {name: arrays[key] for name, key in BEHAVIOR.items() if key in arrays}
    return SpontaneousFile(path, activity, arrays["xyz"], behavior, bin_ms or default)


def _read_mat(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an original file by Neuromatch's keys."""
    file = read_mat(path, ["Fsp", "med", "xyz", "beh"], f"fetch it again from {MAT_URL}")
    positions = file.get("med", file.get("xyz"))
    if "Fsp" not in file or positions is None:
        has = ", ".join(file)
        raise DataError(
            f"{path} lacks Fsp (neurons x time) or med (their positions). Of Fsp, med, xyz, beh it has: {has}"
        )
    activity = file["Fsp"]
    if positions.ndim == 2 and positions.shape[0] == activity.shape[0]:
        positions = positions.T
    arrays = {"sresp": activity, "xyz": positions}
    return arrays | (_mat_behavior(file["beh"]) if "beh" in file else {})


def _mat_behavior(beh: np.ndarray) -> dict[str, np.ndarray]:
    """Behavior of the struct ``beh``, of the fields face, whisker, eye, pupil, runSpeed; what is missing is left out.

    The published description puts the running speed below the pupil, the files beside it: both are looked at.
    """
    face, pupil = _field(beh, "face", 0), _field(beh, "pupil", 3)
    running = _field(beh, "runSpeed", 4)
    found = {
        "run": _field(pupil, "runSpeed", None) if running is None else running,
        "pupilArea": _field(pupil, "area", 0),
        "pupilCOM": _field(pupil, "com", 1),
        "beh_svd_time": _field(face, "motionSVD", 0),
    }
    return {key: np.asarray(value) for key, value in found.items() if value is not None and np.size(value)}


def _field(struct: Any, name: str, index: int | None) -> Any:
    """A field of a 1 x 1 struct by its name or, where it was saved without names, by its number."""
    while isinstance(struct, np.ndarray) and struct.dtype == object and struct.size == 1:
        struct = struct.reshape(-1)[0]
    if not isinstance(struct, np.ndarray | np.void):
        return None
    if struct.dtype.names is not None:
        value = struct[name] if name in struct.dtype.names else None
    elif struct.dtype == object and index is not None and struct.size > index:
        value = struct.reshape(-1)[index]
    else:
        return None
    while isinstance(value, np.ndarray) and value.dtype == object and value.size == 1:
        value = value.reshape(-1)[0]
    return value
