"""Read and write files of named arrays: ``.npz``, ``.npy`` and ``.mat``."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from neuro_lightning.artifacts.atomic import atomic_path
from neuro_lightning.data.checks.bounds import check_array, read_npy, read_npz, reading
from neuro_lightning.data.formats.mat import read_mat
from neuro_lightning.errors import DataError

log = logging.getLogger(__name__)

SUFFIXES = (".npz", ".npy", ".mat")
MEND = "write it again with numpy.savez, numbers and text only"
OTHER_NAMES = {
    "spikes": "counts", "spike_counts": "counts", "y": "behavior", "velocity": "behavior", "labels": "condition",
    "start": "times", "starts": "times", "trial_times": "times", "dff": "traces", "fluorescence": "traces",
    "f": "traces", "spks": "traces", "stimuli": "images", "responses_mean": "responses", "binsize": "bin_ms",
}  # fmt: skip
"""What others call our keys, for a guess."""

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
    try:
        with atomic_path(path) as part, part.open("wb") as file:
            np.savez_compressed(file, **arrays)
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror or error}); choose another folder") from None
    return path


def check_splits_column(values: np.ndarray, n: int, where: str) -> np.ndarray:
    """(B,) the split of each trial or image, as text.

    Raises:
        DataError: another number of them, or other words than train, val and test.
    """
    values = values.reshape(-1)
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    if values.dtype.kind != "U" or len(values) != n:
        raise DataError(f"{where} must name train, val or test for each of {n}, but is {values.dtype} {values.shape}")
    values = np.char.strip(values)
    if odd := set(values.tolist()) - {"train", "val", "test"}:
        raise DataError(f"{where} holds {min(odd)!r}; it may hold train, val and test")
    return values


def conditions(values: np.ndarray, n: int, where: str) -> tuple[np.ndarray, list[Any]]:
    """Each trial's condition as a number from 0 on, and what the numbers stand for.

    Args:
        values: (B,) numbers or text; NaN, -1 and empty text for none.
        n: trials B.
        where: the file and the array, for the error.

    Returns:
        ``(condition, values)``: (B,) int64, -1 for none, and the distinct values in ascending order.
    """
    values = values.reshape(-1)
    check_array(values, where, kinds="biufSU", may_be_nan=True, what="a condition for each trial")
    if len(values) != n:
        raise DataError(f"{where} has {len(values)} trials, but the data have {n}")
    text = values.dtype.kind in "SU"
    known = np.char.str_len(values) > 0 if text else ~np.isnan(values.astype(float)) & (values.astype(float) != -1)
    distinct, number = np.unique(values[known], return_inverse=True)
    condition = np.full(n, -1, np.int64)
    condition[known] = number
    return condition, [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in distinct.tolist()]


def whole_number(values: np.ndarray, where: str) -> int:
    """A single whole number above 0."""
    check_array(values, where, minimum=1, whole=True, what="a whole number")
    if values.size != 1:
        raise DataError(f"{where} must be one number, but has the shape {values.shape}")
    return int(values.reshape(-1)[0])


def _from_matlab(values: np.ndarray) -> np.ndarray:
    """Cells of text as an array of text."""
    if values.dtype == object:
        return np.array([str(np.squeeze(value)) for value in values.reshape(-1)])
    return values
