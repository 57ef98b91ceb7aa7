"""Write the benchmark's tensors to one HDF5 file, for people with other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from neuro_lightning.artifacts.atomic import whole_file
from neuro_lightning.artifacts.h5_files import h5_file
from neuro_lightning.errors import DataError


def write_h5(path: str | Path, tensors: dict[str, Any]) -> Path:
    """Write tensors in the benchmark's layout: gzip, counts and values as float32, integers as int32.

    The file appears under its name only when it is complete; an existing one is replaced.

    Args:
        path: the file to write; missing folders are made.
        tensors: arrays by name; a dictionary becomes a group, a list of index arrays a vlen dataset.

    Raises:
        DataError: the file cannot be written.
    """
    path = Path(path).expanduser()
    with whole_file(path, DataError, "check the folder and the space left on it") as part, h5_file(part) as file:
        _write_group(file, tensors)
    return path


def _write_group(group: Any, tensors: dict[str, Any]) -> None:
    import h5py

    for name, value in tensors.items():
        if isinstance(value, dict):
            _write_group(group.create_group(name), value)
        elif isinstance(value, list):
            data = group.create_dataset(name, (len(value),), dtype=h5py.vlen_dtype(np.int32))
            for i, index in enumerate(value):
                data[i] = index.astype(np.int32)
        else:
            dtype = {"f": np.float32, "u": np.float32, "b": bool}.get(value.dtype.kind, np.int32)
            group.create_dataset(name, data=value.astype(dtype), compression="gzip")
