"""What a table of trials says of each trial, as numbers that heads may decode."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neuro_lightning.data.formats.spike_recording import SpikeRecording
from neuro_lightning.errors import ConfigError, DataError

UNKNOWN = {"", "nan", "none", "n/a", "na"}
"""Texts of a trial of which a column says nothing, in small letters."""

Labels = Sequence[tuple[str, list[str] | None]]
"""The names of columns, and the different values of those that hold text, sorted: the place of one is its number."""


def label_texts(source: SpikeRecording, names: Sequence[str], row: np.ndarray) -> Labels:
    """The columns by name, with the values of text.

    Args:
        source: the recording.
        names: of columns of its table of trials.
        row: (B,) the trials that are used.

    Raises:
        ConfigError: a column is named twice.
        DataError: there is no such column, or it holds neither numbers nor text.
    """
    if len(set(names)) < len(names):
        raise ConfigError(f"data.labels={list(names)} names a column twice")
    found: list[tuple[str, list[str] | None]] = []
    for name in names:
        values = source.column(name)[row]
        if values.dtype.kind not in "biufUS" and not all(isinstance(value, str | bytes) for value in values):
            raise DataError(f"{source.path}: the column {name!r} (data.labels) holds neither numbers nor text")
        found.append((name, None if values.dtype.kind in "biuf" else sorted(set(_texts(values)) - {""})))
    return found


def read_labels(source: SpikeRecording, labels: Labels, row: np.ndarray) -> np.ndarray | None:
    """(B, J) the columns as numbers, NaN where a value is unknown or the file has no such column; None without columns.

    Args:
        source: the recording.
        labels: of :func:`label_texts`.
        row: (B,) the trials that are used.
    """
    columns = [_column(source, name, texts, row) for name, texts in labels]
    return np.stack(columns, axis=1) if columns else None


def _column(source: SpikeRecording, name: str, texts: list[str] | None, row: np.ndarray) -> np.ndarray:
    values = source.trials[name][row] if name in source.trials else np.full(len(row), np.nan)
    if texts is None:
        if values.dtype.kind not in "biuf":  # another file may hold text there
            return np.full(len(row), np.nan)
        return np.where(np.isfinite(values), values, np.nan).astype(np.float64)
    number = {text: float(place) for place, text in enumerate(texts)}
    return np.array([number.get(text, np.nan) for text in _texts(values)])


def _texts(values: np.ndarray) -> list[str]:
    """Each value as text, empty where it is unknown."""
    found = [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in values.tolist()]
    return ["" if text.strip().lower() in UNKNOWN else text for text in found]
