"""Reads the files of the UW Neural Data Challenge 2019 (https://www.kaggle.com/c/uwndc19).

- ``stim.npy``: (601, 80, 80, 3) RGB images in [0, 1]. Rows 0 to 49 are the test images, rows 50 to 600 the training
  images in the order of ``train.csv``.
- ``train.csv``: ``Id`` (50 to 600, the row in ``stim.npy``) and a column for each of the 18 neurons: the square root of
  the spike count in 50 to 350 ms, mean over presentations. A cell is empty where the neuron was not shown the image:
  seven neurons saw only the first 151 images, and the last image was seen by four neurons.
- ``sub.csv``: the sample submission, with the same header and the Ids 0 to 49.
- ``truth.npz``: the mean responses; beside a simulated twin only.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuro_lightning.data.checks.bounds import read_npy, reading
from neuro_lightning.data.checks.options import check_whole
from neuro_lightning.data.twin_files import TRUTH, true_rates
from neuro_lightning.errors import DataError

ADDRESS = "https://www.kaggle.com/c/uwndc19/data"
FILES = ("stim.npy", "train.csv", "sub.csv")
N_TEST, N_TRAIN, N_NEURONS, SIZE = 50, 551, 18, 80
N_IMAGES = N_TEST + N_TRAIN
LARGEST = 30.0
"""900 spikes in the 300 ms that were counted: no neuron does that. The largest recorded response is 11.2."""


@dataclass
class Challenge:
    """What the files hold, in memory.

    Attributes:
        images: (601, 3, H, W) float32 in [0, 1], cropped; row = Id.
        responses: (551, 18) float32, sqrt(spikes), NaN where not shown; row k belongs to image 50 + k.
        columns: the neurons' names, in the order of the columns.
        rates: (601, 18) float32, the mean responses behind a simulated twin; None for the real recording.
    """

    images: np.ndarray
    responses: np.ndarray
    columns: list[str]
    rates: np.ndarray | None = None


def read_challenge(folder: str | Path, *, image_size: int = SIZE) -> Challenge:
    """Read the three files, and the truth beside a simulated twin.

    Args:
        folder: where they lie.
        image_size: side in pixels of the centre that is kept, 1 to 80.

    Raises:
        DataError: a file is missing or damaged, or is not as published: shape, range, order of rows, header, cells.
        ConfigError: ``image_size`` is not possible.
    """
    folder = Path(folder).expanduser()
    if missing := [name for name in FILES if not (folder / name).is_file()]:
        raise DataError(
            f"{folder} has no {', '.join(missing)}: download {', '.join(FILES)} from {ADDRESS} (free account; accept "
            "the rules) and put them there, or set data.simulate=true"
        )
    columns, responses = read_responses(folder / "train.csv", range(N_TEST, N_IMAGES))
    names, _ = read_table(folder / "sub.csv", range(N_TEST))
    if names != columns:
        place = next((i for i, pair in enumerate(zip(columns, names, strict=False)) if len(set(pair)) > 1), len(names))
        raise DataError(
            f"{folder / 'sub.csv'}: the header differs from that of train.csv at neuron column {place + 1}; a "
            "submission needs the same 18 columns in the same order: download both files again"
        )
    images = read_images(folder / "stim.npy", image_size)
    rates = None
    if (folder / TRUTH).is_file():
        rates = true_rates(folder / TRUTH, (N_IMAGES, N_NEURONS)).astype(np.float32)
    return Challenge(images, responses, columns, rates)


def read_images(path: Path, image_size: int) -> np.ndarray:
    """The centre of every image, (601, 3, S, S) float32.

    Raises:
        DataError: the file cannot be read, or shape, type or range are not as published.
        ConfigError: ``image_size`` is no whole number from 1 to 80.
    """
    check_whole("image_size", image_size, 1, SIZE, " (pixels)")
    with reading(path, f"download it again from {ADDRESS}"):
        stim = read_npy(path, mapped=True)
    expected = (N_IMAGES, SIZE, SIZE, 3)
    if stim.shape != expected:
        raise DataError(f"{path}: the shape is {stim.shape}, expected {expected}: rows, height, width, RGB")
    if stim.dtype.kind != "f":
        raise DataError(f"{path}: the values are {stim.dtype}, expected floats in [0, 1]; divide 8-bit images by 255")
    low, high = float(stim.min()), float(stim.max())
    if not (low >= 0 and high <= 1):  # also true of NaN
        raise DataError(
            f"{path}: the values reach from {low:g} to {high:g}, expected [0, 1]: use the published file, neither "
            "scaled to 255 nor normalised"
        )
    start = (SIZE - image_size) // 2
    centre = stim[:, start : start + image_size, start : start + image_size]
    return np.ascontiguousarray(centre.transpose(0, 3, 1, 2), dtype=np.float32)


def read_responses(path: Path, ids: range) -> tuple[list[str], np.ndarray]:
    """A table of responses.

    Args:
        path: the CSV file.
        ids: the Ids there must be, in this order.

    Returns:
        ``(columns, responses)``: N names and (len(ids), N) float32, NaN where a cell is empty.

    Raises:
        DataError: the table is not as published, a cell is no number, or a response is negative or infinite.
    """
    columns, rows = read_table(path, ids)
    values = np.array(
        [[_number(path, line, name, cell) for name, cell in zip(columns, row, strict=True)] for line, row in rows],
        dtype=np.float32,
    )
    if empty := [name for name, seen in zip(columns, np.isfinite(values).any(0), strict=True) if not seen]:
        raise DataError(f"{path}: column {empty[0]} has no response at all: download the file again from {ADDRESS}")
    return columns, values


def read_table(path: Path, ids: range) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The names of the neurons and, for each row, its line in the file and the text of its cells without the Id.

    Raises:
        DataError: the file is no CSV, or header, Ids or the number of cells are not as published.
    """
    with reading(path, f"download it again from {ADDRESS}"), open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, strict=True)
        header = [name.strip() for name in next(reader, [])]
        rows = [(reader.line_num, row) for row in reader if row]
    columns = header[1:]
    if header[:1] != ["Id"] or len(columns) != N_NEURONS:
        raise DataError(
            f"{path}: the header must be Id and {N_NEURONS} neurons, but is {','.join(header)[:60]!r} "
            f"with {len(header)} columns"
        )
    if not all(columns) or len(set(columns)) < len(columns):
        twice = next((name for name in columns if columns.count(name) > 1 or not name), "")
        raise DataError(f"{path}: the neurons' names in the header must differ and not be empty; see {twice!r}")
    if wrong := [(line, len(row)) for line, row in rows if len(row) != len(header)]:
        raise DataError(f"{path}, line {wrong[0][0]}: {wrong[0][1]} cells, expected {len(header)}")
    _check_ids(path, [(line, row[0].strip()) for line, row in rows], ids)
    return columns, [(line, row[1:]) for line, row in rows]


def _check_ids(path: Path, found: list[tuple[int, str]], ids: range) -> None:
    """Refuse Ids that are not just ``ids`` in this order: then rows would be taken for other images' responses."""
    rule = f"the Ids must be {ids[0]} to {ids[-1]}, each once and in this order, as the rows of stim.npy"
    for (line, text), wanted in zip(found, ids, strict=False):
        if text != str(wanted):
            raise DataError(f"{path}, line {line}: the Id is {text!r} where {wanted} was expected; {rule}")
    if len(found) != len(ids):
        raise DataError(f"{path} has {len(found)} rows, expected {len(ids)}; {rule}")


def _number(path: Path, line: int, name: str, cell: str) -> float:
    """A cell's value; NaN for an empty one."""
    text = cell.strip()
    if not text or text.lower() == "nan":
        return math.nan
    try:
        value = float(text)
    except ValueError:
        raise DataError(f"{path}, line {line}, column {name}: {cell!r} is no number") from None
    if not 0 <= value <= LARGEST:
        raise DataError(
            f"{path}, line {line}, column {name}: a response is a square root of a spike count, 0 to about 12, and "
            f"cannot be {text}"
        )
    return value
