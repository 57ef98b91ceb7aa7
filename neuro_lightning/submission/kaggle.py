"""The submission file of the UW Neural Data Challenge 2019 (https://www.kaggle.com/c/uwndc19): written and checked.

A CSV of 51 lines and 19 columns: the header of ``train.csv`` (``Id`` and the 18 neurons, in its order), then one line
for each of the test images 0 to 49, the rows of ``stim.npy``. The values are predicted square roots of spike counts.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from neuro_lightning.artifacts.atomic import whole_file
from neuro_lightning.data.checks.bounds import reading
from neuro_lightning.errors import SubmissionError
from neuro_lightning.submission.check import ELSEWHERE

N_IMAGES = 50
LARGEST = 30.0
"""900 spikes in the 300 ms that were counted: no neuron does that. The largest recorded response is 11.2."""
SMALLEST = -5.0
"""A linear model's prediction for a silent neuron may lie a little below zero."""


def write_kaggle(path: str | Path, rates: np.ndarray, columns: Sequence[str]) -> Path:
    """Writes the challenge's CSV: complete, or not at all.

    Args:
        path: the file to write; it replaces an existing one.
        rates: (50, N) predicted responses to the test images, sqrt(spikes), in the order of ``stim.npy``.
        columns: the N neurons' names, from the header of ``train.csv`` (``recording.info["columns"]``).

    Returns:
        The path written.

    Raises:
        SubmissionError: the predictions are not what the challenge takes, or the file cannot be written.
    """
    path, rates = Path(path), np.asarray(rates)
    if not columns or columns[0] == "Id" or len(set(columns)) < len(columns) or not all(columns):
        names = f"the columns must be the neurons' names from the header of train.csv, without Id, not {columns[:3]}"
        raise SubmissionError(f"the submission: {names}")
    check_responses("the submission", rates, columns)
    with whole_file(path, SubmissionError, ELSEWHERE) as part:
        pd.DataFrame(rates, columns=list(columns)).to_csv(part, index_label="Id", lineterminator="\n")
    return path


def check_kaggle(path: str | Path, columns: Sequence[str]) -> None:
    """Checks a submission file.

    Args:
        path: the file.
        columns: the neurons' names, from the header of ``train.csv``.

    Raises:
        SubmissionError: anything is not as the challenge takes it; the message says what, where, and how to mend it.
    """
    path = Path(path)
    with reading(path, "write it again", SubmissionError), open(path, newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file, strict=True)) or [[]]
    expected = ["Id", *columns]
    if header != expected:
        place = next((i for i, pair in enumerate(zip(header, expected, strict=False)) if len(set(pair)) > 1), None)
        detail = f"{len(header)} columns, not {len(expected)}" if place is None else (
            f"column {place + 1} is {header[place]!r}, not {expected[place]!r}"
        )  # fmt: skip
        raise SubmissionError(f"{path}: the header differs from that of train.csv: {detail}; keep its order")
    if len(rows) != N_IMAGES:
        raise SubmissionError(
            f"{path}: {len(rows) + 1} lines, expected {N_IMAGES + 1}: the header and one for each test image"
        )
    values = [_values(f"{path}, line {image + 2}", image, row, columns) for image, row in enumerate(rows)]
    check_responses(str(path), np.array(values), columns)


def check_responses(where: str, rates: np.ndarray, columns: Sequence[str]) -> None:
    """Checks predicted responses. Slightly negative ones are taken, as by the challenge.

    Args:
        where: the file, for the message.
        rates: (50, N) square roots of spike counts.
        columns: the N neurons' names.

    Raises:
        SubmissionError: shape or type is wrong, or a value is NaN, infinite, far below zero or too large to be
            a square root.
    """
    expected = (N_IMAGES, len(columns))
    if rates.shape != expected or rates.dtype.kind not in "fiu":
        raise SubmissionError(
            f"{where}: {rates.dtype} values of shape {rates.shape}, expected numbers of shape {expected}: one row for "
            "each test image, one column for each neuron"
        )
    faults = {
        "not finite (NaN or infinite)": ~np.isfinite(rates),
        "too large": rates > LARGEST,
        "far below zero": rates < SMALLEST,
    }
    for name, bad in faults.items():
        if bad.any():
            image, neuron = np.argwhere(bad)[0]
            raise SubmissionError(
                f"{where}: {bad.sum()} values are {name}, the first is {rates[image, neuron]:g} for image {image}, "
                f"neuron {columns[neuron]}; they are square roots of spike counts, 0 to about 12"
            )


def _values(where: str, image: int, row: Sequence[str], columns: Sequence[str]) -> list[float]:
    """The responses in one line of a submission file."""
    if len(row) != len(columns) + 1:
        raise SubmissionError(f"{where}: {len(row)} cells, expected {len(columns) + 1}")
    if row[0] != str(image):
        order = f"they are 0 to {N_IMAGES - 1} in the order of stim.npy"
        raise SubmissionError(f"{where}: the Id is {row[0]!r}, expected {image}; {order}")
    values = []
    for name, cell in zip(columns, row[1:], strict=True):
        try:
            values.append(float(cell))
        except ValueError:
            raise SubmissionError(f"{where}, column {name}: {cell!r} is no number") from None
    return values
