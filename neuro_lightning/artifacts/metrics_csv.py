"""Reads ``metrics.csv``: everything that a run logs, one row for each step; the source of truth."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

METRICS_FILE = "metrics.csv"


def read_metrics(path: str | Path) -> dict[str, np.ndarray]:
    """The columns of a ``metrics.csv``, NaN where nothing was logged at a step."""
    import numpy as np  # this module is imported by every command, also by --help

    rows = read_rows(Path(path))
    columns = list(rows[0]) if rows else []
    return {column: np.array([_number(row[column]) for row in rows]) for column in columns}


def read_rows(path: Path) -> list[dict[str, str]]:
    """The whole rows; the last one may be torn where the process was killed."""
    columns, *lines = read_lines(path) or [[]]
    if columns[:1] != ["step"]:
        return []
    whole = (row for row in lines if len(row) == len(columns) and row[0].isascii() and row[0].isdigit())
    return [dict(zip(columns, row, strict=True)) for row in whole]


def read_lines(path: Path) -> list[list[str]]:
    """The cells of each line; bytes that are no text are replaced, and lines that cannot be read left out."""
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        lines: list[list[str]] = []
        for line in file:
            try:
                lines += csv.reader([line])
            except csv.Error:
                continue
    return lines


def _number(text: str) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")
