"""The tables of an NWB file: trials under whatever name, and their columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from neuro_lightning.data.formats.columns import decode_text, read_dataset
from neuro_lightning.errors import DataError


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
