"""Read and write files of named arrays: ``.npz``, ``.npy`` and ``.mat``."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from neuro_lightning.artifacts.atomic import whole_file
from neuro_lightning.data.checks.bounds import check_arrays, read_npy, read_npz, reading
from neuro_lightning.data.formats.mat import read_mat
from neuro_lightning.errors import ConfigError, DataError

log = logging.getLogger(__name__)

SUFFIXES = (".npz", ".npy", ".mat")
MEND = "write it again with numpy.savez, numbers and text only"
OTHER_NAMES = {
    "spikes": "counts", "spike_counts": "counts", "y": "behavior", "velocity": "behavior", "labels": "condition",
    "start": "times", "starts": "times", "trial_times": "times", "dff": "traces", "fluorescence": "traces",
    "f": "traces", "spks": "traces", "stimuli": "images", "responses_mean": "responses",
    "positions": "unit_positions", "coordinates": "unit_positions", "xyz": "unit_positions", "med": "unit_positions",
    "binsize": "bin_ms", "istim": "image_ids", "image_id": "image_ids", "frame_image_id": "image_ids",
    "stimulus_ids": "image_ids", "tiers": "split", "pupil": "pupil_center", "pupil_centers": "pupil_center",
}  # fmt: skip
"""What others call our keys, for a guess."""

AXES = {"B": "trials", "L": "bins", "N": "neurons", "F": "frames", "I": "images", "P": "presentations",
        "k": "channels", "r": "repeats"}  # fmt: skip
"""What the letters of a shape stand for."""
COMMON = {
    "split": {"kinds": "SU", "what": "train, val or test"},
    "unit_ids": {"kinds": "iuf", "whole": True, "what": "the neurons' numbers"},
    "behavior": {"kinds": "iuf", "may_be_nan": True},
    "bin_ms": {"minimum": 1, "whole": True, "what": "bin widths in ms"},
    "rates": {"kinds": "f"},
}
"""What arrays that several kinds of files share may hold, see :func:`check_values`."""

Arrays = dict[str, np.ndarray]


def read_arrays(path: str | Path, known: tuple[str, ...]) -> Arrays:
    """The named arrays of a file; an ``.npy`` file holds the first of the names alone. Nothing is unpickled.

    Args:
        path: the file.
        known: the names that are read, the one that must be there first.

    Raises:
        DataError: the file is missing or damaged, holds pickled objects, lacks the first name, or has a name that
            looks like a misspelt one.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"data.path={path}: give a file of arrays, {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    if not path.is_file():
        raise DataError(f"{path} is not there: data.path must name a file of arrays with {known[0]!r} in it")
    if path.suffix.lower() == ".mat":
        return {name: _from_matlab(values) for name, values in read_mat(path, known).items()}
    with reading(path, MEND):
        if path.suffix.lower() == ".npy":
            return {known[0]: read_npy(path)}
        found = read_npz(path, known)
    check_names(found, known, str(path))
    return {name: values for name, values in found.items() if values is not None}


def check_names(found: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    """Refuse names that look like others of ours, and tell of those that are not used.

    Raises:
        DataError: with a guess.
    """
    for name in sorted(set(found) - set(known)):
        near = get_close_matches(name.lower(), known, n=1, cutoff=0.75) or [OTHER_NAMES.get(name.lower())]
        if near[0] in known and near[0] not in found:
            raise DataError(f"{where} has no array {name!r}; did you mean {near[0]!r}? It takes {', '.join(known)}")
        log.warning(f"{where}: its array {name!r} is not used; known are {', '.join(known)}")
    if known[0] not in found:
        raise DataError(f"{where} has no array {known[0]!r}; it has {', '.join(sorted(found)) or 'nothing'}")


def write_arrays(folder: str | Path, kind: str, arrays: Mapping[str, np.ndarray]) -> Path:
    """Write arrays into a file that is named by what it holds, so that the same arrays are one file.

    Args:
        folder: where; made if need be.
        kind: the beginning of the file's name.
        arrays: numbers and text by name.

    Returns:
        ``folder/kind-<hash>.npz``.
    """
    digest = hashlib.sha256()
    for name in sorted(arrays):
        values = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {values.dtype.str} {values.shape} ".encode() + values.tobytes())
    path = Path(folder).expanduser().absolute() / f"{kind}-{digest.hexdigest()[:16]}.npz"
    if not path.is_file():
        save_arrays(path, arrays)
    return path


def save_arrays(path: str | Path, arrays: Mapping[str, np.ndarray]) -> Path:
    """Write arrays into an ``.npz`` file, whole or not at all; the same arrays give the same bytes.

    Raises:
        DataError: the file cannot be written.
    """
    path = Path(path).expanduser()
    with whole_file(path, DataError, "choose another folder") as part, part.open("wb") as file:
        np.savez_compressed(file, **arrays)
    return path


def check_values(arrays: Arrays, shapes: Mapping[str, str], rules: Mapping[str, dict[str, Any]], where: str) -> Arrays:
    """The arrays with all of their axes, once their values and their sizes are found to be right.

    Args:
        arrays: by name.
        shapes: the axes of each, a letter an axis, as for :func:`neuro_lightning.data.checks.bounds.check_sizes`. An
            axis with a small letter may be missing; an array of one axis may lie in a row or a column of a matrix.
        rules: keyword arguments of :func:`neuro_lightning.data.checks.bounds.check_array` for each.
        where: the file, for the messages.

    Raises:
        DataError: naming the first array that does not fit, and why.
    """
    found = {}
    for name, values in arrays.items():
        axes = shapes[name]
        optional = next((place for place, axis in enumerate(axes) if axis.islower()), None)
        if len(axes) == 1:
            values = values.reshape(-1)
        elif optional is not None and values.ndim == len(axes) - 1:
            values = np.expand_dims(values, optional)
        found[name] = values
    check_arrays(where, found, shapes, rules, AXES)
    if "unit_ids" in found and len(np.unique(found["unit_ids"])) < len(found["unit_ids"]):
        raise DataError(f"{where}unit_ids holds a number twice; neurons' numbers must differ")
    return found


def splits_column(values: np.ndarray, where: str) -> np.ndarray:
    """(B,) the split of each trial or image, as text.

    Raises:
        DataError: other words than train, val and test.
    """
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    values = np.char.strip(values)
    if odd := set(values.tolist()) - {"train", "val", "test"}:
        raise DataError(f"{where}split holds {min(odd)!r}; it may hold train, val and test")
    return values


def conditions(values: np.ndarray) -> tuple[np.ndarray, list[Any]]:
    """Each trial's condition as a number from 0 on, and what the numbers stand for.

    Args:
        values: (B,) numbers or text; NaN, -1 and empty text for none.

    Returns:
        ``(condition, values)``: (B,) int64, -1 for none, and the distinct values in ascending order.
    """
    text = values.dtype.kind in "SU"
    known = np.char.str_len(values) > 0 if text else ~np.isnan(values.astype(float)) & (values.astype(float) != -1)
    distinct, number = np.unique(values[known], return_inverse=True)
    condition = np.full(len(values), -1, np.int64)
    condition[known] = number
    return condition, [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in distinct.tolist()]


def bin_width(path: Path, arrays: Arrays, asked: int | None) -> int:
    """The bin width in ms that is asked for and that the file says, which must be the same.

    Raises:
        ConfigError: neither says it, or they differ.
    """
    said = int(arrays["bin_ms"][0]) if "bin_ms" in arrays else None
    if asked is None and said is None:
        raise ConfigError(f"{path} does not say how wide its bins are: give data.bin_ms=MILLISECONDS")
    if asked is not None and said is not None and asked != said:
        raise ConfigError(f"data.bin_ms={asked}: {path} says that its bins are {said} ms wide; leave it out")
    return said if asked is None else asked


def unit_ids(arrays: Arrays, n_neurons: int) -> np.ndarray:
    """(N,) int64, the neurons' numbers, from 0 on where the file does not say them."""
    return arrays.get("unit_ids", np.arange(n_neurons)).astype(np.int64)


def _from_matlab(values: np.ndarray) -> np.ndarray:
    """Cells of text as an array of text; cells of several numbers, such as unequal repeats, as they are."""
    if values.dtype == object and all(value.dtype.kind in "SU" or value.size == 1 for value in values.reshape(-1)):
        return np.array([str(np.squeeze(value)) for value in values.reshape(-1)])
    return values
