"""Columns of a table in a file: numbers, text and marks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from neuro_lightning.data.checks.bounds import check_stored
from neuro_lightning.errors import DataError

TRUE = {"true", "t", "yes", "y", "1", "1.0", "heldout", "held-out", "held_out", "held out", "out"}
FALSE = {"false", "f", "no", "n", "0", "0.0", "heldin", "held-in", "held_in", "held in", "in"}


def read_dataset(data: Any, path: Path, what: str) -> np.ndarray:
    """A dataset as an array; none is made larger than what the file can hold.

    Args:
        data: an h5py dataset, or what pynwb has made of it.
        path: the file, for the error.
        what: the dataset, for the error.

    Raises:
        DataError: the file declares more than it holds.
    """
    if hasattr(data, "id"):
        check_stored(data, f"{path}: {what}")
    return np.asarray(data[:])


def decode_text(values: np.ndarray) -> np.ndarray:
    """Text as str; bytes are UTF-8, and what is not shows as a question mark."""
    if values.dtype.kind == "S":
        return np.char.decode(values, "utf-8", "replace")
    decoded = [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values.tolist()]
    return np.array(decoded, dtype=str)


def read_yes_no(values: np.ndarray, ids: np.ndarray, what: str, row: str = "unit") -> np.ndarray:
    """Yes or no for each row of a table, however it was written.

    Args:
        values: (U,) bool, 0 and 1, or text.
        ids: (U,) the rows' numbers.
        what: the file and the column, for the error.
        row: what a row is, for the error.

    Returns:
        (U,) bool.

    Raises:
        DataError: a value is neither yes nor no.
    """
    values = np.asarray(values)
    if values.shape != (len(ids),):
        raise DataError(f"{what} is not one value for each of {len(ids)} {row}s but {values.shape}")
    if values.dtype.kind == "b":
        return values
    words = np.char.lower(np.char.strip(decode_text(values.astype(object) if values.dtype.kind in "fiu" else values)))
    yes, no = np.isin(words, list(TRUE)), np.isin(words, list(FALSE))
    if not (yes | no).all():
        k = int(np.flatnonzero(~(yes | no))[0])
        raise DataError(
            f"{what} is {str(words[k])[:40]!r} for {row} {ids[k]} "
            f"({int((~(yes | no)).sum())} such): write True or False"
        )
    return yes
