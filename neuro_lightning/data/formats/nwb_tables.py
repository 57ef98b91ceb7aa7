"""The tables of an NWB file: trials under whatever name, text, marks, intervals; and windows without trials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from neuro_lightning.data.checks.bounds import check_stored
from neuro_lightning.errors import DataError

CONTINUOUS = "continuous"
"""The name that asks for consecutive windows instead of a table."""

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


def find_table(nwb: Any, name: str, path: Path) -> Any:
    """The table of intervals with a name, wherever it stands.

    Args:
        nwb: the open file.
        name: ``trials``, or the name of any table of intervals.
        path: the file, for the error.

    Raises:
        DataError: there is none, or it has no rows.
    """
    from pynwb.epoch import TimeIntervals

    tables = {item.name: item for item in nwb.objects.values() if isinstance(item, TimeIntervals)}
    if nwb.trials is not None:
        tables["trials"] = nwb.trials
    if name in tables and len(tables[name]):
        return tables[name]
    others = ", ".join(n for n, table in tables.items() if len(table) and n != "invalid_times")
    mend = f"it has {others}: data.trials=NAME takes one of them" if others else "add one with pynwb's add_trial"
    which = "no trial table" if name == "trials" else f"no table of intervals {name!r}"
    which = f"an empty table {name!r}" if name in tables else which
    raise DataError(f"{path} has {which}; {mend}; data.trials=continuous cuts consecutive windows without")


def read_columns(table: Any, path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """The scalar columns of a table, ``id``, ``start_time`` and ``stop_time`` first, and lines on what was left out.

    Text comes as str; ragged columns are left out, and so is one that cannot be read and need not be.

    Raises:
        DataError: a column is not as long as the others, or the times cannot be read.
    """
    columns, lines = {"id": np.asarray(read_dataset(table.id, path, "the trials' id"), np.int64)}, []
    for name in table.colnames:
        try:
            column = table[name]
            if type(column).__name__ != "VectorData" or column.data is None or len(np.shape(column.data)) != 1:
                continue
            values = read_dataset(column.data, path, f"trial column {name!r}")
            if values.dtype.kind not in "OSUbiuf":
                continue
            values = decode_text(values) if values.dtype.kind in "OSU" else values
        except Exception as error:  # h5py's, numpy's and hdmf's own kinds
            if name in ("start_time", "stop_time"):
                raise
            reason = " ".join(str(error).split())[:100]
            lines.append(f"the trial table's column {name!r} cannot be read and is left out ({reason})")
            continue
        columns[name] = values
    if short := [name for name, values in columns.items() if len(values) != len(table)]:
        raise DataError(f"{path}: the trial table's columns {', '.join(short)} are not as long as the others")
    for name in ("start_time", "stop_time"):
        if name not in columns or columns[name].dtype.kind not in "fiu":
            raise DataError(f"{path}: the trial table has no column {name} of numbers, in s")
    return columns, lines


def sort_intervals(intervals: np.ndarray, what: str) -> np.ndarray:
    """Intervals by their start.

    Args:
        intervals: (k, 2) start and stop in s.
        what: the file and the intervals' name, for the error.

    Raises:
        DataError: a time is not finite, or an interval stops before it starts.
    """
    if intervals.ndim != 2 or intervals.shape[1] != 2 or not np.isfinite(intervals).all():
        raise DataError(f"{what} are not pairs of finite times; the file is damaged")
    if (bad := np.flatnonzero(intervals[:, 1] < intervals[:, 0])).size:
        start, stop = intervals[bad[0]]
        raise DataError(
            f"{what}: {bad.size} of {len(intervals)} stop before they start ({start:.6g} to {stop:.6g} s): they must "
            "be start and stop in s, not start and duration"
        )
    return intervals[np.argsort(intervals[:, 0], kind="stable")]


def merge_intervals(intervals: np.ndarray) -> np.ndarray:
    """(m, 2) what intervals (k, 2) by their start cover together: those that overlap or touch are one."""
    if len(intervals) < 2:
        return intervals
    latest = np.maximum.accumulate(intervals[:, 1])
    begins = np.flatnonzero(np.r_[True, intervals[1:, 0] > latest[:-1]])
    return np.stack([intervals[begins, 0], latest[np.r_[begins[1:] - 1, len(intervals) - 1]]], axis=1)


def consecutive_windows(observed: np.ndarray, origin: int, length: int, bin_ms: int) -> np.ndarray:
    """Starts in s of windows that follow each other through the observed time, from each stretch's first whole bin.

    Args:
        observed: (S,) bool, samples of 1 ms.
        origin: the first one's number.
        length: samples of a window, whole bins.
        bin_ms: bin width in ms.
    """
    edges = np.flatnonzero(np.diff(np.r_[False, observed, False].astype(np.int8))).reshape(-1, 2) + origin
    begin = -(-edges[:, 0] // bin_ms) * bin_ms
    starts = [np.arange(low, high - length + 1, length) for low, high in zip(begin, edges[:, 1], strict=True)]
    return np.concatenate([*starts, np.empty(0, np.int64)]) / 1000.0
